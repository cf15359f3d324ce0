# SPDX-License-Identifier: Apache-2.0
"""Arrays that are decoded piece by piece: a region reads only what it touches, and what was read is kept a while."""

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from alibi_dinov2.io.memory import require_memory

CACHED_BYTES = 2**28  # of decoded cells
MIN_CELL = 2**18  # pixels, unless the image is smaller: strips of a few rows are read many at a time


class CachedCells:
    """A chunked array, indexed by numbers and, along Y and X, by slices with start and stop.

    Args:
        array: a zarr, with `shape`, `dtype` and `chunks`.
        axes: a letter for each, with Y and X among them; S is always read whole.
    """

    def __init__(self, array: Any, axes: str) -> None:
        self.array, self.axes = array, axes
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)
        self.rows, self.columns = axes.index("Y"), axes.index("X")
        height, width = array.chunks[self.rows], array.chunks[self.columns]
        if width >= self.shape[self.columns]:
            height *= max(min(MIN_CELL // (height * width), -(-self.shape[self.rows] // height)), 1)
        self.cell_shape = (height, width)
        samples = self.shape[axes.index("S")] if "S" in axes else 1
        require_memory(height, width, samples * self.dtype.itemsize)
        size = height * width * samples * self.dtype.itemsize
        self.cell = lru_cache(maxsize=max(CACHED_BYTES // size, 1))(self.read_cell)

    def read_cell(self, place: tuple[int, ...], row: int, column: int) -> np.ndarray:
        """The pixels of a cell in the order of the axes, without those that `place` has numbers for."""
        numbers = iter(place)
        (high, wide) = self.cell_shape
        spans = {"Y": slice(row * high, (row + 1) * high), "X": slice(column * wide, (column + 1) * wide)}
        spans["S"] = slice(None)
        key = tuple(spans[axis] if axis in spans else next(numbers) for axis in self.axes)
        return np.asarray(self.array[key])

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        kept = [axis for axis in self.axes if axis in "YXS"]
        place = tuple(number for axis, number in zip(self.axes, key, strict=True) if axis not in kept)
        spans = {"Y": key[self.rows], "X": key[self.columns]}
        cells = [
            range(spans[axis].start // size, -(-spans[axis].stop // size))
            for axis, size in zip("YX", self.cell_shape, strict=True)
        ]
        if all(len(numbers) == 1 for numbers in cells):
            cell = self.cell(place, cells[0][0], cells[1][0])
            return cell[self.within(kept, spans, (cells[0][0], cells[1][0]))[1]].copy()
        lengths = {axis: span.stop - span.start for axis, span in spans.items()}
        shape = [lengths[axis] if axis in lengths else self.shape[self.axes.index(axis)] for axis in kept]
        region = np.empty(shape, self.dtype)
        for numbers in product(*cells):
            target, source = self.within(kept, spans, numbers)
            region[target] = self.cell(place, *numbers)[source]
        return region

    def within(
        self, kept: list[str], spans: dict[str, slice], numbers: tuple[int, ...]
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where a cell and a region meet, in the region and in the cell."""
        target, source = {"S": slice(None)}, {"S": slice(None)}
        for axis, number, size in zip("YX", numbers, self.cell_shape, strict=True):
            low, high = max(spans[axis].start, number * size), min(spans[axis].stop, (number + 1) * size)
            target[axis] = slice(low - spans[axis].start, high - spans[axis].start)
            source[axis] = slice(low - number * size, high - number * size)
        return tuple(target[axis] for axis in kept), tuple(source[axis] for axis in kept)
