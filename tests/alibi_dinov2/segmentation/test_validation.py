# SPDX-License-Identifier: Apache-2.0
"""Validation counts labels that were not learned from, and nothing else; it is what leaving them out by hand gives."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from alibi_dinov2.segmentation.labelled_pixels import OneImageWarning
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from alibi_dinov2.segmentation.validation import Validation, number_strokes, validate
from tests.alibi_dinov2.segmentation.materials import CLASSICAL, IMAGE, LABELS, materials, scribbles

SETTINGS = {"classical": CLASSICAL, "classifier": "logistic-regression"}
OTHER, OTHER_TRUTH = materials(seed=5)
THIRD, THIRD_TRUTH = materials(seed=7, height=60, width=70)
IMAGES = [IMAGE, OTHER, THIRD]
ALL_LABELS = [LABELS, scribbles(OTHER_TRUTH), scribbles(THIRD_TRUTH)]


def dark_and_bright(strokes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Dark above, bright below, and so many strokes of each class."""
    image = np.random.default_rng(0).integers(0, 60, (80, 96), dtype=np.uint8)
    image[40:] += 150
    labels = np.zeros((80, 96), dtype=np.uint8)
    for number in range(strokes):
        labels[20, 5 + 20 * number : 15 + 20 * number], labels[60, 5 + 20 * number : 15 + 20 * number] = 1, 2
    return image, labels


def test_images_are_left_out_one_by_one(hybrid):
    found = hybrid(classifier="logistic-regression")
    validation = validate(found, IMAGES, ALL_LABELS)
    assert validation.by == "image"
    for number, (image, labels) in enumerate(zip(IMAGES, ALL_LABELS, strict=True)):
        others = [other for other in range(3) if other != number]
        alone = clone(found).fit([IMAGES[other] for other in others], [ALL_LABELS[other] for other in others])
        here = validation.images == number
        np.testing.assert_array_equal(validation.truth[here], labels[labels > 0])
        # Features of a part of an image differ from those of all of it by the rounding of float32.
        assert (validation.predicted[here] == alone.predict(image)[labels > 0]).mean() > 0.97
    assert not validation.uncounted.any()


def test_figures_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    truth = random.choice([1, 2, 4], 300).astype(np.uint8)
    predicted = np.where(random.random(300) < 0.7, truth, random.choice([1, 2, 4], 300)).astype(np.uint8)
    classes = np.array([1, 2, 4], dtype=np.uint8)
    found = Validation("image", classes, ["a", "b", "c"], truth, predicted, np.zeros(300, int), np.zeros(3, int))
    for name, score in (
        ("precision", precision_score),
        ("recall", recall_score),
        ("f1", f1_score),
        ("iou", jaccard_score),
    ):
        np.testing.assert_allclose(getattr(found.scores, name), score(truth, predicted, labels=classes, average=None))
    for row, true in zip(found.confusion, classes, strict=True):
        for count, wrong in zip(row, classes, strict=True):
            assert count == ((truth == true) & (predicted == wrong)).sum()
    assert found.accuracy == (truth == predicted).mean()


def test_strokes_are_left_out_where_there_is_one_image():
    image, labels = dark_and_bright()
    validation = validate(TrainableSegmenter(**SETTINGS), image, labels)
    assert validation.by == "stroke"
    assert validation.scores.pixels.tolist() == [40, 40]
    assert validation.accuracy == 1
    # A stroke that contradicts all others is wrong when it is left out, and right once it has been learned.
    labels[30, 10:20] = 2
    spoilt = validate(TrainableSegmenter(**SETTINGS), image, labels)
    assert spoilt.confusion[1].tolist() == [10, 40]
    assert spoilt.confusion[0, 0] > 35, "what it spoils of others"


def test_the_only_stroke_of_a_class_is_learned_from_and_not_counted():
    image, labels = dark_and_bright()
    labels[60, 25:] = 0
    validation = validate(TrainableSegmenter(**SETTINGS), image, labels)
    assert validation.confusion.tolist() == [[40, 0], [0, 0]]
    assert validation.uncounted.tolist() == [0, 10]
    labels[20, 25:] = 0
    with pytest.raises(ValueError, match="there must be two strokes of a class"):
        validate(TrainableSegmenter(**SETTINGS), image, labels)


def test_strokes_are_pixels_that_touch_and_are_numbered_in_each_class():
    labels = np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.uint8)
    first, second = number_strokes([labels, labels])
    assert first.tolist() == [[0, -1, -1, 0], [-1, 0, -1, -1], [-1, -1, -1, 1]]
    assert second.tolist() == [[2, -1, -1, 1], [-1, 2, -1, -1], [-1, -1, -1, 3]]


