# SPDX-License-Identifier: Apache-2.0
"""How sure a classifier is of a pixel, and where the next stroke helps most."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

WINDOW = 64  # side in pixels of a place to draw in


class Place(NamedTuple):
    """The middle of a region in pixels, counted from 0, and the mean uncertainty in it, 0 to 1."""

    row: int
    column: int
    uncertainty: float


def uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """1 less the margin between the two most probable classes: 0 where one is certain, 1 where two are as probable.

    Args:
        probabilities: `(..., K)` float, K of 2 or more.

    Returns:
        `(...)` float32.
    """
    two = np.partition(probabilities, -2, axis=-1)[..., -2:]
    return (1 - (two[..., 1] - two[..., 0])).astype(np.float32)


def where_to_draw(
    uncertain: np.ndarray, count: int = 5, window: int = WINDOW, labels: np.ndarray | None = None
) -> list[Place]:
    """The most uncertain regions of a slice, none over another, the most uncertain one first.

    Args:
        uncertain: `(H, W)` from `uncertainty`.
        count: how many regions at most.
        window: their side in pixels, at most that of the slice.
        labels: `(H, W)`, of which pixels other than 0 have been drawn on already; regions around them do not count.

    Raises:
        ValueError: a number is below 1, or the labels have another shape.
    """
    if min(count, window) < 1:
        raise ValueError(f"{count} regions of {window} pixels were asked for; give 1 or more.")
    if labels is not None and labels.shape != uncertain.shape:
        raise ValueError(f"The labels have shape {labels.shape}, the uncertainty {uncertain.shape}; give equal ones.")
    window = min(window, *uncertain.shape)
    means = np.full(uncertain.shape, -np.inf, dtype=np.float32)
    inside = tuple(slice(window // 2, side - (window - window // 2) + 1) for side in uncertain.shape)
    means[inside] = uniform_filter(uncertain.astype(np.float32), window)[inside]
    if labels is not None:
        drawn = uniform_filter((labels > 0).astype(np.float32), window, mode="constant")
        means[drawn > 0.5 / window**2] = -np.inf
    places = []
    for _ in range(count):
        row, column = np.unravel_index(means.argmax(), means.shape)
        if not np.isfinite(means[row, column]):
            break
        places.append(Place(int(row), int(column), float(means[row, column].clip(0, 1))))
        near = tuple(slice(max(place - window + 1, 0), place + window) for place in (row, column))
        means[near] = -np.inf
    return places
