# SPDX-License-Identifier: Apache-2.0
"""Sums of trees against XGBoost, which goes through them pixel by pixel, and against scikit-learn's forest."""

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier

from alibi_dinov2.features.half_precision import from_ordered, to_ordered
from alibi_dinov2.segmentation import fast_trees
from alibi_dinov2.segmentation.fast_trees import TreeSums, are_small, count_splits
from alibi_dinov2.segmentation.forest_booster import forest_booster, read_forest
from alibi_dinov2.segmentation.pixel_classifiers import fit_classifier, load_classifier

FEATURES = 7


def samples(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features in half precision, of which the classes depend on two, with noise."""
    random = np.random.default_rng(seed)
    features = from_ordered(to_ordered(random.normal(size=(count, FEATURES)).astype(np.float32)))
    noisy = features[:, 2] * features[:, 5] + 0.3 * random.normal(size=count)
    return features, np.digitize(noisy, np.quantile(noisy, np.arange(1, classes) / classes))


def boosted(classes: int, depth: int, rounds: int) -> xgboost.Booster:
    """Trees of XGBoost's own growing."""
    features, targets = samples(300, classes)
    parameters = {"objective": "multi:softprob", "num_class": classes, "max_depth": depth, "nthread": 1}
    return xgboost.train(parameters, xgboost.DMatrix(features, targets), rounds)


@pytest.mark.parametrize(("classes", "depth", "rounds"), [(2, 1, 5), (3, 4, 20), (5, 8, 30)])
def test_margins_are_those_of_xgboost(classes, depth, rounds):
    booster = boosted(classes, depth, rounds)
    features, _ = samples(5000, classes, seed=1)
    expected = booster.inplace_predict(features, predict_type="margin")
    # Leaves are rounded to 2⁻²³ of the largest sum that there may be; there are some hundreds of them in a sum.
    np.testing.assert_allclose(TreeSums.of(booster).of_rows(features), expected, atol=1e-4)


def test_a_pixel_has_the_same_sum_wherever_it_lies(monkeypatch):
    sums = TreeSums.of(boosted(3, 4, 20))
    features, _ = samples(60 * 70, 3, seed=1)
    planes = to_ordered(features.T.copy()).reshape(FEATURES, 60, 70)
    whole = sums.of_columns(list(planes))
    np.testing.assert_array_equal(whole.reshape(-1, 3), sums.of_rows(features))
    np.testing.assert_array_equal(sums.of_columns(list(planes[:, 11:40, 5:66])), whole[11:40, 5:66])
    for name, value in (("PIXELS", 100), ("ROWS", 2), ("COUNT", 3)):
        monkeypatch.setattr(fast_trees, name, value)
        np.testing.assert_array_equal(sums.of_columns(list(planes)), whole)


def test_a_forest_is_scikit_learns_and_equal_votes_are_equal():
    features, targets = samples(60, 3)
    forest = RandomForestClassifier(10, random_state=0).fit(features, targets)
    trees = read_forest(forest.estimators_, [np.arange(FEATURES)] * 10)
    sums = TreeSums.of(forest_booster(trees, FEATURES))
    assert len(sums.trees) == 10, "the trees of a class are of one shape"
    others, _ = samples(4000, 3, seed=1)
    expected = forest.predict_proba(others)
    found = sums.of_rows(others)
    # Leaves are rounded to 4·10⁻⁷ here, and there are ten in a sum.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    tied = np.sort(np.round(expected, 6), axis=1)[:, -1] == np.sort(np.round(expected, 6), axis=1)[:, -2]
    assert tied.sum() > 20
    two = np.sort(found, axis=1)[tied, -2:]
    np.testing.assert_array_equal(two[:, 0], two[:, 1])


@pytest.mark.parametrize("name", ["stroke-forest", "random-forest"])
def test_a_forest_is_the_same_before_and_after_it_is_a_booster(name, tmp_path):
    features, targets = samples(200, 3)
    fitted = fit_classifier(name, features, targets, 3, threads=1)
    others, _ = samples(3000, 3, seed=1)
    found = fitted.predict_proba(others)
    assert "booster" not in vars(fitted), "strokes that are learned from live do not wait for it"
    fitted.save(tmp_path)
    np.testing.assert_array_equal(load_classifier(name, tmp_path).predict_proba(others), found)


def test_trees_without_a_split_are_sums_all_the_same():
    features = np.zeros((20, FEATURES), dtype=np.float32)
    parameters = {"objective": "multi:softprob", "num_class": 2, "base_score": 0.25}
    booster = xgboost.train(parameters, xgboost.DMatrix(features, np.arange(20) % 4 == 0), 3)
    expected = booster.inplace_predict(features, predict_type="margin")
    assert not TreeSums.of(booster).trees
    np.testing.assert_allclose(TreeSums.of(booster).of_rows(features), expected, atol=1e-6)


def test_large_trees_are_left_to_xgboost():
    features, targets = samples(20_000, 3)
    large = fit_classifier("random-forest", features, targets, 3, threads=1)
    small = fit_classifier("random-forest", features[:30], targets[:30], 3, threads=1)
    assert are_small(*count_splits(small.booster))
    assert not are_small(*count_splits(large.booster))
    assert large.sums is None
    planes = to_ordered(features[:600].T.copy()).reshape(FEATURES, 20, 30)
    for classifier in (small, large):
        found = classifier.predict_columns(list(planes)).reshape(-1, 3)
        np.testing.assert_array_equal(found, classifier.predict_proba(features[:600]))
