# SPDX-License-Identifier: Apache-2.0
"""What a reader of a format gives: an image as it is stored, whatever the format, of which regions can be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

SHORTEST = "YXS"  # axes of a plane: rows, columns, samples
CHANNEL = "C"
REAL = "buif"  # kinds of types: bool, integers, floating
REPEATED = "I"  # axis along which images of a file stand that are alike
MICROMETRES = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "micron": 1.0, "microns": 1.0, "um": 1.0, "\\u00B5m": 1.0, "µm": 1.0, "μm": 1.0,
    "nm": 1e-3, "Å": 1e-4, "A": 1e-4, "pm": 1e-6, "inch": 25400.0,
}  # fmt: skip


class PixelSize(NamedTuple):
    """Height and width of a pixel in a physical unit."""

    height: float
    width: float
    unit: str


def in_micrometres(height: float, width: float, unit: str) -> PixelSize | None:
    """A pixel's size in µm if the unit is one of length, as it is otherwise, and none if it is not positive."""
    if not (height > 0 and width > 0):
        return None
    scale = MICROMETRES.get(unit)
    return PixelSize(height, width, unit) if scale is None else PixelSize(height * scale, width * scale, "µm")


@dataclass(frozen=True)
class StoredImage:
    """An image, a stack, or a series of them with channels, as a file holds it.

    Attributes:
        read: place on each of `axes`, rows, columns (slices with start and stop inside `shape`) -> pixels `(h, w, S)`
            in `dtype` and native byte order, upright.
        shape: height and width, upright.
        dtype: of the values: bool, integers or floating; an image of other values can only be left out.
        axes: what stands beside rows, columns and samples, a letter each: T time, Z depth, C channels, others.
        lengths: of `axes`.
        samples: S: of each pixel.
        coloured: whether the first three samples are red, green and blue.
        opacity: the sample that is one, as its number, or none.
        premultiplied: whether colours are already weighted by it.
        bits: that values use, if fewer than those of `dtype`.
        white_is_zero: whether 0 is white.
        palette: the colours of indices, `(N, 3)` or `(N, 4)` uint8, or none.
        channels: names along C; may be empty.
        pixel_size: if the file has one.
        name: of the image in its file; may be empty.
        lossy: name of the compression that has changed values, or empty.
    """

    read: Callable[[tuple[int, ...], slice, slice], np.ndarray]
    shape: tuple[int, int]
    dtype: np.dtype
    axes: str = ""
    lengths: tuple[int, ...] = ()
    samples: int = 1
    coloured: bool = False
    opacity: int | None = None
    premultiplied: bool = False
    bits: int | None = None
    white_is_zero: bool = False
    palette: np.ndarray | None = None
    channels: tuple[str, ...] = ()
    pixel_size: PixelSize | None = None
    name: str = ""
    lossy: str = ""

    def __post_init__(self) -> None:
        if not prod(self.shape) * prod(self.lengths) * self.samples:
            raise ValueError(f"it has no pixels: {self.kind}")

    @property
    def kind(self) -> str:
        """Size and type, for a message."""
        axes = "".join(f"{axis}{length}×" for axis, length in zip(self.axes, self.lengths, strict=True))
        return f"{axes}{self.shape[0]}×{self.shape[1]}×{self.samples} {self.dtype}".replace("×1 ", " ")

    def require_real(self) -> None:
        """Raise a `NotImplementedError` if the values are no real numbers."""
        if self.dtype.kind not in REAL:
            raise NotImplementedError(
                f"its values are of {self.dtype}; they must be real numbers (of complex ones take the magnitude)"
            )

    @property
    def visible(self) -> tuple[int, ...]:
        """The samples that are grey, colours or channels, without opacity and what there is beside colours."""
        numbers = tuple(number for number in range(self.samples) if number != self.opacity)
        return numbers[:3] if self.coloured else numbers

    def is_like(self, other: "StoredImage") -> bool:
        """Whether the two can be slices of one stack."""
        names = ("shape", "dtype", "samples", "coloured", "opacity", "white_is_zero", "bits", "channels")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return same and self.channel_count == other.channel_count and (self.palette is None) == (other.palette is None)

    @property
    def channel_count(self) -> int:
        """How many channels there are beside the samples."""
        return self.lengths[self.axes.index(CHANNEL)] if CHANNEL in self.axes else 1

    def slice_places(self) -> list[dict[str, int]]:
        """Places on all axes but channels, in the order of the slices."""
        axes = [(axis, length) for axis, length in zip(self.axes, self.lengths, strict=True) if axis != CHANNEL]
        return [
            dict(zip((axis for axis, _ in axes), place, strict=True))
            for place in product(*(range(length) for _, length in axes))
        ]


