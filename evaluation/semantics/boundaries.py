# SPDX-License-Identifier: Apache-2.0
"""How well the boundaries of a class map lie on those of the truth: F-score within a tolerance (Csurka et al., 2013).

mIoU hardly notices a boundary that is a few pixels off; this notices nothing else.
"""

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from evaluation.semantics.miou import VOID, require_labels

TOLERANCE = 2.0  # pixels
NEAR = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])  # a pixel and those that share a side with it


def boundary(region: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The pixels of a region `(H, W)` that touch one outside of it, `(H, W)` bool.

    The border of the image is no boundary, and neither are pixels that touch one that does not count.
    """
    inside = binary_erosion(region | ~counted, NEAR, border_value=1)
    return region & counted & ~inside & binary_erosion(counted, NEAR, border_value=1)


def boundary_counts(
    prediction: np.ndarray, target: np.ndarray, num_classes: int, tolerance: float = TOLERANCE, void: int = VOID
) -> np.ndarray:
    """How many boundary pixels of each class have one of the same class near them in the other map.

    Args:
        prediction: `(H, W)` integers, 0 to K − 1.
        target: the truth, the same, or `void` for pixels that do not count.
        num_classes: K.
        tolerance: Euclidean distance in pixels that counts as near, 0 or more.
        void: see `target`.

    Returns:
        `(K, 4)` int64: boundary pixels of the prediction near the truth's, and all of them; of the truth near the
        prediction's, and all of them. Sums over images can be given to `boundary_f`.

    Raises:
        ValueError: the shapes differ, a label is out of range, or the tolerance is below 0.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"A prediction of shape {prediction.shape} cannot be compared with a mask of {target.shape}.")
    if tolerance < 0:
        raise ValueError(f"The tolerance is {tolerance}; it must be 0 pixels or more.")
    counted = target != void
    require_labels(target[counted], num_classes, "mask")
    require_labels(prediction[counted], num_classes, "prediction")
    counts = np.zeros((num_classes, 4), dtype=np.int64)
    for number in range(num_classes):
        lines = [boundary(labels == number, counted) for labels in (prediction, target)]
        near = [distances(line) <= tolerance for line in lines]
        for column, (line, other) in enumerate(zip(lines, near[::-1], strict=True)):
            counts[number, 2 * column : 2 * column + 2] = np.count_nonzero(line & other), np.count_nonzero(line)
    return counts


def distances(line: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest of a line `(H, W)` bool, in pixels; infinite if the line has none."""
    return distance_transform_edt(~line) if line.any() else np.full(line.shape, np.inf)


def boundary_f(counts: np.ndarray) -> np.ndarray:
    """F-score of the boundaries of each class, `(K,)` float64, 0 to 1; NaN for a class that has none in either map.

    Args:
        counts: `(K, 4)` from `boundary_counts`, or a sum of such.
    """
    near, total = counts[:, 0::2].astype(np.float64), counts[:, 1::2]
    precision, recall = np.divide(near, total, out=np.zeros_like(near), where=total > 0).T
    both = precision + recall
    score = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return np.where(total.sum(axis=1) > 0, score, np.nan)
