# SPDX-License-Identifier: Apache-2.0
"""Images of two materials, smooth and rough, with labels, and settings that are quick on them."""

import numpy as np
from scipy.ndimage import gaussian_filter

from alibi_dinov2.features.classical_features import ClassicalFeatures

CLASSICAL = ClassicalFeatures(sigmas=(1.0, 2.0), membrane=False)
WINDOWS = {"window": 56, "overlap": 14, "components": 4}


def materials(seed: int = 0, height: int = 80, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """An image with smooth and rough regions, and its truth, 1 and 2."""
    random = np.random.default_rng(seed)
    rough = gaussian_filter(random.normal(size=(height, width)), 8) > 0
    noise = random.normal(size=(height, width))
    image = 128 + np.where(rough, 40 * noise, 12 * gaussian_filter(noise, 3))
    return image.clip(0, 255).astype(np.uint8), rough + np.uint8(1)


def scribbles(truth: np.ndarray, seed: int = 0, count: int = 40) -> np.ndarray:
    """A few labelled pixels of each class."""
    labels, random = np.zeros_like(truth), np.random.default_rng(seed)
    for label in np.unique(truth):
        rows, columns = random.permutation(np.argwhere(truth == label))[:count].T
        labels[rows, columns] = label
    return labels


IMAGE, TRUTH = materials()
LABELS = scribbles(TRUTH)
