# SPDX-License-Identifier: Apache-2.0
"""Made images whose truth is exact: a tomogram of four phases, and coatings in layers. Everything comes from a seed.

They stand for kinds of images of which there is no public set with masks that anybody may download: phases that differ
in grey level a little and in texture a little, with the noise and the rings of a tomogram; and layers, where the class
of a pixel follows its position.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

SIDE = 384  # pixels


@dataclass(frozen=True)
class Recipe:
    """How images of a made data set come about.

    Attributes:
        origin: what they show.
        classes: their names.
        draw: a random generator -> an image `(SIDE, SIDE)` float, about 0 to 1, and its mask `(SIDE, SIDE)` uint8.
        by_position: whether the class of a pixel follows where it is.
    """

    origin: str
    classes: tuple[str, ...]
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    by_position: bool = False


def smooth_noise(random: np.random.Generator, sigma: float, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Gaussian noise of one correlation length in pixels, mean 0 and standard deviation 1."""
    noise = gaussian_filter(random.normal(size=shape), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def tomogram(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A slice of a porous rock: pores, two minerals that differ in texture more than in grey, and bright grains."""
    field, texture = smooth_noise(random, 9), smooth_noise(random, 14)
    mask = np.where(texture > 0, 2, 1).astype(np.uint8)
    mask[smooth_noise(random, 6) > 1.6] = 3
    mask[field < -1.0] = 0
    levels = np.array([0.25, 0.50, 0.56, 0.78])[mask]
    fine, coarse = smooth_noise(random, 1.0), smooth_noise(random, 2.5)
    image = levels + np.select([mask == 1, mask == 2], [0.03 * fine, 0.05 * coarse], 0.01 * fine)
    rows, columns = np.indices(mask.shape)
    radius = np.hypot(rows - SIDE / 2, columns - SIDE / 2)
    rings = gaussian_filter(random.normal(size=SIDE), 1)[np.minimum(radius, SIDE - 1).astype(int)]
    cupping = 0.06 * (radius / SIDE) ** 2
    blurred = gaussian_filter(image, 1.2)  # the point spread comes before the noise
    return blurred + cupping + 0.02 * rings + 0.06 * random.normal(size=mask.shape), mask


def coatings(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A cross-section: mounting resin over a coating over a substrate, each with the same texture as another."""
    wave = [smooth_noise(random, 20, (SIDE, SIDE))[0] * size for size in (8, 6)]
    top = SIDE * random.uniform(0.25, 0.40) + wave[0]
    bottom = np.maximum(SIDE * random.uniform(0.60, 0.75) + wave[1], top + 10)
    rows = np.arange(SIDE)[:, None]
    mask = ((rows > top).astype(np.uint8) + (rows > bottom)).astype(np.uint8)
    levels = np.array([0.42, 0.50, 0.44])[mask]
    grains = smooth_noise(random, 3)
    # The coating is layered along its interface: the grains of the substrate, drawn out sideways.
    columns = np.broadcast_to(np.arange(SIDE) / 4, mask.shape)
    drawn_out = map_coordinates(grains, [np.broadcast_to(rows, mask.shape), columns], order=1)
    texture = np.select([mask == 1], [0.06 * drawn_out], 0.06 * grains)
    shade = 0.08 * random.uniform(-1, 1) * (rows / SIDE - 0.5)
    return levels + texture + shade + 0.05 * random.normal(size=mask.shape), mask


RECIPES = {
    "made-ct": Recipe(
        "made tomograms of four phases, with rings, cupping and noise",
        ("pore", "mineral", "clay", "grain"),
        tomogram,
    ),
    "made-layers": Recipe(
        "made cross-sections of a coated substrate, whose classes follow position",
        ("resin", "coating", "substrate"),
        coatings,
        by_position=True,
    ),
}


def make_image(recipe: Recipe, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image `(SIDE, SIDE, 3)` uint8, grey, and its mask `(SIDE, SIDE)` uint8, classes from 0."""
    values, mask = recipe.draw(np.random.default_rng(seed))
    grey = (values.clip(0, 1) * 255).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), mask
