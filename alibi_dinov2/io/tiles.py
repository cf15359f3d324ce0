# SPDX-License-Identifier: Apache-2.0
"""How a large image is cut: windows for the backbone, which overlap, and blocks for the classifier, which do not."""

from collections.abc import Callable, Iterable
from itertools import product

import numpy as np

Block = tuple[slice, slice]


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """Where windows begin along an axis, so that they cover it and neighbours share `overlap` cells or more.

    Args:
        length: of the axis, in cells. If it is shorter than a window there is one, which reaches beyond it.
        window: length of each window.
        overlap: 0 to `window` − 1.
    """
    last = max(length - window, 0)
    return [*range(0, last, window - overlap), last]


def window_weights(window: int, overlap: int) -> np.ndarray:
    """How much a window's cells count where windows overlap, `(window,)` in (0, 1]: falling linearly to its ends."""
    cells = np.arange(window)
    return np.minimum(np.minimum(cells + 1, window - cells) / (overlap + 1), 1.0).astype(np.float32)


def blocks(shape: tuple[int, int], size: int) -> list[Block]:
    """Rows and columns of squares of `size` pixels that cover an image, in reading order; the last ones are smaller."""
    axes = [[slice(start, min(start + size, length)) for start in range(0, length, size)] for length in shape]
    return list(product(*axes))


def grown(block: Block, margin: int, shape: tuple[int, int]) -> tuple[Block, Block]:
    """A block with a margin as far as the image goes, and where the block lies in it: rows and columns of both."""
    wide = tuple(
        slice(max(span.start - margin, 0), min(span.stop + margin, length))
        for span, length in zip(block, shape, strict=True)
    )
    inside = tuple(
        slice(span.start - outer.start, span.stop - outer.start) for span, outer in zip(block, wide, strict=True)
    )
    return (wide[0], wide[1]), (inside[0], inside[1])


def assembled(
    slices: int, shape: tuple[int, int], parts: Callable[[int], Iterable[tuple[Block, np.ndarray]]]
) -> np.ndarray:
    """An array of a whole stack from its blocks.

    Args:
        slices: how many, 1 or more.
        shape: height and width of each.
        parts: gives the blocks of a slice and their parts, `(h, w, …)`; together they cover the slice.

    Returns:
        `(slices, H, W, …)` of the type of the parts.
    """
    whole: np.ndarray | None = None
    for index in range(slices):
        for block, part in parts(index):
            if whole is None:
                whole = np.empty((slices, *shape, *part.shape[2:]), dtype=part.dtype)
            whole[index, *block] = part
    assert whole is not None
    return whole
