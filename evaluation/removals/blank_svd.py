# SPDX-License-Identifier: Apache-2.0
"""Blank SVD: the leading directions of a blank image's features are removed (INSID3, arXiv 2603.28480).

The published code normalises features before and after the projection; here they keep their scale, which changes no
cosine between them.
"""

import numpy as np

DIRECTIONS = 16  # of the published code for ViT-S
ROUNDING = 1e-4  # of the features' length; float32 through a dozen layers


def leading_directions(features: np.ndarray, count: int) -> np.ndarray:
    """The first singular directions of an image's normalised, centred features, `(k, D)` with orthonormal rows.

    Directions in which the features do not vary are left out, so k may be less than `count`: the features of a model
    that knows no position are the same all over a blank image.

    Args:
        features: `(h, w, D)`.
        count: how many at most.

    Raises:
        ValueError: there are not more patches and channels than that.
    """
    rows, columns, width = features.shape
    if not 0 < count < min(rows * columns, width):
        raise ValueError(
            f"{count} directions were asked for; {rows}×{columns} patches of {width} channels allow 1 to "
            f"{min(rows * columns, width) - 1}."
        )
    inputs = features.reshape(-1, width)
    inputs = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    _, sizes, directions = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)
    return directions[:count][sizes[:count] > ROUNDING * np.sqrt(len(inputs))]
