# SPDX-License-Identifier: Apache-2.0
"""Finding and reading images."""

import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import ExifTags, Image
from transformers.image_utils import ChannelDimension

from modeling_alibi_dinov2.image_processing_alibi_dinov2 import to_8bit, to_array, to_channels_first, to_rgb

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
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
EXIF_PREFIX = b"Exif\0\0"
EXIF_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
EXIF_SHORT = 3  # the type of an orientation
UPRIGHT = 1
# What makes an image upright, by its EXIF orientation.
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BYTES_PER_PIXEL = 12  # while an image is read: as Pillow has it, as arrays and as RGB
PILLOW_LIMIT = Lock()


def find_images(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The images of a folder and its subfolders, sorted by path, but for hidden ones such as macOS's `._image.png`.

    Args:
        folder: whose own name may begin with a dot.
        suffixes: of the files that are wanted, in lower case.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give a folder with images.")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not paths:
        raise FileNotFoundError(f"{folder} contains no image; images end in {', '.join(suffixes)}.")
    return paths


def is_hidden(path: Path) -> bool:
    """Whether a path or a folder in it has a name that begins with a dot, as what systems put beside images has."""
    return any(part.startswith(".") for part in path.parts)


def read_image(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """Read an image file, or its bytes, as upright 8-bit RGB; see the image processor for how modes are converted.

    Any number of pixels is read that this machine's memory holds. Of damaged metadata only the orientation matters.

    Args:
        source: a path, or the bytes of a file.
        name: what to call the image in a message; the path if there is one.

    Raises:
        ValueError: the file is no image, is truncated, has pixels out of range, an orientation that cannot be told, or
            more pixels than memory; the message names it.
        FileNotFoundError: there is no such file.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "the image")
    try:
        with no_pixel_limit():
            file = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        with file:
            require_memory(file.size)
            load_pixels(file)
            return rgb_image(upright(file))
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{name} cannot be read as an image ({error}). Replace or remove the file.") from error


@contextmanager
def no_pixel_limit() -> Iterator[None]:
    """Lift Pillow's limit of pixels, which is meant for strangers' uploads and is the same for all threads."""
    with PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def load_pixels(file: Image.Image) -> None:
    """Decode an open image of any size; Pillow looks at its limit again for some formats."""
    limit = Image.MAX_IMAGE_PIXELS
    # Threads that decode ordinary images do not wait for each other.
    with nullcontext() if limit is None or file.width * file.height <= limit else no_pixel_limit():
        file.load()


def require_memory(size: tuple[int, int]) -> None:
    """Raise a `ValueError` if an image of `(width, height)` takes more memory than the machine has."""
    needed, there = size[0] * size[1] * BYTES_PER_PIXEL, physical_memory()
    if needed > there:
        raise ValueError(
            f"it has {size[0]}×{size[1]} pixels, for which {needed / 2**30:.0f} GiB of memory are needed and "
            f"{there / 2**30:.0f} GiB are there: cut it into tiles, or make it smaller"
        )


def physical_memory() -> float:
    """Bytes of this machine's memory; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


def upright(file: Image.Image) -> Image.Image:
    """A loaded image file turned as its orientation asks for.

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
    if orientation not in (0, UPRIGHT, *TRANSPOSES):
        raise ValueError(f"its EXIF orientation is {orientation!r}; it must be 1 to 8")
    return file.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else file


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


def read_folder(folder: str | Path) -> list[Image.Image]:
    """All images of a folder as 8-bit RGB, in the order of `find_images`, whose errors and `read_image`'s it raises."""
    return [read_image(path) for path in find_images(folder)]


def rgb_image(image: Image.Image) -> Image.Image:
    """8-bit RGB from any mode, by the rules of the image processor."""
    return Image.fromarray(rgb_array(to_array(image)))


def rgb_array(pixels: np.ndarray) -> np.ndarray:
    """`(H, W)` or `(H, W, C)` with 1, 3 or 4 channels, of any dtype -> `(H, W, 3)` uint8, by the same rules.

    Raises:
        ValueError: another shape, or pixels that are NaN or out of range.
    """
    return np.ascontiguousarray(np.moveaxis(to_rgb(to_8bit(to_channels_first(pixels, ChannelDimension.LAST))), 0, -1))
