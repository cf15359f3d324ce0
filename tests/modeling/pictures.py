# SPDX-License-Identifier: Apache-2.0
"""Images of 28×42 pixels and others, and what an image processor is to make of them."""

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

SAME_PIXELS = "the same operations on the same 8-bit pixels"
MEAN, STD = (np.array(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))

_RANDOM = np.random.default_rng(0)
RGB = _RANDOM.integers(0, 256, (28, 42, 3), dtype=np.uint8)
GREY = _RANDOM.integers(0, 256, (28, 42), dtype=np.uint8)
ALPHA = _RANDOM.integers(0, 256, (28, 42), dtype=np.uint8)
GREY_AS_RGB = np.stack([GREY] * 3, axis=-1)
BINARY = GREY > 127


def picture(height: int, width: int) -> Image.Image:
    """A smooth colourful picture, so that a shift by a pixel or a swap of sides shows."""
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 255 / max(height - 1, 1), columns * 255 / max(width - 1, 1), (rows * columns) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def pixels_of(processor, image, **kwargs) -> torch.Tensor:
    return processor(image, return_tensors="pt", **kwargs)["pixel_values"]


def normalised(rgb: np.ndarray) -> np.ndarray:
    """`(H, W, 3)`, 8-bit, as `(1, 3, H, W)`."""
    return ((rgb.transpose(2, 0, 1) / 255 - MEAN) / STD)[None]


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[..., None] / 255
    return np.round(opacity * rgb + (1 - opacity) * 255)
