# SPDX-License-Identifier: Apache-2.0
"""Upright images: what the orientation in a file's metadata (EXIF, TIFF 6.0) means for its pixels."""

import struct

import numpy as np
from PIL import ExifTags, Image

EXIF_PREFIX = b"Exif\0\0"
EXIF_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
EXIF_SHORT = 3  # the type of an orientation
UPRIGHT = 1
# Whether stored rows are upright columns, and whether upright rows and columns run backwards.
TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def upright_shape(shape: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width of an image whose pixels are stored with `shape`."""
    return shape[::-1] if TURNS[orientation][0] else shape


def stored_region(shape: tuple[int, int], orientation: int, rows: slice, columns: slice) -> tuple[slice, slice]:
    """Rows and columns at which an upright region is stored.

    Args:
        shape: upright height and width.
        orientation: 1 to 8.
        rows, columns: upright, with start and stop.
    """
    transposed, *backwards = TURNS[orientation]
    first, second = (
        slice(length - span.stop, length - span.start) if reverse else span
        for span, length, reverse in zip((rows, columns), shape, backwards, strict=True)
    )
    return (second, first) if transposed else (first, second)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels `(h, w, …)` upright; a view."""
    transposed, *backwards = TURNS[orientation]
    steps = tuple(slice(None, None, -1 if reverse else 1) for reverse in backwards)
    return (pixels.swapaxes(0, 1) if transposed else pixels)[steps]


def orientation_of(file: Image.Image) -> int:
    """The orientation of a loaded image file, 1 to 8.

    `PIL.ImageOps.exif_transpose` also writes the metadata anew, which fails if any entry is damaged, and takes an image
    whose orientation got lost for upright.

    Raises:
        ValueError: the orientation is none of 1 to 8, or the metadata is no EXIF.
        struct.error: the metadata is cut off before the orientation.
    """
    orientation = exif_orientation(file.info.get("exif", b""))
    if orientation is None:
        # Pillow knows the other places: XMP, and text in a PNG. Of a TIFF it has turned the pixels already.
        rest = Image.Image()
        rest.info = {key: value for key, value in file.info.items() if key != "exif"}
        orientation = rest.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    # Some cameras write 0 where they do not know.
    if orientation not in (0, *TURNS):
        raise ValueError(f"its EXIF orientation is {orientation!r}; it must be 1 to 8")
    return orientation or UPRIGHT


def exif_orientation(exif: bytes) -> int | None:
    """The orientation in an EXIF block, or nothing if it has none; what else is in the block is not looked at."""
    while exif.startswith(EXIF_PREFIX):
        exif = exif.removeprefix(EXIF_PREFIX)
    if not exif:
        return None
    order = EXIF_BYTE_ORDERS.get(exif[:2])
    if order is None:
        raise ValueError(f"its EXIF block begins with {exif[:2]!r} instead of II or MM")
    (start,) = struct.unpack_from(f"{order}L", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for number in range(count):
        tag, kind, values, value = struct.unpack_from(f"{order}HHLH", exif, start + 2 + 12 * number)
        if tag == ExifTags.Base.Orientation:
            if (kind, values) != (EXIF_SHORT, 1):
                raise ValueError(f"its EXIF orientation is of type {kind} with {values} values, which none is")
            return value
    return None
