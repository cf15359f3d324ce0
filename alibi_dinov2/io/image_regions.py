# SPDX-License-Identifier: Apache-2.0
"""Images as something that regions can be read from, whether they lie in memory or in a file."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from alibi_dinov2.io.images import rgb_array
from modeling_alibi_dinov2.image_processing_alibi_dinov2 import to_array

CHANNELS = (1, 3, 4)  # that an array's last axis may be


class ImageRegions(Protocol):
    """What the segmenter needs of an image: `ArrayImage` and `image_files.ImageFile` have it.

    Attributes:
        shape: height and width in pixels.
        slices: how many images of that shape there are, such as those of a stack; 1 for a plain image.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def slices(self) -> int: ...

    def read(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """A region of a slice that lies inside it, `(h, w, 3)` uint8, RGB."""
        ...


class ArrayImage:
    """An image or a stack in memory.

    Args:
        pixels: `(H, W)` or `(H, W, C)` with 1, 3 or 4 channels; a stack `(slices, H, W)`, unless its last axis has 1, 3
            or 4 entries, or `(slices, H, W, C)`. 8 or 16 bits, bool, or floating in [0, 1] or [0, 255].

    Raises:
        ValueError: another shape, or pixels that are NaN or out of range.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        pixels = np.asarray(pixels)
        coloured = pixels.ndim > 2 and pixels.shape[-1] in CHANNELS
        # Two channels are no stack of slices two pixels wide.
        if pixels.ndim - coloured not in (2, 3) or (pixels.ndim > 2 and pixels.shape[-1] == 2) or not pixels.size:
            raise ValueError(
                f"An array of shape {pixels.shape} is no image; give (H, W) or (H, W, C) with C = 1, 3 or 4, or for a "
                "stack (slices, H, W) or (slices, H, W, C)."
            )
        stacked = pixels.ndim - coloured == 3
        # As one tall image: the rules for values hold for the whole stack.
        flat = pixels.reshape(-1, *pixels.shape[2:]) if stacked else pixels
        self.slices = pixels.shape[0] if stacked else 1
        self.pixels = rgb_array(flat).reshape(self.slices, -1, flat.shape[1], 3)
        self.shape = self.pixels.shape[1:3]

    def read(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """See `ImageRegions`."""
        return self.pixels[index, rows, columns]


Images = np.ndarray | Image.Image | ImageRegions | Sequence[np.ndarray | Image.Image | ImageRegions]


def as_images(images: Images) -> list[ImageRegions]:
    """One image or several, as something that regions are read from."""
    given: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    if not given:
        raise ValueError("There are no images; give one or more.")
    return [image if hasattr(image, "read") else ArrayImage(to_array(image)) for image in given]


def read_reflected(image: ImageRegions, index: int, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A region that may reach beyond the image, which is mirrored at its borders, `(height, width, 3)` uint8."""
    positions = [
        mirrored(np.arange(start, start + extent), length)
        for start, extent, length in zip((top, left), (height, width), image.shape, strict=True)
    ]
    first = [int(wanted.min()) for wanted in positions]
    region = image.read(
        index, *(slice(low, int(wanted.max()) + 1) for low, wanted in zip(first, positions, strict=True))
    )
    return region[positions[0][:, None] - first[0], positions[1] - first[1]]


def mirrored(positions: np.ndarray, length: int) -> np.ndarray:
    """Any positions -> positions from 0 to `length` − 1, the borders' own pixels repeated (… 1 0 | 0 1 …)."""
    folded = positions % (2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)
