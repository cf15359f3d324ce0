# SPDX-License-Identifier: Apache-2.0
"""Class maps drawn over their images, at a size that can be looked at, and a legend of their classes."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.panels import legend_strip

MAX_SIDE = 2000  # pixels
OPACITY = 0.35  # of the colour of a class over the image
BAND = 128  # rows of the overlay that are read at once


def overlay(
    image: ImageRegions, classes: np.ndarray, index: int, numbers: Sequence[int], names: Sequence[str]
) -> Image.Image:
    """A slice under the colours of its classes, with their outlines and a legend; at most 2000 pixels a side.

    Args:
        image: what was segmented.
        classes: the class map of the slice, `(H, W)` uint8.
        index: of the slice.
        numbers, names: of the classes.
    """
    step = -(-max(image.shape) // MAX_SIDE)
    pixels = reduced(image.shape, step, lambda rows, columns: block_means(image.read(index, rows, columns), step))
    labels = reduced(
        image.shape,
        step,
        lambda rows, columns: classes[rows, columns][step // 2 :: step, step // 2 :: step],
    )
    blended = blend(pixels, labels, np.where(outlines(labels), 1, OPACITY))
    colours = class_colours()
    strip = legend_strip(
        [(name, colours[number]) for number, name in zip(numbers, names, strict=True)], len(blended[0])
    )
    margin = strip.shape[1] - blended.shape[1]  # of an image that is narrower than a name
    return Image.fromarray(np.concatenate([np.pad(blended, ((0, 0), (0, margin), (0, 0)), constant_values=255), strip]))


def blend(pixels: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """An image `(H, W, 3)` under the colours of its classes `(H, W)`, whose shares `(H, W)` are 0 to 1; uint8."""
    shares = shares[..., None]
    return np.round((1 - shares) * pixels + shares * class_colours()[labels]).astype(np.uint8)


def reduced(shape: tuple[int, int], step: int, read: Callable[[slice, slice], np.ndarray]) -> np.ndarray:
    """What `read` makes of whole squares of `step` pixels, band by band: the image made smaller."""
    height, width = (length // step * step for length in shape)
    bands = range(0, height, BAND * step)
    return np.concatenate([read(slice(top, min(top + BAND * step, height)), slice(0, width)) for top in bands])


def block_means(pixels: np.ndarray, step: int) -> np.ndarray:
    """Means over squares of `step` pixels, `(h·step, w·step, 3)` -> `(h, w, 3)`."""
    height, width, channels = pixels.shape
    return pixels.reshape(height // step, step, width // step, step, channels).mean(axis=(1, 3))


def outlines(labels: np.ndarray) -> np.ndarray:
    """Whether the pixel to the right or below is of another class, `(H, W)` bool."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges
