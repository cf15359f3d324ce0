# SPDX-License-Identifier: Apache-2.0
"""Images that Pillow reads (PNG, JPEG, WebP, BMP and others), of any size, and those in memory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import imagecodecs
import numpy as np
from PIL import Image

from alibi_dinov2.io.memory import require_memory
from alibi_dinov2.io.orientation import orientation_of, turned
from alibi_dinov2.io.stored_image import StoredImage, of_array
from modeling_alibi_dinov2.pixels import to_array

LOSSY = ("JPEG", "MPO", "WEBP")
BYTES_PER_PIXEL = 12  # while an image is read: as Pillow has it, as arrays and as RGB
PILLOW_LIMIT = Lock()
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = 26  # bytes up to the bits of a sample and the type of the colours, which are the last two
PNG_SEVERAL_SAMPLES = (2, 4, 6)  # RGB, grey and opacity, RGB and opacity


def open_pillow(source: Path | bytes, resources: ExitStack) -> list[StoredImage]:
    """The image in a file, decoded whole; of a TIFF each page, of animations and the like the first frame.

    Args:
        source: a path, or the bytes of a file.
        resources: closes the file.

    Raises:
        ValueError: the image needs more memory than there is. What readers of damaged files raise may come, too.
    """
    with no_pixel_limit():
        file = resources.enter_context(Image.open(BytesIO(source) if isinstance(source, bytes) else source))
    require_memory(file.height, file.width, BYTES_PER_PIXEL)
    load_pixels(file)
    if is_deep_png(source):
        # Pillow leaves out the lower 8 bits of colours.
        encoded = source if isinstance(source, bytes) else source.read_bytes()
        return [sampled_image(turned(imagecodecs.png_decode(encoded), orientation_of(file)))]
    lossy = (file.format or "") if file.format in LOSSY else ""
    first = pillow_image(file, orientation_of(file), lossy)
    count = getattr(file, "n_frames", 1) if file.format == "TIFF" else 1
    if count == 1:
        return [first]

    @lru_cache(maxsize=1)
    def frame(number: int) -> StoredImage:
        file.seek(number)
        load_pixels(file)
        return pillow_image(file, orientation_of(file), lossy)

    def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        found = frame(*place)
        if not found.is_like(first):
            raise ValueError(f"page {place[0]} is {found.kind}, the first one {first.kind}")
        return found.read((), rows, columns)

    return [StoredImage(**{**vars(first), "read": read, "axes": "Z", "lengths": (count,)})]


def pillow_image(image: Image.Image, orientation: int = 1, lossy: str = "") -> StoredImage:
    """A PIL image of any mode as a stored image, converted by the rules of the image processor."""
    if image.mode == "P":
        return of_array(turned(np.asarray(image), orientation), "YX", palette=palette_of(image), lossy=lossy)
    # The image processor makes 255 of 1, and so does every contrast; as labels, bits are 0 and 1.
    pixels = np.asarray(image) if image.mode == "1" else to_array(image)
    return sampled_image(turned(pixels, orientation), lossy)


def sampled_image(pixels: np.ndarray, lossy: str = "") -> StoredImage:
    """`(H, W)` or `(H, W, S)`: grey, grey and opacity, RGB, or RGB and opacity."""
    samples = pixels.shape[-1] if pixels.ndim == 3 else 1
    opacity = samples - 1 if samples in (2, 4) else None
    return of_array(pixels, "YXS"[: pixels.ndim], coloured=samples > 2, opacity=opacity, lossy=lossy)


def palette_of(image: Image.Image) -> np.ndarray:
    """The colours of a palette image, `(256, 3)` uint8, with transparency `(256, 4)`."""
    # An image of all indices with everything that belongs to the palette, of which Pillow keeps a part out of sight.
    swatch = image.crop((0, 0, 256, 1))
    swatch.frombytes(bytes(range(256)))
    return np.asarray(swatch.convert("RGBA" if image.has_transparency_data else "RGB"))[0]


def is_deep_png(source: Path | bytes) -> bool:
    """Whether a file is a PNG of 16 bits with several samples for each pixel."""
    if isinstance(source, bytes):
        head = source[:PNG_HEADER]
    else:
        with open(source, "rb") as file:
            head = file.read(PNG_HEADER)
    return head.startswith(PNG_SIGNATURE) and head[-2] == 16 and head[-1] in PNG_SEVERAL_SAMPLES


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
