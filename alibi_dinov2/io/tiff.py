# SPDX-License-Identifier: Apache-2.0
"""TIFFs of every kind that tifffile reads; a region reads only the tiles or strips that it touches, through zarr."""

import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from PIL import Image

from alibi_dinov2.io.cells import CachedCells
from alibi_dinov2.io.orientation import TURNS, UPRIGHT, stored_region, turned, upright_shape
from alibi_dinov2.io.stored_image import StoredImage, of_array
from alibi_dinov2.io.tiff_metadata import channel_names, pixel_size

BIG_TIFF = 43
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
GREY = ("MINISWHITE", "MINISBLACK", "MASK", "CFA", "DEPTH_MAP", "SEMANTIC_MASK")
COLOURED = ("RGB", "LINEAR_RAW")
CONVERTED = {"SEPARATED": "CMYK", "YCBCR": "YCbCr"}  # to RGB, by Pillow's modes
DECODED_TO_RGB = ("OJPEG", "JPEG", "ALT_JPEG", "JPEG2000", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB", "WEBP")
LOSSY = ("OJPEG", "JPEG", "ALT_JPEG")
OPAQUE_KINDS = ("ASSOCALPHA", "UNASSALPHA")


def open_tiff(source: Path | bytes, resources: ExitStack) -> list[StoredImage]:
    """The series of a TIFF, each as an image: the largest level of a pyramid, axes as the file names them.

    Uncompressed files are mapped into memory; of others the last 256 MiB that were decoded are kept.

    Args:
        source: a path, or the bytes of a file.
        resources: closes the file.

    Raises:
        NotImplementedError: no series is of a kind, or compressed in a way, that is read; the message says which.
        ValueError: the file is damaged, or pages are missing. What else readers of damaged files raise may come, too.
    """
    # The description of OME files may lead to other files.
    given = BytesIO(source) if isinstance(source, bytes) else source
    file = resources.enter_context(tifffile.TiffFile(given, _multifile=False))
    require_an_end(file)
    require_all_pages(file)
    images, reasons = [], []
    for series in file.series:
        try:
            images.append(series_image(file, series))
        except NotImplementedError as reason:
            reasons.append(reason)
    # Something beside the picture, such as a mask of a strange kind, does not hinder it; the picture itself does.
    if reasons and (not images or prod(series_shape(file.series[0])) > max(prod(image.shape) for image in images)):
        raise reasons[0]
    return images


def require_an_end(file: Any) -> None:
    """Raise a `ValueError` if the pages of a file follow each other in a circle, which tifffile would never leave."""
    layout, handle = file.tiff, file.filehandle

    def number(place: int, size: int, code: str) -> int:
        handle.seek(place)
        content = handle.read(size)
        return struct.unpack(code, content)[0] if len(content) == size else 0  # the file has been cut off there

    seen: set[int] = set()
    place = number(8 if layout.version == BIG_TIFF else 4, layout.offsetsize, layout.offsetformat)
    while place:
        if place in seen:
            raise ValueError("its pages follow each other in a circle")
        seen.add(place)
        tags = number(place, layout.tagnosize, layout.tagnoformat)
        place = number(place + layout.tagnosize + tags * layout.tagsize, layout.offsetsize, layout.offsetformat)


def series_shape(series: Any) -> tuple[int, ...]:
    """Height and width of a series' pages."""
    return series.keyframe.imagelength, series.keyframe.imagewidth


def series_image(file: Any, series: Any) -> StoredImage:
    """A series of pages that belong together; see `open_tiff`."""
    page, pages = series.keyframe, list(series.pages)
    missing = sum(one is None for one in pages)
    if missing:
        raise ValueError(f"it lacks {missing} of {len(pages)} pages, which are in other files or lost")
    require_decoder(page)
    require_segments(file, series, pages)
    axes = plain_axes(series.axes)
    converted = CONVERTED.get(page.photometric.name) if page.compression.name not in DECODED_TO_RGB else None
    facts = colours(page)
    if converted and (page.dtype != np.uint8 or page.samplesperpixel != len(Image.getmodebands(converted) * "S")):
        raise NotImplementedError(f"its colours are {page.photometric.name} of {page.dtype}; they must have 8 bits")
    stored = of_array(
        pixels_of(series, pages, axes),
        axes,
        **facts,
        channels=channel_names(file, series),
        pixel_size=pixel_size(file, series),
        name=series.name,
        lossy=page.compression.name if page.compression.name in LOSSY else "",
    )
    stored = stored if converted is None else in_rgb(stored, converted)
    tag = page.tags.get("Orientation")
    orientation = tag.value if tag and tag.value in TURNS else UPRIGHT
    return stored if orientation == UPRIGHT else upright(stored, orientation)


def plain_axes(axes: str) -> str:
    """Axes with one letter each: what tifffile cannot name is called Q, as often as it comes."""
    letters = ""
    for axis in axes:
        letters += axis if axis not in letters else next(letter for letter in "QIJKLMNOPUVW" if letter not in letters)
    return letters


def pixels_of(series: Any, pages: Sequence[Any], axes: str) -> Any:
    """What is indexed to read a series: the mapped file if its values lie there as they are, or cells of a zarr."""
    if series.dataoffset is not None and series.keyframe.is_memmappable:
        return series.asarray(out="memmap")
    if all(page.is_memmappable for page in pages):
        return MappedPages(series, pages)
    store = series.aszarr(level=0)
    # One of bytes in memory can be written to, and zarr opens no such store as one that cannot.
    return CachedCells(zarr.open_array(store, mode="r" if store.read_only else "r+"), axes)


class MappedPages:
    """Uncompressed pages that lie anywhere in a file, indexed as one array."""

    def __init__(self, series: Any, pages: Sequence[Any]) -> None:
        self.pages, self.shape, self.dtype = pages, series.shape, series.dtype
        self.leading = len(series.shape) - len(series.keyframe.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        place = key[: self.leading]
        number = int(np.ravel_multi_index(place, self.shape[: self.leading])) if place else 0
        return self.pages[number].asarray(out="memmap")[key[self.leading :]]


def in_rgb(stored: StoredImage, mode: str) -> StoredImage:
    """The same image in RGB, from one of Pillow's modes."""

    def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        pixels = np.ascontiguousarray(stored.read(place, rows, columns))
        return np.asarray(Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes()).convert("RGB"))

    return replace(stored, read=read, samples=3, coloured=True, opacity=None)


def upright(stored: StoredImage, orientation: int) -> StoredImage:
    """The same image, turned."""
    shape = upright_shape(stored.shape, orientation)

    def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        return turned(stored.read(place, *stored_region(shape, orientation, rows, columns)), orientation)

    return replace(stored, read=read, shape=shape)


def colours(page: Any) -> dict[str, Any]:
    """What the samples of a page mean, as attributes of `StoredImage`.

    Raises:
        NotImplementedError: they mean something that cannot be shown.
    """
    kind, samples = page.photometric.name, page.samplesperpixel
    bits = page.bitspersample if isinstance(page.bitspersample, int) else None
    extra = [one.name for one in page.extrasamples]
    of_opacity = [samples - len(extra) + number for number, one in enumerate(extra) if one in OPAQUE_KINDS]
    opacity = of_opacity[0] if of_opacity and samples - len(extra) in (1, 3) else None
    facts: dict[str, Any] = {"opacity": opacity, "premultiplied": "ASSOCALPHA" in extra}
    if kind == "PALETTE":
        if page.colormap is None:
            raise NotImplementedError("it has indices of colours and no colours")
        # Some writers give 8 bits where 16 are meant.
        scale = 1 if page.colormap.max() < 256 else 256
        return {"palette": (page.colormap.T // scale).astype(np.uint8)}
    if kind in COLOURED or kind in CONVERTED or (kind in GREY and samples - len(extra) == 3):
        return {**facts, "coloured": True, "bits": bits}
    if kind in GREY:
        # Three samples without a word about what they are have always been taken for colours.
        coloured = samples == 3 and opacity is None
        return {**facts, "coloured": coloured, "bits": bits, "white_is_zero": kind == "MINISWHITE"}
    raise NotImplementedError(f"its colours are {kind}; greyscale, RGB, CMYK, YCbCr and palette images are read")


def require_decoder(page: Any) -> None:
    """Raise a `NotImplementedError` if tifffile, or what it needs, cannot decode a page."""
    if page.dtype is None:
        raise NotImplementedError(f"its values have {page.bitspersample} bits of format {page.sampleformat}")
    try:
        page.decode(None, 0)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise NotImplementedError(str(error)) from error


def require_all_pages(file: Any) -> None:
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


def require_segments(file: Any, series: Any, pages: Sequence[Any]) -> None:
    """Raise a `ValueError` if a file ends before its pixels do, or lists fewer tiles or strips than it needs."""
    size = file.filehandle.size
    if series.dataoffset is not None:
        ends = [series.dataoffset + series.nbytes if series.keyframe.is_memmappable else 0]
    else:
        needed = prod(series.keyframe.chunked)
        for page in pages:
            if min(len(page.dataoffsets), len(page.databytecounts)) < needed:
                raise ValueError(f"it has {len(page.dataoffsets)} of {needed} tiles or strips")
        ends = [
            offset + count
            for page in pages
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        ]
    if max(ends, default=0) > size:
        raise ValueError(f"it has {size} of at least {max(ends)} bytes; it is truncated")
