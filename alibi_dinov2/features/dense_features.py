# SPDX-License-Identifier: Apache-2.0
"""The one way from images to dense features, for any vision backbone with patch tokens."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone, preprocess
from alibi_dinov2.features.token_layout import patch_maps

OUTPUT: Literal["output"] = "output"
Layer = int | Literal["output"]


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
    total = len(images) if isinstance(images, Sized) else None
    with tqdm(desc=f"features of {backbone.name}", total=total, unit="img", disable=not progress) as bar:
        while group := list(islice(remaining, batch_size)):
            features = patch_features(backbone, preprocess(backbone, group, size), layers)
            yield from features if layers is None else features.swapaxes(0, 1)
            bar.update(len(group))
