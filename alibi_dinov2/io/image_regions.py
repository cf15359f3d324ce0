# SPDX-License-Identifier: Apache-2.0
"""Images as something that regions of 8-bit RGB are read from, whether they lie in memory or in a file."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from alibi_dinov2.io.pillow_images import pillow_image
from alibi_dinov2.io.sliced_image import REFUSE, SlicedImage
from alibi_dinov2.io.stored_image import StoredImage, of_array
from modeling_alibi_dinov2.common_contrast import fit_common
from modeling_alibi_dinov2.contrast import AUTO, Contrast, Setting, as_contrast

CHANNELS = (1, 3, 4)  # that an array's last axis may be


class ImageRegions(Protocol):
    """What the segmenter needs of an image: `SlicedImage` has it, and so have `ArrayImage` and `ImageFile`.

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


class ArrayImage(SlicedImage):
    """An image or a stack in memory.

    Args:
        pixels: a PIL image, or an array `(H, W)` or `(H, W, C)` with 1, 3 or 4 channels; a stack `(slices, H, W)`,
            unless its last axis has 1, 3 or 4 entries, or `(slices, H, W, C)`. Bool, integers or floating numbers.
        contrast, nonfinite: see `SlicedImage`.

    Raises:
        ValueError: another shape or type, or pixels that are NaN or infinite.
    """

    def __init__(self, pixels: np.ndarray | Image.Image, contrast: Setting = AUTO, nonfinite: str = REFUSE) -> None:
        try:
            stored = pillow_image(pixels) if isinstance(pixels, Image.Image) else array_image(np.asarray(pixels))
            stored.require_real()
        except NotImplementedError as error:
            raise ValueError(f"The image cannot be read: {error}.") from error
        super().__init__([stored], "The image", contrast, nonfinite=nonfinite)
        self.require_finite()


def array_image(pixels: np.ndarray) -> StoredImage:
    """An array as a stored image; see `ArrayImage`."""
    coloured = pixels.ndim > 2 and pixels.shape[-1] in CHANNELS
    # Two channels are no stack of slices two pixels wide.
    if pixels.ndim - coloured not in (2, 3) or (pixels.ndim > 2 and pixels.shape[-1] == 2) or not pixels.size:
        raise ValueError(
            f"An array of shape {pixels.shape} is no image; give (H, W) or (H, W, C) with 1, 3 or 4 channels, or for a "
            "stack (slices, H, W) or (slices, H, W, C)."
        )
    axes = ("Z" if pixels.ndim - coloured == 3 else "") + "YX" + ("S" if coloured else "")
    samples = pixels.shape[-1] if coloured else 1
    return of_array(pixels, axes, coloured=samples > 1, opacity=3 if samples == 4 else None)


Images = np.ndarray | Image.Image | ImageRegions | Sequence[np.ndarray | Image.Image | ImageRegions]


def as_images(images: Images, contrast: Setting | None = None) -> list[ImageRegions]:
    """One image or several, as something that regions are read from.

    Args:
        images: arrays, PIL images, files from `open_image`, or anything that has what `ImageRegions` asks for.
        contrast: for all of them; if not given, those of files are left as they were opened.

    Raises:
        ValueError: there are none, or one is no image.
    """
    given: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    if not given:
        raise ValueError("There are no images; give one or more.")
    found = [image if hasattr(image, "read") else ArrayImage(image) for image in given]
    if contrast is None:
        return found
    return [image.with_contrast(contrast) if isinstance(image, SlicedImage) else image for image in found]


def fit_contrast(images: Sequence[ImageRegions], setting: Setting = AUTO) -> Contrast:
    """The one contrast of a series, found on all its images; give it to `as_images` or `with_contrast`, and save it.

    Args:
        images: from `as_images`; those that are no `SlicedImage` are already RGB and have no part in it.
        setting: `auto`, `per-image`, `full-range`, `(low, high)`, or a contrast.

    Raises:
        ValueError: the images have values of different types, or NaN or infinite ones, or too few grey levels would be
            left.
    """
    contrast = as_contrast(setting)
    sliced = [image for image in images if isinstance(image, SlicedImage)]
    if contrast.is_fitted or not contrast.is_common or not sliced:
        return contrast
    for image in sliced:
        image.require_finite()
    return fit_common(contrast, sliced)


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
