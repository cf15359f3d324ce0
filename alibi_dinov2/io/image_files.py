# SPDX-License-Identifier: Apache-2.0
"""Image files of any size, read region by region with the same values as the whole image."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from alibi_dinov2.io.images import rgb_array
from alibi_dinov2.io.tiff_pages import BAND_ROWS, TiffPages
from modeling_alibi_dinov2.image_processing_alibi_dinov2 import to_8bit, to_array

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LOSSY = ("JPEG", "MPO", "WEBP")
SCALED_ALIKE = (np.uint8, np.uint16, np.bool_)  # whatever the values are
# What readers of damaged files raise, found by truncating and corrupting files of all kinds.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)


class Pages(Protocol):
    """The pages of a file as they are stored; see `TiffPages`."""

    slices: int
    shape: tuple[int, int]
    dtype: np.dtype
    band_rows: int

    def read(self, index: int, rows: slice, columns: slice, indices: bool = False) -> np.ndarray: ...

    def close(self) -> None: ...


class PillowPages:
    """The pages of a file that is decoded whole, page by page; see `TiffPages`."""

    band_rows = BAND_ROWS

    def __init__(self, path: str | Path) -> None:
        self.file = Image.open(path)
        # Other formats' further frames are animations and thumbnails.
        self.slices = getattr(self.file, "n_frames", 1) if self.file.format == "TIFF" else 1
        self.page = lru_cache(maxsize=1)(self.decode)
        try:
            first = self.page(0, False)
        except DAMAGE:
            self.file.close()
            raise
        self.shape, self.dtype = first.shape[:2], first.dtype

    def close(self) -> None:
        """Close the file."""
        self.page.cache_clear()
        self.file.close()

    def read(self, index: int, rows: slice, columns: slice, indices: bool = False) -> np.ndarray:
        """A region of a page, upright, `(h, w, C)`; of palette images `indices` or colours."""
        page = self.page(index, indices)
        if page.shape[:2] != self.shape:
            raise ValueError(f"page {index} has shape {page.shape[:2]}, the first one {self.shape}")
        return page[rows, columns]

    def decode(self, index: int, indices: bool) -> np.ndarray:
        """A page, `(H, W, C)`."""
        self.file.seek(index)
        image = ImageOps.exif_transpose(self.file)
        pixels = np.asarray(image) if indices else to_array(image)
        return pixels[..., None] if pixels.ndim == 2 else pixels


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn what readers raise into a `ValueError` that names the file; one that does not exist stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read as an image ({error}). Replace or remove the file.") from error


def open_pages(path: Path) -> Pages:
    """The pages of a file, by tifffile if it can read them and by Pillow, which decodes images whole, if not.

    Raises:
        ValueError: neither can; the message names the file and says why.
        FileNotFoundError: there is no such file.
    """
    with naming(path):
        with open(path, "rb") as file:
            is_tiff = file.read(4) in TIFF_SIGNATURES
        if not is_tiff:
            return PillowPages(path)
        try:
            return TiffPages(path)
        except NotImplementedError as reason:
            try:
                return PillowPages(path)
            except DAMAGE as error:
                raise ValueError(f"tifffile: {reason}; Pillow: {error}") from error


class ImageFile:
    """An image or a stack in a file; a context manager.

    A region has the values that it has in the whole image read by `alibi_dinov2.io.images`, since what decides how values
    become 8-bit is found once for the whole file. Images of 8 or 16 bits need no such pass over the file.

    Args:
        path: TIFFs are read by tiles or strips if their compression allows it, all else is decoded whole.

    Attributes:
        slices: how many images of equal shape there are: the pages of a stack, or 1.
        shape: height and width in pixels, upright.

    Raises:
        ValueError: the file is no image or is damaged; the message names it.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.pages = open_pages(self.path)
        self.slices, self.shape = self.pages.slices, self.pages.shape

    def __enter__(self) -> "ImageFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.pages.close()

    def read(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """A region of a slice that lies inside it, `(h, w, 3)` uint8, RGB.

        Raises:
            ValueError: the file is damaged, or some of its pixels are NaN or out of range; the message names it.
        """
        pixels = self.stored(index, rows, columns)
        # The extremes of the file ride along, so that the rules decide for a region as they would for the whole.
        values = np.concatenate([pixels.ravel(), self.extremes])
        try:
            return rgb_array(to_8bit(values)[: pixels.size].reshape(pixels.shape))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def stored(self, index: int, rows: slice, columns: slice, indices: bool = False) -> np.ndarray:
        """A region of a slice before conversion, `(h, w, C)`; see `TiffPages.read`."""
        if not 0 <= index < self.slices:
            raise ValueError(f"{self.path} has no slice {index}; it has {self.slices}, counted from 0.")
        rows, columns = (
            slice(*axis.indices(length)[:2]) for axis, length in zip((rows, columns), self.shape, strict=True)
        )
        with naming(self.path):
            return self.pages.read(index, rows, columns, indices)

    @cached_property
    def extremes(self) -> np.ndarray:
        """The least and the greatest value of the file, or nothing if its type alone decides how it is converted.

        Raises:
            ValueError: some pixels are NaN or infinite.
        """
        if self.pages.dtype in SCALED_ALIKE:
            return np.empty(0, self.pages.dtype)
        bands: list[np.ndarray] = []
        invalid, size = 0, 0
        for index in range(self.slices):
            for top in range(0, self.shape[0], self.pages.band_rows):
                band = self.stored(index, slice(top, top + self.pages.band_rows), slice(None))
                invalid += int(np.count_nonzero(~np.isfinite(band)))
                size += band.size
                bands.append(np.array([band.min(), band.max()]))
        if invalid:
            raise ValueError(
                f"{self.path} has {invalid} NaN or infinite of {size} values. Replace them, for example with "
                "`numpy.nan_to_num`, or mask them out beforehand."
            )
        return np.array([np.min(bands), np.max(bands)], self.pages.dtype)


def open_image(path: str | Path) -> ImageFile:
    """Open an image or a stack to read regions of it; see `ImageFile`, whose errors it raises."""
    return ImageFile(path)