def test_slices_of_a_single_stack_are_left_out():
    stack, labels = np.stack([IMAGE, OTHER, IMAGE]), np.stack([LABELS, ALL_LABELS[1], 0 * LABELS])
    validation = validate(TrainableSegmenter(**SETTINGS), stack, labels)
    assert validation.by == "slice"
    assert len(validation.truth) == (labels > 0).sum()
    expected = TrainableSegmenter(**SETTINGS).fit(IMAGE, LABELS).predict(OTHER)[ALL_LABELS[1] > 0]
    assert (validation.predicted[(LABELS > 0).sum() :] == expected).mean() > 0.97


def test_few_folds_leave_out_several_at_a_time():
    image, labels = dark_and_bright()
    fits = []
    segmenter = TrainableSegmenter(**SETTINGS)

    class Counted(TrainableSegmenter):
        def fit(self, images, labels):
            fits.append(np.count_nonzero(labels))
            return super().fit(images, labels)

    counted = Counted(**segmenter.get_params(deep=False))
    assert len(validate(counted, image, labels).truth) == 80
    assert fits == [60] * 4
    fits.clear()
    assert len(validate(counted, image, labels, folds=2).truth) == 80
    assert fits == [40] * 2


def test_a_class_that_is_on_one_image_alone_is_not_counted():
    image, labels = dark_and_bright()
    third = labels.copy()
    third[5, 5:25] = 3
    validation = validate(
        TrainableSegmenter(**SETTINGS, class_names=["dark", "bright", "odd"]),
        [image, image, image],
        [labels, labels, third],
    )
    assert validation.uncounted.tolist() == [0, 0, 20]
    assert validation.scores.pixels.tolist() == [120, 120, 0]
    text = validation.text(["a.png", "b.png", "c.png"])
    assert "Not counted: 20 pixels of odd" in text
    assert "c.png" in text
    assert all(
        np.isnan(values[2]) for values in (validation.scores.recall, validation.scores.f1, validation.scores.iou)
    )


def test_the_segmenter_stays_as_it_is():
    found = TrainableSegmenter(**SETTINGS, class_names=["smooth", "rough"]).fit(IMAGE, LABELS)
    before, state = found.predict(IMAGE), dict(vars(found))
    validate(found, IMAGES, ALL_LABELS)
    assert vars(found) == state
    np.testing.assert_array_equal(found.predict(IMAGE), before)


@pytest.mark.parametrize(
    ("images", "labels", "options", "message"),
    [
        (IMAGES, ALL_LABELS, {"by": "pixel"}, "must be one of image, slice, stroke"),
        (IMAGES, ALL_LABELS, {"folds": 1}, "takes 2 or more"),
        (IMAGE, LABELS, {"by": "image"}, "No image can be left out"),
        (IMAGES[:2], [np.where(LABELS == 1, 1, 0), np.where(LABELS == 1, 2, 0)], {}, "Every class has labels on one"),
        (IMAGE, np.zeros_like(LABELS), {}, "mark nothing"),
        (IMAGES[:2], ALL_LABELS[:1], {}, "labels for 1 images"),
    ],
)
def test_what_cannot_be_validated_is_refused(images, labels, options, message):
    with pytest.raises(ValueError, match=message):
        validate(TrainableSegmenter(**SETTINGS), images, labels, **options)
    with pytest.raises(ValueError, match="1 class names for classes"):
        validate(TrainableSegmenter(**SETTINGS, class_names=["smooth"]), IMAGES, ALL_LABELS)


def test_fit_warns_of_a_class_on_one_image_alone():
    one = np.where(LABELS == 1, 1, 0)
    for images, labels, warned in (
        ([IMAGE, IMAGE], [LABELS, LABELS], False),
        (IMAGE, LABELS, False),
        ([IMAGE, IMAGE], [LABELS, 0 * LABELS], False),
        ([IMAGE, IMAGE], [LABELS, one], True),
        (np.stack([IMAGE, IMAGE]), np.stack([LABELS, one]), True),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            TrainableSegmenter(**SETTINGS, class_names=["smooth", "rough"]).fit(images, labels)
        assert [warning.category for warning in caught] == [OneImageWarning] * warned
        assert not warned or "Class 2 (rough) has labels on one image alone, of 2" in str(caught[0].message)
        assert not warned or caught[0].filename == __file__
