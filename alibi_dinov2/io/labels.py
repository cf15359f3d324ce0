# SPDX-License-Identifier: Apache-2.0
"""Sparse labels: what users may give, and which labelled pixels a classifier learns from."""

from collections.abc import Sequence

import numpy as np

from alibi_dinov2.io.image_regions import ImageRegions

MAX_CLASS = 255  # predictions have 8 bits


def to_labels(labels: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Labels of an image as `(H, W)` uint8: 0 unlabelled, 1 to 255 a class.

    Args:
        labels: of any integer or boolean type, or of whole numbers in a floating type.
        shape: of the image.
        name: what messages call the labels.

    Raises:
        ValueError: another shape, fractions, NaN, or values outside 0 to 255.
    """
    labels = np.asarray(labels)
    if labels.shape != tuple(shape):
        raise ValueError(
            f"{name} has shape {labels.shape}, its image {tuple(shape)}; labels are one number for each pixel."
        )
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"{name} is of {labels.dtype}; labels are integers, 0 for unlabelled pixels.")
    if labels.dtype.kind == "f" and not (labels == np.floor(labels)).all():
        raise ValueError(f"{name} has fractions or NaN; labels are whole numbers, 0 for unlabelled pixels.")
    if labels.min() < 0 or labels.max() > MAX_CLASS:
        raise ValueError(
            f"{name} has values from {labels.min()} to {labels.max()}; 0 is unlabelled, classes are 1 to {MAX_CLASS}."
        )
    return labels.astype(np.uint8)


def as_label_maps(labels: np.ndarray | Sequence[np.ndarray], images: Sequence[ImageRegions]) -> list[np.ndarray]:
    """Labels of every slice of every image, `(H, W)` uint8.

    Raises:
        ValueError: there are not as many as images, or what `to_labels` raises.
    """
    given = [labels] if isinstance(labels, np.ndarray) and len(images) == 1 else list(labels)
    if len(given) != len(images):
        raise ValueError(f"There are labels for {len(given)} images, and {len(images)} images; give one for each.")
    maps = []
    for number, (image, found) in enumerate(zip(images, given, strict=True), 1):
        found = np.asarray(found)
        pages = list(found) if image.slices > 1 and found.ndim == 3 else [found]
        if len(pages) != image.slices:
            raise ValueError(f"Image {number} has {image.slices} slices, its labels {len(pages)}; give one for each.")
        maps += [to_labels(page, image.shape, f"The label image {number}") for page in pages]
    return maps


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