def of_array(array: Any, axes: str, **facts: Any) -> StoredImage:
    """A stored image from something that is indexed like an array: NumPy's, one on the disk, or a zarr.

    Args:
        array: with `shape`, `dtype` and basic indexing.
        axes: a letter for each, with Y and X among them, and S for samples if there are any.
        facts: further attributes of `StoredImage`.
    """
    sizes = dict(zip(axes, array.shape, strict=True))
    others = "".join(axis for axis in axes if axis not in SHORTEST)
    order = [axis for axis in axes if axis in SHORTEST]
    dtype = np.dtype(array.dtype).newbyteorder("=")

    def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        spans: dict[str, Any] = {"Y": rows, "X": columns, "S": slice(None), **dict(zip(others, place, strict=True))}
        pixels = np.asarray(array[tuple(spans[axis] for axis in axes)])
        pixels = pixels.transpose([order.index(axis) for axis in SHORTEST if axis in order])
        return (pixels if "S" in order else pixels[..., None]).astype(dtype, copy=False)

    return StoredImage(
        read,
        (sizes["Y"], sizes["X"]),
        dtype,
        others,
        tuple(sizes[axis] for axis in others),
        sizes.get("S", 1),
        **facts,
    )


def as_channels(images: Sequence[StoredImage]) -> StoredImage:
    """Images of one kind as the channels of one, with their names; a single one as it is."""
    if len(images) == 1:
        return images[0]

    def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        return images[place[0]].read(place[1:], rows, columns)

    names = tuple(image.name for image in images)
    return replace(
        images[0],
        read=read,
        axes=CHANNEL + images[0].axes,
        lengths=(len(images), *images[0].lengths),
        channels=names,
        name=", ".join(names),
    )


def alike(images: Sequence[StoredImage], series: int | str | None) -> tuple[list[StoredImage], list[StoredImage]]:
    """The images of a file that are slices of one stack, and those that are left out: smaller ones, or complex ones.

    Args:
        images: all of a file.
        series: number or name of the one that is wanted alone; if not given, those that are like the largest.

    Raises:
        NotImplementedError: there is no such series, others of the largest one's size are of another kind, or none that
            could be chosen has real numbers.
    """
    listed = "; ".join(f"{number}: {image.name or 'image'} {image.kind}" for number, image in enumerate(images))
    if series is not None:
        names = [image.name for image in images]
        number = names.index(series) if isinstance(series, str) and series in names else series
        if isinstance(number, str) and number.isdigit():
            number = int(number)
        if not isinstance(number, int) or not 0 <= number < len(images):
            raise NotImplementedError(f"it has no series {series!r}; it has {listed}")
        images[number].require_real()
        return [images[number]], [image for image in images if image is not images[number]]
    largest = max(images, key=lambda image: (image.dtype.kind in REAL, prod(image.shape)))
    largest.require_real()
    chosen = [image for image in images if image.is_like(largest)]
    left_out = [image for image in images if not image.is_like(largest)]
    if any(image.shape == largest.shape and image.dtype.kind in REAL for image in left_out):
        raise NotImplementedError(f"it has images of one size and different kinds: {listed}; choose one with `series`")
    return chosen, left_out
