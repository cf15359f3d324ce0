# SPDX-License-Identifier: Apache-2.0
"""Which labelled pixels a classifier learns from, and of which classes they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alibi_dinov2.io.image_regions import ImageRegions


@dataclass(frozen=True)
class LabelledPixels:
    """Some pixels of a slice, and their classes.

    Attributes:
        source, index: the slice.
        pixels: rows and columns, `(n, 2)`.
        labels: `(n,)` uint8, 1 to 255.
    """

    source: ImageRegions
    index: int
    pixels: np.ndarray
    labels: np.ndarray


def find_classes(labels: Sequence[np.ndarray]) -> np.ndarray:
    """The classes that occur, ascending, `(K,)` uint8; numbers may be left out, as in 1 and 3.

    Raises:
        ValueError: nothing is labelled, or only one class.
    """
    classes = np.unique(np.concatenate([np.unique(image) for image in labels]))
    classes = classes[classes > 0]
    if len(classes) < 2:
        found = f"only class {classes[0]}" if len(classes) else "nothing"
        raise ValueError(f"The labels mark {found}; mark some pixels of at least two classes with 1, 2, and so on.")
    return classes


def choose_pixels(labels: Sequence[np.ndarray], limit: int, seed: int) -> list[np.ndarray]:
    """Rows and columns of the labelled pixels of each image, `(n, 2)`, in reading order.

    If there are more than `limit` in all, that many are drawn, the same share of every class, but at least one of each.

    Args:
        labels: from `to_labels`.
        limit: 1 or more.
        seed: of the draw.
    """
    places = [np.argwhere(image) for image in labels]
    total = sum(map(len, places))
    if total <= limit:
        return places
    random = np.random.default_rng(seed)
    of_image = np.repeat(np.arange(len(places)), [len(found) for found in places])
    of_class = np.concatenate([image[image > 0] for image in labels])
    chosen = np.zeros(total, dtype=bool)
    for label in np.unique(of_class):
        members = np.flatnonzero(of_class == label)
        chosen[random.choice(members, max(1, len(members) * limit // total), replace=False)] = True
    return [found[chosen[of_image == number]] for number, found in enumerate(places)]
