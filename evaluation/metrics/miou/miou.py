# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union of label images: a metric of the library `evaluate`.

The file stands alone, so that its folder can be pushed to the Hub as it is.
"""

import datasets
import evaluate
import numpy as np

DESCRIPTION = """
Intersection over union of predicted and true label images, per class and averaged over the classes that occur. Every
pixel of the data set counts once, whatever the size of its image.
"""
INPUTS = """
Args:
    predictions: predicted labels, one integer array (H, W) per image; sizes may differ.
    references: true labels of the same sizes.
    num_classes: K; labels are 0 to K - 1.
    void: the true label of pixels that do not count.

Returns:
    miou: mean over the classes that occur in truth or predictions, 0 to 1; NaN if no pixel counts.
    iou_per_class: K values; NaN for a class that occurs in neither.
    pixel_accuracy: fraction of the counted pixels that are right; NaN if no pixel counts.

Example:
    >>> metric = evaluate.load("miou")
    >>> metric.compute(predictions=[[[0, 1]]], references=[[[0, 0]]], num_classes=2)["miou"]
    0.25
"""


class MeanIoU(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        # Not as integers: `evaluate` would cut 0.5 to 0 and say nothing.
        labels = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": labels, "references": labels}),
        )

    def _compute(
        self, predictions: list, references: list, num_classes: int, void: int = 255
    ) -> dict[str, float | list[float]]:
        matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
        for prediction, truth in zip(predictions, references, strict=True):
            matrix += confusion(prediction, truth, num_classes, void)
        right = np.diag(matrix).astype(np.float64)
        union = matrix.sum(axis=0) + matrix.sum(axis=1) - right
        iou = np.divide(right, union, out=np.full(num_classes, np.nan), where=union > 0)
        counted = matrix.sum()
        return {
            "miou": float(np.nanmean(iou)) if counted else float("nan"),
            "iou_per_class": iou.tolist(),
            "pixel_accuracy": float(right.sum() / counted) if counted else float("nan"),
        }


def confusion(prediction: list, truth: list, num_classes: int, void: int) -> np.ndarray:
    """Pixels of an image by true (row) and predicted (column) class, `(K, K)` int64.

    Raises:
        ValueError: the two differ in size, or a label is no class.
    """
    if [len(row) for row in prediction] != [len(row) for row in truth]:
        raise ValueError("A prediction has another size than its reference.")
    predicted, true = (np.concatenate([np.asarray(row) for row in image]) for image in (prediction, truth))
    counted = true != void
    for name, labels in (("prediction", predicted[counted]), ("reference", true[counted])):
        wrong = np.setdiff1d(labels, np.arange(num_classes))
        if len(wrong):
            raise ValueError(
                f"A {name} has labels that are no class: {', '.join(f'{label:g}' for label in wrong[:10])}. "
                f"{num_classes} classes are 0 to {num_classes - 1}."
            )
    pairs = (true[counted] * num_classes + predicted[counted]).astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
