# SPDX-License-Identifier: Apache-2.0
"""mIoU against sets of pixels counted one by one."""

import numpy as np
import pytest

from evaluation.semantics.miou import VOID, confusion_matrix, iou_per_class, mean_iou, pixel_accuracy


def random_labels(num_classes: int, void: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    target = random.integers(0, num_classes, (13, 17))
    prediction = np.where(random.random(target.shape) < 0.5, target, random.integers(0, num_classes, target.shape))
    target[random.random(target.shape) < 0.2] = void
    return prediction, target


def slow_ious(prediction: np.ndarray, target: np.ndarray, num_classes: int, void: int) -> list[float]:
    ious = []
    for label in range(num_classes):
        pixels = [(p, t) for p, t in zip(prediction.ravel(), target.ravel(), strict=True) if t != void]
        found = {index for index, (p, _) in enumerate(pixels) if p == label}
        wanted = {index for index, (_, t) in enumerate(pixels) if t == label}
        ious.append(len(found & wanted) / len(found | wanted) if found | wanted else float("nan"))
    return ious


@pytest.mark.parametrize(("num_classes", "void"), [(2, 255), (7, 255), (5, -1), (150, 255)])
def test_equals_counting_pixels(num_classes, void):
    prediction, target = random_labels(num_classes, void)
    matrix = confusion_matrix(prediction, target, num_classes, void)
    expected = slow_ious(prediction, target, num_classes, void)
    # 150 classes on 221 pixels: some do not occur.
    assert np.isnan(expected).any() == (num_classes == 150)
    np.testing.assert_allclose(iou_per_class(matrix), expected, rtol=1e-15)
    assert mean_iou(matrix) == pytest.approx(np.nanmean(expected), rel=1e-14)
    counted = target != void
    assert pixel_accuracy(matrix) == pytest.approx((prediction == target)[counted].mean(), rel=1e-14)


def test_rows_are_the_truth_and_columns_the_predictions():
    matrix = confusion_matrix(np.array([2, 2, 1]), np.array([0, 0, 1]), 3)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[0, 0, 2], [0, 1, 0], [0, 0, 0]])


def test_matrices_add_up_over_images():
    pairs = [random_labels(4, VOID, seed) for seed in range(3)]
    together = confusion_matrix(*(np.concatenate(arrays) for arrays in zip(*pairs, strict=True)), num_classes=4)
    np.testing.assert_array_equal(sum(confusion_matrix(*pair, num_classes=4) for pair in pairs), together)


def test_class_that_is_only_predicted_counts_as_zero_and_one_that_never_occurs_not_at_all():
    matrix = confusion_matrix(np.array([0, 0, 1]), np.array([0, 0, 0]), 3)
    np.testing.assert_array_equal(iou_per_class(matrix), [2 / 3, 0, np.nan])
    assert mean_iou(matrix) == pytest.approx(1 / 3)


def test_only_void_has_no_score():
    matrix = confusion_matrix(np.array([9, 200]), np.array([VOID, VOID]), 3)
    assert not matrix.any()
    assert np.isnan(mean_iou(matrix))
    assert np.isnan(pixel_accuracy(matrix))


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"shape \(2, 3\) cannot be compared with a mask of \(3, 2\)"),
        (np.array([0, 0]), np.array([0, 7]), "The mask has labels out of range: 7. 3 classes are 0 to 2"),
        (np.array([0, -1]), np.array([0, 1]), "The prediction has labels out of range: -1"),
        (np.array([0, 1]), np.array([0.0, 1.0]), "The mask is of float64; labels are integers"),
    ],
)
def test_wrong_labels_are_refused(prediction, target, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(prediction, target, 3)
