# SPDX-License-Identifier: Apache-2.0
"""The one way from images to dense features, for any vision backbone with patch tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoModel, BaseImageProcessor, PreTrainedModel

from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from modeling_alibi_dinov2.configuration_alibi_dinov2 import as_pair


@dataclass(frozen=True)
class Backbone:
    """A model, the image processor it came with, and the Hub id or folder it came from."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    source: str
    name: str


def load_backbone(
    source: str | Path, device: str = "cpu", name: str | None = None, dtype: torch.dtype = torch.float32
) -> Backbone:
    """A vision backbone by Hub id or folder, through `AutoModel`, in evaluation mode.

    Args:
        source: Hub id or folder.
        device: where it is to run.
        name: what records call it; if not given, the Hub id or the folder's own name, without the path to it.
        dtype: of its weights.

    Raises:
        OSError: there is no such model.
    """
    model = AutoModel.from_pretrained(source, dtype=dtype).eval().to(device)
    name = name or (Path(source).resolve().name if Path(source).is_dir() else str(source))
    return Backbone(model, AutoImageProcessor.from_pretrained(source, backend="pil"), str(source), name)


def patch_shape(backbone: Backbone) -> tuple[int, int]:
    """Height and width of a patch in pixels.

    Raises:
        ValueError: the model's configuration has no patch size.
    """
    patch_size = getattr(backbone.model.config, "patch_size", None)
    if patch_size is None:
        raise ValueError(
            f"{backbone.source} has no patch_size; dense features need a model that cuts images into patches."
        )
    return as_pair(patch_size)


def preprocess(backbone: Backbone, images: Sequence[Image.Image], size: int) -> torch.Tensor:
    """Images -> pixels, the same for every backbone but for its mean, standard deviation and patch size.

    Args:
        images: of equal size; any mode.
        size: shortest side in pixels after resizing; sides are rounded to whole patches, nothing is cropped.

    Returns:
        `(B, 3, H, W)`, in the model's dtype and on its device.
    """
    processor = Dinov2AlibiImageProcessor(
        size={"shortest_edge": size},
        do_center_crop=False,
        patch_size=patch_shape(backbone)[0],
        image_mean=backbone.processor.image_mean,
        image_std=backbone.processor.image_std,
    )
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    return pixels.to(backbone.model.device, backbone.model.dtype)


@torch.inference_mode()
def patch_features(backbone: Backbone, pixel_values: torch.Tensor, layers: Sequence[int] | None = None) -> np.ndarray:
    """Pixels `(B, 3, H, W)` -> normalised patch tokens of the last layer `(B, h, w, D)`, float32.

    Args:
        backbone: from `load_backbone`.
        pixel_values: from `preprocess`.
        layers: numbers of hidden states, 0 for the embeddings and `n` for the output of the n-th layer; the result is
            `(len(layers), B, h, w, D)` then, without the final normalisation, from one forward pass.

    Raises:
        ValueError: the model gives fewer tokens than there are patches, or features that are not finite, or has no
            such layer.
    """
    rows, columns = (side // patch for side, patch in zip(pixel_values.shape[-2:], patch_shape(backbone), strict=True))
    if layers is None:
        states = [backbone.model(pixel_values=pixel_values).last_hidden_state]
    else:
        hidden_states = backbone.model(pixel_values=pixel_values, output_hidden_states=True).hidden_states
        if not all(0 <= layer < len(hidden_states) for layer in layers):
            raise ValueError(
                f"Layers {list(layers)} were asked for; {backbone.source} has 0 to {len(hidden_states) - 1}."
            )
        states = [hidden_states[layer] for layer in layers]
    for tokens in states:
        if tokens.ndim != 3 or tokens.shape[1] < rows * columns:
            raise ValueError(
                f"{backbone.source} gave an output of shape {tuple(tokens.shape)} for {rows}×{columns} patches; dense "
                "features need one token per patch."
            )
    # Prefix tokens come first, however many the model has.
    maps = [tokens[:, -rows * columns :].unflatten(1, (rows, columns)).float().cpu().numpy() for tokens in states]
    features = maps[0] if layers is None else np.stack(maps)
    if not np.isfinite(features).all():
        raise ValueError(f"{backbone.source} gave features that are NaN or infinite; check its weights and precision.")
    return features


def dense_features(
    backbone: Backbone,
    images: Iterable[Image.Image],
    size: int,
    batch_size: int = 1,
    progress: bool = False,
    layers: Sequence[int] | None = None,
) -> Iterator[np.ndarray]:
    """Images -> dense features, one `(h, w, D)` float32 array per image, in order.

    Args:
        backbone: from `load_backbone`.
        images: any sizes and modes; with `batch_size` above 1, of equal size.
        size: shortest side in pixels at which the model sees them.
        batch_size: images per forward pass.
        progress: whether to show a bar.
        layers: as in `patch_features`; arrays are `(len(layers), h, w, D)` then.
    """
    bar = tqdm(desc=f"features of {backbone.name}", unit="img", disable=not progress)
    remaining = iter(images)
    while group := list(islice(remaining, batch_size)):
        features = patch_features(backbone, preprocess(backbone, group, size), layers)
        yield from features if layers is None else features.swapaxes(0, 1)
        bar.update(len(group))
    bar.close()
