# SPDX-License-Identifier: Apache-2.0
"""Finding images, and reading them whole."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from alibi_dinov2.io.channels import Channel
from alibi_dinov2.io.open_image import open_image
from modeling_alibi_dinov2.contrast import AUTO, Setting

PLAIN_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MICROSCOPE_SUFFIXES = (".btf", ".czi", ".dm3", ".dm4", ".emd", ".lif", ".lsm", ".mrc", ".nd2", ".stk", ".svs", ".tf8")
IMAGE_SUFFIXES = tuple(sorted((*PLAIN_SUFFIXES, *MICROSCOPE_SUFFIXES)))


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
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    paths = sorted(path for path in found if not is_hidden(path.relative_to(folder)) and path.is_file())
    if not paths:
        raise FileNotFoundError(f"{folder} contains no image; images end in {', '.join(suffixes)}.")
    return paths


def is_hidden(path: Path) -> bool:
    """Whether a path or a folder in it has a name that begins with a dot, as what systems put beside images has."""
    return any(part.startswith(".") for part in path.parts)


def read_image(
    source: str | Path | bytes,
    name: str | None = None,
    *,
    contrast: Setting = AUTO,
    channel: Channel = None,
    series: int | str | None = None,
) -> Image.Image:
    """Read an image file, or its bytes, as upright 8-bit RGB: the first slice of what `open_image` gives.

    Any number of pixels is read that this machine's memory holds. Of damaged metadata only the orientation matters.

    Args:
        source: a path, or the bytes of a file.
        name: what to call the image in a message; the path if there is one.
        contrast, channel, series: as of `open_image`.

    Raises:
        ValueError, FileNotFoundError: as `open_image`.
    """
    with open_image(source, name, contrast=contrast, channel=channel, series=series) as image:
        return Image.fromarray(image.read(0, slice(None), slice(None)))


def read_folder(folder: str | Path) -> list[Image.Image]:
    """All images of a folder as 8-bit RGB, in the order of `find_images`, whose errors and `read_image`'s it raises."""
    return [read_image(path) for path in find_images(folder)]
