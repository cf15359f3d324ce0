# SPDX-License-Identifier: Apache-2.0
"""Class maps drawn over their images, at a size that can be looked at, and the colours of classes."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from alibi_dinov2.io.open_image import ImageFile
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.panels import LINE_HEIGHT, heading, stack

MAX_SIDE = 2000  # pixels
OPACITY = 0.35  # of the colour of a class over the image
LEGEND_WIDTH = 140  # pixels of a name
BAND = 128  # rows of the overlay that are read at once


def overlay(
    image: ImageFile, classes: ImageFile, index: int, numbers: Sequence[int], names: Sequence[str]
) -> Image.Image:
    """A slice under the colours of its classes, with their outlines and a legend; at most 2000 pixels a side.

    Args:
        image: what was segmented.
        classes: its class maps, of the same shape.
        index: of the slice.
        numbers, names: of the classes.
    """
    step = -(-max(image.shape) // MAX_SIDE)
    pixels = reduced(image.shape, step, lambda rows, columns: block_means(image.read(index, rows, columns), step))
    labels = reduced(
        image.shape,
        step,
        lambda rows, columns: classes.stored(index, rows, columns)[step // 2 :: step, step // 2 :: step, 0],
    )
    colours = class_colours()[labels]
    shares = np.where(outlines(labels), 1, OPACITY)[..., None]
    blended = np.round((1 - shares) * pixels + shares * colours).astype(np.uint8)
    return stack([Image.fromarray(blended), legend(numbers, names, blended.shape[1])], horizontal=False)


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


def legend(numbers: Sequence[int], names: Sequence[str], width: int) -> Image.Image:
    """The colours of classes and their names, in as many lines as it takes."""
    entries = [
        stack(
            [
                Image.new("RGB", (LINE_HEIGHT, LINE_HEIGHT), tuple(class_colours()[number].tolist())),
                heading([name], LEGEND_WIDTH),
            ],
            horizontal=True,
        )
        for number, name in zip(numbers, names, strict=True)
    ]
    in_line = max(width // entries[0].width, 1)
    lines = [stack(entries[start : start + in_line], horizontal=True) for start in range(0, len(entries), in_line)]
    return stack(lines, horizontal=False)
