# SPDX-License-Identifier: Apache-2.0
"""The segmenter on a tiny random backbone and images of two materials, smooth and rough."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

from alibi_dinov2.features import deep_features
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.multi_scale_features import SCALES
from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.segmentation import segmenter
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from tests.alibi_dinov2.segmentation.materials import CLASSICAL, IMAGE, LABELS, TRUTH, WINDOWS, materials, scribbles


@pytest.mark.parametrize("classifier", ["xgboost", "random-forest", "logistic-regression"])
def test_a_few_labels_teach_the_rest_of_the_image_and_of_others(classifier):
    found = TrainableSegmenter(classifier=classifier).fit(IMAGE, LABELS)
    other, truth = materials(seed=5)
    for image, expected in ((IMAGE, TRUTH), (other, truth)):
        mask = found.predict(image)
        assert mask.dtype == np.uint8
        # Borders between the materials, 8 pixels wide and a third of the image, are what is missed.
        assert (mask == expected).mean() > 0.85
    probabilities = found.predict_proba(IMAGE)
    assert probabilities.shape == (*IMAGE.shape, 2)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.predict(IMAGE), probabilities.argmax(-1) + 1)


def test_kinds_of_features(hybrid):
    both = hybrid().fit(IMAGE, LABELS)
    classical = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)
    deep = TrainableSegmenter(both.backbone, classical=None, **WINDOWS).fit(IMAGE, LABELS)
    parts = [segmenter.pixel_features(IMAGE) for segmenter in (classical, deep)]
    np.testing.assert_array_equal(both.pixel_features(IMAGE), np.concatenate(parts, axis=-1))
    assert parts[0].shape[-1] == len(CLASSICAL.names(1))
    assert parts[1].shape[-1] == len(SCALES) * WINDOWS["components"]
    np.testing.assert_array_equal(parts[0], CLASSICAL(IMAGE[..., None]).astype(np.float16))


def test_blocks_leave_no_seams(hybrid):
    found = hybrid().fit(IMAGE, LABELS)
    expected, mask = found.pixel_features(IMAGE), found.predict(IMAGE)
    found.features_ = replace(found.features_, block_size=32)
    # Sums of float32 in another order.
    np.testing.assert_allclose(found.pixel_features(IMAGE), expected, atol=1e-4)
    pixels = np.argwhere(LABELS)
    of_pixels = found.features_.of_pixels(ArrayImage(IMAGE), 0, pixels)
    np.testing.assert_allclose(of_pixels, expected[tuple(pixels.T)], atol=1e-4)
    assert (found.predict(IMAGE) == mask).mean() > 0.99
    wanted = [number for number, _, _ in found.predict_blocks(ArrayImage(IMAGE), skip=lambda number: number != 4)]
    assert wanted == [4]


def test_classes_may_have_gaps_and_live_in_different_images(hybrid):
    other, truth = materials(seed=5)
    first, second = np.where(LABELS == 1, 1, 0), np.where(scribbles(truth) == 2, 3, 0)
    found = hybrid(class_names=["smooth", "rough"]).fit([IMAGE, other, IMAGE], [first, second, np.zeros_like(first)])
    assert found.classes_.tolist() == [1, 3]
    assert set(np.unique(found.predict(IMAGE))) == {1, 3}


def test_slices_of_a_stack_are_images(hybrid):
    other, truth = materials(seed=5)
    stack = np.stack([IMAGE, other])
    stacked = hybrid().fit(stack, np.stack([LABELS, scribbles(truth)]))
    apart = hybrid().fit([IMAGE, other], [LABELS, scribbles(truth)])
    ((_, _, second),) = stacked.predict_blocks(ArrayImage(stack), 1)
    np.testing.assert_array_equal(second, apart.predict_proba(other))
    for method in ("predict", "predict_proba", "pixel_features"):
        found = getattr(stacked, method)(stack)
        assert found.shape[:3] == stack.shape, "a stack gives all its slices"
        for page, image in zip(found, (IMAGE, other), strict=True):
            np.testing.assert_array_equal(page, getattr(apart, method)(image))
    with pytest.raises(ValueError, match="There are 2 images; give them one after the other"):
        stacked.predict([IMAGE, other])


def test_colour_counts_if_an_image_to_learn_from_has_it():
    random = np.random.default_rng(0)
    red = np.zeros((*TRUTH.shape, 3), dtype=np.uint8)
    # Of the same grey: only the hue tells the classes apart.
    red[TRUTH == 1], red[TRUTH == 2] = (100, 49, 0), (0, 100, 0)
    red += random.integers(0, 3, red.shape, dtype=np.uint8)
    found = TrainableSegmenter(classical=CLASSICAL).fit(red, LABELS)
    assert found.features_.colour
    assert (found.predict(red) == TRUTH).mean() > 0.95
    assert found.predict(IMAGE).shape == IMAGE.shape
    grey = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)
    assert not grey.features_.colour
    assert grey.pixel_features(red).shape[-1] == len(CLASSICAL.names(1))


def test_more_strokes_are_learned_without_computing_features_again(hybrid, monkeypatch):
    computed = []
    monkeypatch.setattr(
        deep_features, "dense_features", lambda *given: computed.append("deep") or dense_features(*given)
    )
    original = ClassicalFeatures.__call__
    monkeypatch.setattr(
        ClassicalFeatures, "__call__", lambda self, image: computed.append("classical") or original(self, image)
    )
    found = hybrid().fit(IMAGE, LABELS)
    assert sorted(computed) == ["classical", *["deep"] * 5]
    before = found.predict_proba(IMAGE)
    computed.clear()
    found.fit(IMAGE, np.where(LABELS > 0, LABELS, scribbles(TRUTH, seed=1)))
    assert computed == []
    assert not np.array_equal(found.predict_proba(IMAGE), before)


def test_classifier_is_told_of_images_and_views(hybrid, monkeypatch):
    told = []
    original = segmenter.fit_classifier

    def watched(*given, **named):
        told.append(named)
        return original(*given, **named)

    monkeypatch.setattr(segmenter, "fit_classifier", watched)
    found = hybrid().fit([IMAGE, IMAGE[::-1], IMAGE], [LABELS, np.zeros_like(LABELS), LABELS])
    np.testing.assert_array_equal(told[0]["images"], np.repeat([0, 1], np.count_nonzero(LABELS)))
    everything, without_level, deep = told[0]["views"]
    names = CLASSICAL.names(1)
    count = len(names) + len(SCALES) * WINDOWS["components"]
    np.testing.assert_array_equal(everything, range(count))
    np.testing.assert_array_equal(deep, range(len(names), count))
    left_out = {names[number].split("_")[1] for number in set(range(count)) - set(without_level)}
    assert left_out == {"intensity", "gaussian"}
    assert [len(view) for view in TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS).features_.views()] == [
        len(names),
        len(without_level) - len(SCALES) * WINDOWS["components"],
    ]
    alone = TrainableSegmenter(found.backbone, None, **WINDOWS).fit(IMAGE, LABELS)
    assert [len(view) for view in alone.features_.views()] == [len(SCALES) * WINDOWS["components"]]


def test_pixels_beyond_the_limit_are_not_learned_from(hybrid, monkeypatch):
    seen = []
    original = segmenter.fit_classifier

    def watched(*given, **named):
        seen.append(given[1].shape)
        return original(*given, **named)

    monkeypatch.setattr(segmenter, "fit_classifier", watched)
    hybrid(max_pixels=100).fit(IMAGE, TRUTH)
    assert 98 <= seen[0][0] <= 101


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classical": None}, "neither a backbone nor classical"),
        ({"classifier": "svm"}, "must be one of stroke-forest"),
        ({"max_pixels": 1}, "must be 2 or more"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainableSegmenter(**settings).fit(IMAGE, LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGE, LABELS.T, "but image 1 is one of"),
        (IMAGE, np.zeros_like(LABELS), "mark nothing"),
        (IMAGE, np.where(LABELS == 1, 1, 0), "mark only class 1"),
        ([IMAGE, IMAGE], [LABELS], "labels for 1 images, and 2 images"),
        (np.where(IMAGE > 200, np.nan, IMAGE), LABELS, "NaN"),
        ([], [], "There are no images"),
    ],
)
def test_what_cannot_be_learned_is_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        TrainableSegmenter(classical=CLASSICAL).fit(images, labels)


def test_a_refit_that_fails_leaves_what_was_learned(monkeypatch):
    found = TrainableSegmenter(classical=CLASSICAL, class_names=["smooth", "rough"]).fit(IMAGE, LABELS)
    before = found.predict(IMAGE)
    three = np.where(TRUTH == 1, LABELS, 3 * (LABELS > 0))
    three[0, 0] = 2
    for labels in (np.zeros_like(LABELS), LABELS[1:], three):
        with pytest.raises(ValueError, match=r"mark nothing|but image 1|2 class names"):
            found.fit(IMAGE, labels)
        np.testing.assert_array_equal(found.predict(IMAGE), before)

    def interrupted(*_, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(segmenter, "fit_classifier", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.fit(IMAGE, LABELS[::-1])
    np.testing.assert_array_equal(found.predict(IMAGE), before)


def test_names_must_fit_the_classes():
    with pytest.raises(ValueError, match="1 class names for classes"):
        TrainableSegmenter(classical=CLASSICAL, class_names=["smooth"]).fit(IMAGE, LABELS)


def test_nothing_is_predicted_before_something_was_learned(tmp_path):
    new = TrainableSegmenter(classical=CLASSICAL)
    for use in (new.predict, new.pixel_features, lambda _: new.save(tmp_path / "saved")):
        with pytest.raises(NotFittedError, match="call `fit`"):
            use(IMAGE)


# Those of scikit-learn's checks that are not about tables of features. Its check of the constructor's defaults wants
# numbers and strings where we have `ClassicalFeatures()`, which cannot be changed either.
@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_valid_tag_types",
        "check_estimator_tags_renamed",
    ],
)
def test_it_is_an_estimator_by_scikit_learns_own_checks(check):
    getattr(estimator_checks, check)("TrainableSegmenter", TrainableSegmenter())


def test_a_clone_is_unfitted_has_equal_settings_and_shares_the_backbone(hybrid):
    found = hybrid(classifier="logistic-regression", class_names=["smooth", "rough"])
    assert found.fit(IMAGE, LABELS) is found
    copy = clone(found)
    assert copy.get_params() == found.get_params()
    assert copy.backbone is found.backbone, "a model of hundreds of megabytes was copied"
    with pytest.raises(NotFittedError, match="call `fit`"):
        copy.predict(IMAGE)
    np.testing.assert_array_equal(copy.fit(IMAGE, LABELS).predict_proba(IMAGE), found.predict_proba(IMAGE))
    assert "logistic-regression" in repr(found)
    assert len(repr(found)) < 1000, "the layers of the model are no setting"


def test_settings_may_change_between_fits(hybrid):
    found = hybrid().fit(IMAGE, LABELS)
    expected = hybrid(classical=None, components=2, classifier="logistic-regression").fit(IMAGE, LABELS)
    found.set_params(classical=None, components=2, classifier="logistic-regression").fit(IMAGE, LABELS)
    np.testing.assert_array_equal(found.predict_proba(IMAGE), expected.predict_proba(IMAGE))


def frozen(array: np.ndarray) -> np.ndarray:
    """A copy that cannot be written to, as `np.load(mmap_mode="r")`, JAX and pandas give."""
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.filterwarnings("error")
def test_arrays_may_be_read_only(hybrid):
    image, labels = frozen(IMAGE), frozen(LABELS)
    for classifier in ("xgboost", "logistic-regression", "random-forest"):
        found = hybrid(classifier=classifier, guided_radius=0).fit(image, labels)
        np.testing.assert_array_equal(found.predict(image), found.predict(IMAGE))
        features = frozen(found.pixel_features(image).reshape(-1, found.classifier_.num_features))
        np.testing.assert_array_equal(
            found.classifier_.predict_proba(features).argmax(axis=-1).reshape(IMAGE.shape) + 1, found.predict(IMAGE)
        )
    grids = found.features_.grids(ArrayImage(image), 0)
    block = (slice(3, 40), slice(5, 60))
    deep = found.features_.deep
    for one, other in zip(deep.upsample([*map(frozen, grids)], block), deep.upsample(grids, block), strict=True):
        np.testing.assert_array_equal(one, other)
    CLASSICAL(frozen(IMAGE[..., None]))


def test_position_tells_apart_what_looks_the_same(hybrid, tmp_path):
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (80, 96), dtype=np.uint8) for _ in range(2)]
    labels = np.zeros((80, 96), dtype=np.uint8)
    labels[10:30, 20], labels[50:70, 70] = 1, 2
    truth = np.where(np.arange(80) < 40, 1, 2)[:, None].repeat(96, axis=1)
    scores = {}
    for position in ((), ("row",), ("column",)):
        # At one scale: there are few strokes for so many features that are of noise.
        found = hybrid(position=position, classifier="logistic-regression", scales=(1,)).fit(images[0], labels)
        scores[position] = (found.predict(images[1]) == truth).mean()
    assert scores["row",] > max(0.8, scores[()] + 0.1, scores["column",] + 0.1)
    found = hybrid(position=("row", "border")).fit(images[0], labels)
    assert found.pixel_features(images[1]).shape[-1] == hybrid().fit(images[0], labels).classifier_.num_features + 2
    found.features_ = replace(found.features_, block_size=32)
    rows = found.pixel_features(images[1])[:, 0, -2]
    np.testing.assert_allclose(rows, (np.arange(80) + 0.5) / 80, rtol=2**-11)  # half precision's rounding
    found.save(tmp_path / "saved")
    again = TrainableSegmenter.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict(images[1]), found.predict(images[1]))
    with pytest.raises(ValueError, match="give some of row, column, border"):
        hybrid(position="row").fit(images[0], labels)


@pytest.mark.parametrize("deep", [True, False])
def test_position_is_in_every_view_and_none_of_its_own(hybrid, deep):
    found = hybrid(position=("row", "column"))
    if not deep:
        found.set_params(backbone=None)
    found.fit(IMAGE, LABELS)
    views, count = found.features_.views(), found.classifier_.num_features
    assert len(views) == 2 + deep
    assert all({count - 2, count - 1} < set(view.tolist()) for view in views)
    assert len(views[0]) == count
