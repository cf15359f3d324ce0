# SPDX-License-Identifier: Apache-2.0
"""Images of any kind as 8-bit arrays: which channels they have, and which value stands for white."""

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension, ImageInput

CHANNELS = (1, 3, 4)  # greyscale, RGB, RGBA
TYPES_WITH_A_RANGE = (np.dtype(bool), np.dtype("u1"), np.dtype("<u2"), np.dtype(">u2"))  # the others' values decide


def to_array(image: ImageInput) -> np.ndarray:
    """An image as an array in the layout it came in; PIL images as `(H, W)`, `(H, W, 3)` or `(H, W, 4)`."""
    if isinstance(image, torch.Tensor):
        return (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
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


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An 8-bit array `(C, H, W)` of greyscale, RGB or RGBA as RGB; what is transparent becomes white."""
    if len(image) == 1:
        return np.repeat(image, 3, axis=0)
    if len(image) == 4:
        opacity = image[3:] / 255
        return np.round(opacity * image[:3] + (1 - opacity) * 255).astype(np.uint8)
    return image


def to_8bit(image: np.ndarray) -> np.ndarray:
    """The same pixels with 8 bits.

    Args:
        image: of any shape, byte order and boolean, integer or floating dtype.

    Raises:
        ValueError: pixels that are NaN, infinite, negative or beyond the range of their type, or whose range is not
            clear.
    """
    if image.dtype == np.uint8:
        return image
    white = white_level(image)
    return np.round(np.clip(image, 0, white) * (255 / white)).astype(np.uint8)


def white_level(image: np.ndarray) -> int:
    """The value that stands for white: 1, 255 or 65535. Errors are those of `to_8bit`."""
    kind = image.dtype.kind
    if kind == "b":
        return 1
    if kind not in "uif" or image.size == 0:
        raise ValueError(
            f"The image has dtype {image.dtype} and shape {image.shape}; it must have pixels that are boolean, integer "
            "or floating."
        )
    lowest, highest, rounding = image.min(), image.max(), 0.0
    if kind == "f":
        invalid = np.count_nonzero(~np.isfinite(image))
        if invalid:
            raise ValueError(
                f"The image has {invalid} NaN or infinite of {image.size} values. Replace them, for example with "
                "`numpy.nan_to_num`, or mask them out beforehand."
            )
        rounding = 2 * float(np.finfo(image.dtype).eps)
        white = 1 if highest <= 1 + rounding else 255
        if white == 255 and highest < 2:
            raise ValueError(
                f"The image has {image.dtype} values up to {highest}: more than the range [0, 1] allows, and nearly "
                "black in the range [0, 255]. Make it clear: `numpy.clip(image, 0, 1)`, or `image.astype(numpy.uint8)`."
            )
    else:
        wide = highest > 255 or (image.dtype in TYPES_WITH_A_RANGE and image.dtype != np.uint8)
        white = 65535 if wide else 255
    if lowest < -rounding * white or highest > white * (1 + rounding):
        raise ValueError(
            f"The image has {image.dtype} values from {lowest} to {highest}. Integers must lie in [0, 255] or "
            "[0, 65535], floating values in [0, 1] or [0, 255]: rescale it, for example to [0, 1]."
        )
    return white


def require_one_range(images: list) -> None:
    """Raise a `ValueError` if some images of a call seem to have one range and some another, by their values alone.

    A dark image of a series would otherwise come out bright.
    """
    ranges: dict[str, set[int]] = {"f": set(), "i": set()}
    for image in images:
        if isinstance(image, Image.Image) and image.mode not in ("I", "F"):
            continue
        array = to_array(image)
        if array.dtype in TYPES_WITH_A_RANGE or not array.any():
            continue
        ranges["f" if array.dtype.kind == "f" else "i"].add(white_level(array))
    for whites in ranges.values():
        if len(whites) > 1:
            raise ValueError(
                f"Some images have values up to {min(whites)}, others up to {max(whites)}, and their types do not say "
                "what white is. Bring them to one range, for example to uint8, or pass them one by one."
            )
