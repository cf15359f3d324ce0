# SPDX-License-Identifier: Apache-2.0
"""Images kept for validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from training.crops import CropRule
from training.images import decode, name_of
from training.known_images import KnownImages, small_copy


@dataclass(frozen=True)
class HeldOut:
    """Images for validation.

    Args:
        images: those that can be read.
        crops: their centre crops by size, `(N, 3, size, size)` uint8.
        known: recognises them.
        unreadable: messages of those that cannot be read.
    """

    images: datasets.Dataset
    crops: dict[int, torch.Tensor]
    known: KnownImages
    unreadable: list[str]

    @classmethod
    def read(cls, images: datasets.Dataset, sizes: Sequence[int]) -> "HeldOut":
        """Read the images and cut crops of each of some sizes, in pixels a side.

        Raises:
            ValueError: none can be read.
        """
        rule, random = CropRule("center"), np.random.default_rng(0)
        crops: dict[int, list[torch.Tensor]] = {size: [] for size in sizes}
        readable, copies, names, unreadable = [], [], [], []
        for number, row in enumerate(images):
            label = f"row {number} of the validation images"
            try:
                image = decode(row["image"], label)
            except ValueError as error:
                unreadable.append(str(error))
                continue
            readable.append(number)
            for size, cut in crops.items():
                cut.append(rule.cut(image, size, random))
            copies.append(small_copy(image))
            names.append(name_of(row["image"], label))
        if not readable:
            raise ValueError(f"None of the {len(images)} validation images can be read; the first: {unreadable[0]}")
        stacked = {size: torch.stack(cut) for size, cut in crops.items()}
        return cls(images.select(readable), stacked, KnownImages(np.stack(copies), names), unreadable)
