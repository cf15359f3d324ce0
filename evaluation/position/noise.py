# SPDX-License-Identifier: Apache-2.0
"""Uniform noise: images without content, in which a positional probe can find nothing but position."""

import numpy as np
from PIL import Image


def noise_images(count: int, size: int, seed: int = 0) -> list[Image.Image]:
    """`count` square RGB images of `size` pixels a side; every value is drawn uniformly from 0 to 255."""
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)]
