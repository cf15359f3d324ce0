# SPDX-License-Identifier: Apache-2.0
"""Finding and reading images."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_utils import ChannelDimension

from modeling_alibi_dinov2.image_processing_alibi_dinov2 import to_8bit, to_array, to_channels_first, to_rgb

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


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


def read_image(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """Read an image file, or its bytes, as upright 8-bit RGB; see the image processor for how modes are converted.

    Args:
        source: a path, or the bytes of a file.
        name: what to call the image in a message; the path if there is one.

    Raises:
        ValueError: the file is no image, is truncated, or has pixels out of range; the message names it.
        FileNotFoundError: there is no such file.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "the image")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            image = ImageOps.exif_transpose(file)
            return rgb_image(image)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as an image ({error}). Replace or remove the file.") from error


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
