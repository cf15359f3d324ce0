# SPDX-License-Identifier: Apache-2.0
"""The columns of a figure that shows models beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alibi_dinov2.features.backbone import Backbone, load_backbone


@dataclass(frozen=True)
class Column:
    """A column of a figure: a model, and the shortest side in pixels at which it sees images."""

    label: str
    backbone: Backbone
    size: int


def columns(backbones: Sequence[Backbone], sizes: Sequence[int]) -> list[Column]:
    """A column for each model at each size.

    Raises:
        ValueError: a size is below 1.
    """
    if min(sizes) < 1:
        raise ValueError(f"The size is {' '.join(map(str, sizes))}; it must be 1 pixel or more.")
    return [
        Column(f"{backbone.name}, {size} px" if len(sizes) > 1 else backbone.name, backbone, size)
        for backbone in backbones
        for size in sizes
    ]


def named_backbones(
    models: Sequence[str], names: Sequence[str] | None, device: str, dtype: torch.dtype = torch.float32
) -> list[Backbone]:
    """Backbones under names of their own. All are loaded at once, so that a wrong one fails before the long work.

    Args:
        models: Hub ids or folders.
        names: what to call them; their Hub ids or folder names if not given.
        device: where they run.
        dtype: that they compute with, see `load_backbone`.

    Raises:
        ValueError: there is not one name for each model, or two models have the same.
        OSError: there is no such model.
    """
    wanted: Sequence[str | None] = names or [None] * len(models)
    if len(wanted) != len(models):
        raise ValueError(f"There are {len(wanted)} names for {len(models)} models; give one each, or none.")
    backbones = [load_backbone(source, device, name, dtype=dtype) for source, name in zip(models, wanted, strict=True)]
    if len({backbone.name for backbone in backbones}) < len(backbones):
        found = ", ".join(backbone.name for backbone in backbones)
        raise ValueError(f"Models of the same name cannot be told apart ({found}); give each its own name.")
    return backbones
