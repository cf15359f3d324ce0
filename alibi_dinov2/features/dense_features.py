# SPDX-License-Identifier: Apache-2.0
"""The one way from images to dense features, for any vision backbone with patch tokens."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModel, BaseImageProcessor, PreTrainedModel

from evaluation.token_layout import load_processor, patch_maps, patch_size_of, prepare_config, vision_tower
from evaluation.zoo import MODELS
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

OUTPUT: Literal["output"] = "output"
Layer = int | Literal["output"]


@dataclass(frozen=True)
class Removal:
    """Something that is done about positional bias on top of a backbone; see `evaluation.removals`.

    Attributes:
        name: one of `evaluation.removals.REMOVALS`.
        parameters: all that it depends on, as JSON values.
        forwards: passes of the backbone per image.
        apply: from a function, pixels `(B, 3, H, W)` -> the backbone's own features `(B, h, w, D)`, and pixels, to
            features of that shape.
        cost: seconds per image, absolute and relative to the plain backbone, once measured.
    """

    name: str
    parameters: dict[str, Any]
    forwards: int
    apply: Callable[[Callable[[torch.Tensor], np.ndarray], torch.Tensor], np.ndarray]
    cost: dict[str, float] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What a record tells of it."""
        return {"name": self.name, "parameters": self.parameters, "forwards": self.forwards, "cost": self.cost}


@dataclass(frozen=True)
class Backbone:
    """A model, its image processor, the Hub id or folder they came from, and what is done to its features, if so."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    source: str
    name: str
    removal: Removal | None = None


def load_backbone(
    source: str | Path, device: str = "cpu", name: str | None = None, dtype: torch.dtype = torch.float32
) -> Backbone:
    """A vision backbone by Hub id or folder, through `AutoModel`, in evaluation mode.

    Args:
        source: a folder, a name in `evaluation.zoo.MODELS`, or a Hub id.
        device: where it is to run.
        name: what records call it; if not given, the Hub id or the folder's own name, without the path to it.
        dtype: of its weights.

    Raises:
        OSError: there is no such model.
        ValueError: it needs a library that is not installed, such as timm.
    """
    folder = Path(source) if Path(source).is_dir() else None
    source = str(folder or MODELS.get(str(source), source))
    try:
        config = prepare_config(AutoConfig.from_pretrained(source))
        model = AutoModel.from_pretrained(source, config=config, dtype=dtype)
    except ImportError as error:
        raise ValueError(f"{source} needs a library that is not installed: {' '.join(str(error).split())}") from error
    model = vision_tower(model).eval().to(device)
    return Backbone(
        model, load_processor(source, config), source, name or (folder.resolve().name if folder else source)
    )


def patch_shape(backbone: Backbone) -> tuple[int, int]:
    """Height and width of a patch in pixels.

    Raises:
        ValueError: the model has no patch size.
    """
    return patch_size_of(backbone.model)


def image_processor(backbone: Backbone, size: int) -> Dinov2AlibiImageProcessor:
    """The image processing of a backbone: its own mean, standard deviation and patch size, all else alike.

    Args:
        size: shortest side in pixels after resizing; sides are rounded to whole patches, nothing is cropped.
    """
    return Dinov2AlibiImageProcessor(
        size={"shortest_edge": size},
        do_center_crop=False,
        patch_size=math.lcm(*patch_shape(backbone)),
        image_mean=backbone.processor.image_mean,
        image_std=backbone.processor.image_std,
    )


def preprocess(backbone: Backbone, images: Sequence[Image.Image], size: int) -> torch.Tensor:
    """Images -> pixels, the same for every backbone but for its mean, standard deviation and patch size.

    Args:
        images: of equal size; any mode.
        size: shortest side in pixels after resizing; sides are rounded to whole patches, nothing is cropped.

    Returns:
        `(B, 3, H, W)`, in the model's dtype and on its device.
    """
    pixels = image_processor(backbone, size)(list(images), return_tensors="pt")["pixel_values"]
    return pixels.to(backbone.model.device, backbone.model.dtype)


@torch.inference_mode()
def patch_features(backbone: Backbone, pixel_values: torch.Tensor, layers: Sequence[Layer] | None = None) -> np.ndarray:
    """Pixels `(B, 3, H, W)` -> normalised patch tokens of the last layer `(B, h, w, D)`, float32.

    Args:
        backbone: from `load_backbone`.
        pixel_values: from `preprocess`.
        layers: numbers of hidden states, 0 for the embeddings and `n` for the output of the n-th layer, without the
            final normalisation; `"output"` for the normalised tokens. The result is `(len(layers), B, h, w, D)` then,
            from one forward pass.

    Raises:
        ValueError: the model gives other than one token per patch, or features that are not finite, or has no such
            layer; or layers were asked for and the backbone has a removal, which is of its output.
    """
    if backbone.removal is not None:
        if layers is not None and list(layers) != [OUTPUT]:
            raise ValueError(
                f"{backbone.removal.name} is done to the output of a model, not to its layers {list(layers)}."
            )
        features = backbone.removal.apply(partial(patch_features, replace(backbone, removal=None)), pixel_values)
        return features if layers is None else features[None]
    output, hidden_states = patch_maps(backbone.model, pixel_values, layers is not None)
    known: Mapping[Layer, torch.Tensor] = hidden_states | {OUTPUT: output}
    wanted = [OUTPUT] if layers is None else list(layers)
    if not known.keys() >= set(wanted):
        first, last = min(hidden_states), max(hidden_states)
        raise ValueError(f"Layers {wanted} were asked for; {backbone.source} has {first} to {last} and {OUTPUT!r}.")
    maps = [known[layer].float().cpu().numpy() for layer in wanted]
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
    layers: Sequence[Layer] | None = None,
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
    remaining = iter(images)
    with tqdm(desc=f"features of {backbone.name}", unit="img", disable=not progress) as bar:
        while group := list(islice(remaining, batch_size)):
            features = patch_features(backbone, preprocess(backbone, group, size), layers)
            yield from features if layers is None else features.swapaxes(0, 1)
            bar.update(len(group))
