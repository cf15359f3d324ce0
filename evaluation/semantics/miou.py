# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union from a confusion matrix: pure functions on label arrays.

A data set's matrix is the sum of its images' matrices, so every pixel counts once, whatever the size of its image.
"""

from collections.abc import Sequence

import numpy as np

VOID = 255  # the label of pixels that do not count, as in VOC


def confusion_matrix(prediction: np.ndarray, target: np.ndarray, num_classes: int, void: int = VOID) -> np.ndarray:
    """How many pixels of each class were predicted as each class.

    Args:
        prediction: integers of any shape, 0 to `num_classes` − 1 (anything where `target` is void).
        target: integers of the same shape, 0 to `num_classes` − 1, or `void` for pixels that do not count.
        num_classes: K.

    Returns:
        `(K, K)` int64; a row for each true class, a column for each predicted one.

    Raises:
        ValueError: the shapes differ, an array is not of integers, or a label is out of range.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape:
        raise ValueError(f"A prediction of shape {prediction.shape} cannot be compared with a mask of {target.shape}.")
    counted = target != void
    labels = {"mask": target[counted], "prediction": prediction[counted]}
    for name, values in labels.items():
        require_labels(values, num_classes, name)
    pairs = labels["mask"].astype(np.int64) * num_classes + labels["prediction"].astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def require_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Raise a `ValueError` that begins with `name` unless all labels are integers from 0 to `num_classes` − 1."""
    if labels.dtype.kind not in "iu":
        raise ValueError(f"The {name} is of {labels.dtype}; labels are integers.")
    unknown = np.unique(labels[(labels < 0) | (labels >= num_classes)])
    if len(unknown):
        some = ", ".join(map(str, unknown[:10]))
        raise ValueError(
            f"The {name} has labels out of range: {some}. {num_classes} classes are 0 to {num_classes - 1}."
        )


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, `(K,)` float64; NaN for a class in neither the truth nor the predictions.

    Args:
        matrix: `(K, K)` from `confusion_matrix`, or a sum of such.
    """
    matrix = np.asarray(matrix)
    intersection = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - intersection
    return np.divide(intersection, union, out=np.full(len(matrix), np.nan), where=union > 0)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean of `iou_per_class` over the classes that occur, 0 to 1; NaN if none does.

    A class that is predicted but is nowhere in the truth counts as 0.
    """
    values = iou_per_class(matrix)
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Fraction of the counted pixels that were predicted right, 0 to 1; NaN if none was counted."""
    total = np.sum(matrix)
    return float(np.trace(matrix) / total) if total else float("nan")


def class_figures(matrix: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The IoU of each class that occurs, under the names that records use: `iou_` and the class's.

    Args:
        matrix: `(K, K)` as for `iou_per_class`.
        names: of the K classes.
    """
    values = {f"iou_{name}": float(iou) for name, iou in zip(names, iou_per_class(matrix), strict=True)}
    return {name: iou for name, iou in values.items() if not np.isnan(iou)}
