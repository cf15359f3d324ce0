# SPDX-License-Identifier: Apache-2.0
"""The guided filter (He et al., 2013): brings the borders of classes to the edges in the image.

A patch has one vector of features, and classical filters blur: what a classifier makes of them changes its mind beside
an edge, not at it, and in spots. The filter fits the probabilities in every small window by a line of the grey level,
and averages the lines that go through a pixel. `evaluation.segmentation.edges` compares it with other ways.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.tiles import Block, grown

RADIUS = 8  # pixels, of the windows
FLAT = 1e-4  # variance of grey levels from 0 to 1 below which a window is flat, and its values are averaged


def guided_filter(guide: np.ndarray, values: np.ndarray, radius: int = RADIUS, flat: float = FLAT) -> np.ndarray:
    """Values that follow the edges of a guide.

    Args:
        guide: `(H, W)` float32 from 0 to 1.
        values: `(H, W, n)` float32.
        radius: of the windows in pixels, 1 or more; their sides are `2·radius + 1`. A pixel depends on those up to
            twice as far away.
        flat: variance of the guide that is added to that of every window.

    Returns:
        `(H, W, n)` float32. Images are continued by reflection. What adds up to 1 in every pixel still does; values may
        leave the range that they had.
    """

    size, guide = 2 * radius + 1, guide.astype(np.float64)  # variances are differences of numbers that are nearly equal

    def mean(array: np.ndarray) -> np.ndarray:
        return uniform_filter(array, size, mode="reflect")

    def products() -> Iterator[np.ndarray]:
        yield guide
        yield guide**2
        for plane in planes:
            yield plane
            yield guide * plane

    def follow(means: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        average, product = means
        slope = (product - level * average) / variance
        return mean(slope) * guide + mean(average - slope * level)

    planes = [values[..., number].astype(np.float64) for number in range(values.shape[-1])]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        level, square, *means = pool.map(mean, products())
        variance = square - level**2 + flat
        found = pool.map(follow, zip(means[::2], means[1::2], strict=True))
        return np.stack([plane.astype(np.float32) for plane in found], axis=-1)


def filtered_probabilities(pixels: np.ndarray, probabilities: np.ndarray, radius: int) -> np.ndarray:
    """Probabilities of classes that follow the edges of an image.

    Args:
        pixels: `(H, W, 3)` uint8.
        probabilities: `(H, W, K)` float32, which add up to 1.
        radius: of the filter.

    Returns:
        `(H, W, K)` float32, 0 to 1, which add up to 1.
    """
    red, green, blue = np.moveaxis(pixels, -1, 0).astype(np.float32)
    level = (red + green + blue) / np.float32(3 * 255)
    found = guided_filter(level, probabilities[..., 1:], radius)  # all classes add up to 1, before and after
    found = np.concatenate([1 - found.sum(axis=-1, keepdims=True), found], axis=-1).clip(min=0)
    return found / found.sum(axis=-1, keepdims=True)


def follow_edges(
    image: ImageRegions, index: int, block: Block, radius: int, probabilities: Callable[[Block], np.ndarray]
) -> np.ndarray:
    """Filtered probabilities of a block of a slice, the same whatever block a pixel lies in.

    Args:
        image, index: the slice.
        block: rows and columns.
        radius: of the filter, 0 for none.
        probabilities: gives those of a block `(h, w, K)` float32; of the margin, too, that the filter needs.
    """
    if not radius:
        return probabilities(block)
    wide, inside = grown(block, 2 * radius, image.shape)
    return filtered_probabilities(image.read(index, *wide), probabilities(wide), radius)[inside]
