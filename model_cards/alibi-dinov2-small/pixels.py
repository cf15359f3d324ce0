# SPDX-License-Identifier: Apache-2.0
"""Images of any kind as arrays, and these as 8-bit grey levels: colours by a contrast, transparency over white."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension, ImageInput

from .common_contrast import fit_common, sampled_blocks
from .contrast import RANGE, Contrast, Setting, as_contrast

CHANNELS = (1, 3, 4)  # greyscale, RGB, RGBA
NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)  # tensors of other floating types become float32


def to_array(image: ImageInput) -> np.ndarray:
    """An image as an array in the layout it came in; PIL images as `(H, W)`, `(H, W, 3)` or `(H, W, 4)`."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        return (image.float() if image.is_floating_point() and image.dtype not in NUMPY_FLOATS else image).numpy()
    if isinstance(image, Image.Image) and image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        if image.mode == "La":  # the one mode that Pillow converts by a detour only
            image = image.convert("LA")
        if image.has_transparency_data:
            image = image.convert("RGBA")
        elif image.mode != "L":
            image = image.convert("RGB")
    return np.asarray(image)


def to_channels_first(image: np.ndarray, input_data_format: str | ChannelDimension | None) -> np.ndarray:
    """`(H, W)`, `(C, H, W)` or `(H, W, C)` as `(C, H, W)`; the layout is guessed where it is not given.

    Raises:
        ValueError: another number of dimensions or channels.
    """
    shape = image.shape
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3:
        guess = ChannelDimension.FIRST if shape[0] in CHANNELS else ChannelDimension.LAST
        if (input_data_format or guess) == ChannelDimension.LAST:
            image = np.moveaxis(image, -1, 0)
    if image.ndim != 3 or image.shape[0] not in CHANNELS or image.size == 0:
        raise ValueError(
            f"The image has shape {shape}; it must be (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels. Choose "
            "one channel or three, or pass `input_data_format`."
        )
    return image


class ValuedImage:
    """An image before its values become grey levels; see `common_contrast.Valued`.

    Args:
        pixels: `(C, H, W)` with 1, 3 or 4 channels, of any byte order.
        name: what messages call it.

    Raises:
        ValueError: values that are no real numbers, NaN or infinite.
    """

    bits = None
    ranges = 1  # for grey, and for colours together

    def __init__(self, pixels: np.ndarray, name: str) -> None:
        if pixels.dtype.kind not in "buif":
            raise ValueError(
                f"{name} has dtype {pixels.dtype}; it must have pixels that are boolean, integer or floating."
            )
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        self.name, self.dtype = name, pixels.dtype
        self.colours = np.moveaxis(pixels[:3], 0, -1)  # as most images lie in memory
        self.opacity = pixels[3:] if len(pixels) == 4 else None
        invalid = 0 if self.dtype.kind != "f" else pixels.size - np.count_nonzero(np.isfinite(pixels))
        if invalid:
            raise ValueError(
                f"{name} has {invalid} NaN or infinite of {pixels.size} values. Replace them, for example with "
                "`numpy.nan_to_num`, or mask them out beforehand."
            )

    def sample(self, limit: int) -> np.ndarray:
        """Values of about `limit` pixels, `(n, 1)`."""
        height, width, _ = self.colours.shape
        blocks = sampled_blocks((height, width), limit)
        return np.concatenate([self.colours[block].reshape(-1, 1) for block in blocks])

    def levels(self, contrast: Contrast) -> np.ndarray:
        """Grey levels by a contrast, `(C, H, W)` uint8; opacity has its own, from nothing to all.

        Raises:
            ValueError: the contrast was found on values of another kind.
        """
        try:
            contrast.require_kind(self.dtype, self.ranges)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}.") from error
        levels = np.moveaxis(contrast.apply(self.colours), -1, 0)
        return levels if self.opacity is None else np.concatenate([levels, opacity_levels(self.opacity)])


def to_8bit(images: Sequence[np.ndarray], setting: Setting) -> list[np.ndarray]:
    """The images of a call with 8 bits, by one contrast for all of them unless it is to be each one's own.

    Args:
        images: `(C, H, W)` each.
        setting: see `as_contrast`.

    Raises:
        ValueError: values that are no real numbers, NaN or infinite; of which too few grey levels would be left; of
            several kinds under one contrast, or of another kind than it was found on.
    """
    contrast = as_contrast(setting)
    names = ["The image"] if len(images) == 1 else [f"images[{number}]" for number in range(len(images))]
    valued = [ValuedImage(image, name) for image, name in zip(images, names, strict=True)]
    if contrast.is_common and valued:
        common = fit_common(contrast, valued)
        return [image.levels(common) for image in valued]
    return [image.levels(fit_common(contrast, [image])) for image in valued]


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An 8-bit array `(C, H, W)` of greyscale, RGB or RGBA as RGB; what is transparent becomes white."""
    if len(image) == 1:
        return np.repeat(image, 3, axis=0)
    return over_white(image[:3], image[3:]) if len(image) == 4 else image


def over_white(levels: np.ndarray, opacity: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """Colours, uint8, over white as far as they are transparent.

    Args:
        levels, opacity: of shapes that go together; opacity of any type, see `opacity_levels`.
        premultiplied: whether the colours are already weighted by opacity.
    """
    share = opacity_levels(opacity) / 255
    colours = levels if premultiplied else share * levels
    return np.round(np.minimum(colours + (1 - share) * 255, 255)).astype(np.uint8)


def opacity_levels(opacity: np.ndarray) -> np.ndarray:
    """Opacity of any type as 8 bits: of integers all that their type holds is opaque, of others 1."""
    opaque = int(np.iinfo(opacity.dtype).max) if opacity.dtype.kind in "iu" else 1
    return Contrast(RANGE, (0,), (opaque,)).apply(opacity)
