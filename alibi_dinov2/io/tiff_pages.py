# SPDX-License-Identifier: Apache-2.0
"""The pages of a TIFF, of which a region reads only the tiles or strips that it touches."""

from contextlib import ExitStack
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
from tifffile import EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage

CACHED_BYTES = 2**28  # of decoded tiles and strips
BAND_ROWS = 256  # of an image that is not in tiles or strips
# EXIF orientation -> whether stored rows are upright columns, and whether upright rows and columns run backwards.
ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class TiffPages:
    """Greyscale, RGB, RGBA or palette pages of a file that are like its first: a stack, or a single image.

    Uncompressed files are mapped into memory, of others decoded segments (tiles or strips) are kept, the last 256 MiB
    of them. A file of one compressed strip is therefore decoded whole.

    Attributes:
        slices: how many pages; the channels of a composite are pages too. Pages of another size, such as thumbnails
            and the smaller ones of a pyramid, are left out.
        shape: height and width, upright.
        dtype: of the values.
        band_rows: how many rows are best read at once.

    Raises:
        NotImplementedError: the pages are of a kind, or compressed in a way, that is not read; the message says which.
        ValueError: the file is no TIFF, or is damaged; what else a reader of damaged files raises may come, too.
    """

    def __init__(self, path: str | Path) -> None:
        with ExitStack() as stack:
            # The description of OME files may lead to other files.
            self.file = stack.enter_context(TiffFile(path, is_ome=False))
            require_all_pages(self.file)
            self.page: TiffPage = self.file.series[0].keyframe
            # Pages that were written one by one are a series each.
            series = [one for one in self.file.series if one.keyframe.hash == self.page.hash]
            self.pages = [page for one in series for page in one.pages if page is not None]
            self.samples = readable_samples(self.page)
            tag = self.page.tags.get("Orientation")
            self.turn = ORIENTATIONS.get(tag.value if tag else 1, ORIENTATIONS[1])
            height, width = self.page.imagelength, self.page.imagewidth
            self.shape = (width, height) if self.turn[0] else (height, width)
            self.slices = sum(prod(one.shape) for one in series) // prod(self.page.shape)
            self.dtype = np.dtype(bool if self.page.bitspersample == 1 else self.page.dtype)
            self.segment_shape = (
                (self.page.tilelength, self.page.tilewidth)
                if self.page.is_tiled
                else (min(self.page.rowsperstrip, height), width)
            )
            self.mapped = None
            if len(series) == 1 and series[0].dataoffset is not None and self.page.is_memmappable:
                stored = self.dtype.newbyteorder(self.file.byteorder)
                array = self.file.filehandle.memmap_array(stored, series[0].shape, series[0].dataoffset)
                planes, _, _, _, contiguous = self.page.shaped
                self.mapped = array.reshape(self.slices, planes, height, width, contiguous)
            elif len(self.pages) != self.slices:
                raise ValueError(f"it has {len(self.pages)} of {self.slices} pages")
            size = prod(self.segment_shape) * self.page.samplesperpixel * self.dtype.itemsize
            self.segment = lru_cache(maxsize=max(CACHED_BYTES // size, 1))(self.decode)
            if self.mapped is None:
                self.require_codec()
            self.band_rows = max(BAND_ROWS, self.segment_shape[0])
            stack.pop_all()

    def require_codec(self) -> None:
        """Raise a `NotImplementedError` if tifffile lacks what the pages are compressed with."""
        try:
            self.segment(0, 0)
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise NotImplementedError(f"{error}: pip install imagecodecs") from error
            raise

    def close(self) -> None:
        """Close the file."""
        self.mapped = None
        self.segment.cache_clear()
        self.file.close()

    def read(self, index: int, rows: slice, columns: slice, indices: bool = False) -> np.ndarray:
        """A region of a page, upright, `(h, w, C)` in the file's type, where 0 is black.

        Args:
            index: of the page.
            rows, columns: inside the image, with start and stop.
            indices: whether values come as they are stored: those of a palette image as its indices, and 0 as 0 where
                it is white.
        """
        transposed, *backwards = self.turn
        axes = [
            slice(length - axis.stop, length - axis.start) if reverse else axis
            for axis, length, reverse in zip((rows, columns), self.shape, backwards, strict=True)
        ]
        pixels = self.read_stored(index, *(axes[::-1] if transposed else axes))
        if transposed:
            pixels = pixels.swapaxes(0, 1)
        pixels = pixels[tuple(slice(None, None, -1 if reverse else 1) for reverse in backwards)]
        if indices:
            return pixels
        if self.page.photometric == PHOTOMETRIC.PALETTE:
            assert self.page.colormap is not None
            return (self.page.colormap.T // 256).astype(np.uint8)[pixels[..., 0]]
        return ~pixels if self.page.photometric == PHOTOMETRIC.MINISWHITE else pixels

    def read_stored(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """A region of a page as it is stored, `(h, w, C)`; a copy."""
        if self.mapped is not None:
            planes = self.mapped[index, :, rows, columns]
            return np.concatenate(planes.astype(self.dtype), axis=-1)[..., : self.samples]
        region = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.page.samplesperpixel), self.dtype)
        count, _, height, width, contiguous = self.page.shaped
        high, wide = self.segment_shape
        down, across = -(-height // high), -(-width // wide)
        touched = (range(axis.start // size, -(-axis.stop // size)) for axis, size in ((rows, high), (columns, wide)))
        for plane, (row, column) in product(range(count), list(product(*touched))):
            segment = self.segment(index, (plane * down + row) * across + column)
            top, bottom = max(rows.start, row * high), min(rows.stop, (row + 1) * high)
            left, right = max(columns.start, column * wide), min(columns.stop, (column + 1) * wide)
            region[
                top - rows.start : bottom - rows.start,
                left - columns.start : right - columns.start,
                plane : plane + contiguous,
            ] = segment[top - row * high : bottom - row * high, left - column * wide : right - column * wide]
        return region[..., : self.samples]

    def decode(self, index: int, number: int) -> np.ndarray:
        """A tile or strip of a page, `(h, w, C)`.

        Raises:
            ValueError: the file ends before it does, or its compression cannot be read.
        """
        page, handle = self.pages[index], self.file.filehandle
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        if offset + count > handle.size:
            raise ValueError(f"it has {handle.size} of at least {offset + count} bytes; it is truncated")
        handle.seek(offset)
        # A segment without bytes holds nothing but the value for no data.
        values, _, shape = self.page.decode(handle.read(count) if count else None, number)
        return np.full(shape[1:], self.page.nodata, self.dtype) if values is None else values[0]


def require_all_pages(file: TiffFile) -> None:
    """Raise a `ValueError` unless a file has a page, and the last page that was found is the last there is."""
    if not file.series:
        raise ValueError("it has no page")
    # Where the next page would be entered: a place with a number other than 0 leads to a page that is not there.
    place = file.pages.next_page_offset
    if place is not None:
        file.filehandle.seek(place)
    entry = file.filehandle.read(file.tiff.offsetsize) if place is not None else b""
    if entry != bytes(file.tiff.offsetsize):
        raise ValueError(f"it ends after page {len(file.pages)}, which is not its last; it is truncated")


def readable_samples(page: TiffPage) -> int:
    """How many samples of a pixel count: 1 for greyscale and palette, 3 for RGB, 4 with transparency.

    Raises:
        NotImplementedError: the page is of another kind.
    """
    kind, samples, extra = page.photometric, page.samplesperpixel, page.extrasamples
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth > 1:
        raise NotImplementedError(
            f"its pixels are of the type {page.dtype}, {page.imagedepth} deep; they must be numbers"
        )
    if kind == PHOTOMETRIC.MINISWHITE and page.dtype.kind not in "bu":
        raise NotImplementedError(f"0 is white in it, which has no meaning for {page.dtype}")
    if kind == PHOTOMETRIC.PALETTE and (page.dtype != np.uint8 or page.colormap is None):
        raise NotImplementedError(f"its palette is for {page.dtype}; 8 bits are read")
    if kind in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE) and samples == 1:
        return 1
    if kind in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB) and samples == 3:
        return 3
    if kind == PHOTOMETRIC.RGB and samples == 4 and extra != (EXTRASAMPLE.ASSOCALPHA,):
        return 4 if extra == (EXTRASAMPLE.UNASSALPHA,) else 3
    layout = "contiguous" if page.planarconfig == PLANARCONFIG.CONTIG else "separate"
    raise NotImplementedError(
        f"it has {samples} {layout} samples per pixel ({PHOTOMETRIC(kind).name}); greyscale, RGB, RGBA and palette "
        "images are read"
    )
