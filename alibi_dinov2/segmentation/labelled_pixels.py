# SPDX-License-Identifier: Apache-2.0
"""Which labelled pixels a classifier learns from, and of which classes they are."""

import warnings
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


def pixels_to_learn(
    sources: Sequence[ImageRegions],
    maps: Sequence[np.ndarray],
    names: Sequence[str] | None,
    limit: int,
    seed: int,
) -> tuple[np.ndarray, list[LabelledPixels]]:
    """The classes, `(K,)` uint8, and the pixels to learn from of each slice that has some.

    Args:
        sources: images.
        maps: labels of every slice of every image, `(H, W)` uint8.
        names: of the classes, if they have some.
        limit, seed: see `choose_pixels`.

    Raises:
        ValueError: fewer than two classes are marked, or there is not one name for each.

    Warns:
        OneImageWarning: see `warn_of_one_image`.
    """
    classes = find_classes(maps)
    require_names(classes, names)
    warn_of_one_image(maps, classes, names)
    pages = [(source, index) for source in sources for index in range(source.slices)]
    labelled = [
        LabelledPixels(source, index, pixels, page[tuple(pixels.T)])
        for (source, index), page, pixels in zip(pages, maps, choose_pixels(maps, limit, seed), strict=True)
        if len(pixels)
    ]
    return classes, labelled


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


def require_names(classes: np.ndarray, names: Sequence[str] | None) -> None:
    """Raise a `ValueError` unless there is one name for each class, or none at all."""
    if names is not None and len(names) != len(classes):
        raise ValueError(f"There are {len(names)} class names for classes {classes.tolist()}; give one each.")


class OneImageWarning(UserWarning):
    """A class has labels on one image alone, while several images have labels."""


def warn_of_one_image(labels: Sequence[np.ndarray], classes: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Warn of classes that are marked on a single one of several marked images: what tells them from the others may be
    what tells the images apart, and no validation can find out.

    Args:
        labels: of each image or slice, `(H, W)`.
        classes: from `find_classes`.
        names: of the classes.
    """
    found = [np.unique(image[image > 0]) for image in labels if image.any()]
    if len(found) < 2:
        return
    count = np.array([sum(number in marked for marked in found) for number in classes])
    called = [f"{number} ({name})" for number, name in zip(classes, names, strict=True)] if names else map(str, classes)
    alone = [name for name, images in zip(called, count, strict=True) if images == 1]
    if alone:
        warnings.warn(
            f"Class {', '.join(alone)} has labels on one image alone, of {len(found)} that have some: the segmenter "
            "may learn to tell the images apart. Label the class on a second image, or other classes on this one.",
            OneImageWarning,
            stacklevel=4,
        )


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
