# SPDX-License-Identifier: Apache-2.0
"""Classifiers learn what there is to learn, say no to bad labels, and come back from disk the same to the bit."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.class_weight import compute_sample_weight

from alibi_dinov2.segmentation import pixel_classifiers
from alibi_dinov2.segmentation.forest_booster import forest_booster, read_forest
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS, fit_classifier, load_classifier

FORESTS = ("random-forest", "stroke-forest")
LOADING = """
import sys, numpy as np
from alibi_dinov2.segmentation.forest_booster import forest_booster
from alibi_dinov2.segmentation.pixel_classifiers import load_classifier
name, folder = sys.argv[1:]
features = np.load(f"{folder}/features.npy")
np.save(f"{folder}/found.npy", load_classifier(name, folder).predict_proba(features))
"""


def samples(count, num_classes=3, seed=0):
    """Features `(N, 8)` of classes that a line can part, far from 0 and of unlike scales; most are of class 0."""
    random = np.random.default_rng(seed)
    classes = random.choice(num_classes, count, p=[0.8] + [0.2 / (num_classes - 1)] * (num_classes - 1))
    classes[:num_classes] = range(num_classes)
    centres = np.eye(8)[:num_classes] * 4
    features = (centres[classes] + random.normal(size=(count, 8))) * np.logspace(-2, 2, 8) + 100
    return features.astype(np.float32), classes


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(pixel_classifiers, "TREES", 15)
    monkeypatch.setattr(pixel_classifiers, "FOREST_TREES", 15)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_of_new_pixels_are_found_and_probabilities_add_up(name, num_classes):
    classifier = fit_classifier(name, *samples(400, num_classes), num_classes, threads=1)
    features, expected = samples(1000, num_classes, seed=1)
    found = classifier.predict_proba(features)
    assert found.dtype == np.float32
    assert found.shape == (1000, num_classes)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)  # float32
    # Clusters 4√2 standard deviations apart: a line errs in 0.2 %, trees do worse.
    assert (found.argmax(axis=1) == expected).mean() > 0.93


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_rare_classes_weigh_as_much_as_frequent_ones(name):
    features = np.zeros((100, 2), dtype=np.float32)
    classes = np.repeat([0, 1], [90, 10])
    (found,) = fit_classifier(name, features, classes, 2, threads=1).predict_proba(features[:1])
    # No feature parts them, so that the weights decide; of the forest's trees each has a sample of its own.
    np.testing.assert_allclose(found, [0.5, 0.5], atol=0.12 if name == "random-forest" else 1e-4)


def test_xgboost_is_its_scikit_learn_interface_set_as_in_the_paper():
    features, classes = samples(400)
    expected = xgboost.XGBClassifier(max_depth=8, n_estimators=15, n_jobs=1)
    expected.fit(features, classes, sample_weight=compute_sample_weight("balanced", classes))
    found = fit_classifier("xgboost", features, classes, 3, threads=1).predict_proba(features)
    # Leaves are rounded so that their sum is exact, see `fast_trees`.
    np.testing.assert_allclose(found, expected.predict_proba(features), atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logistic_regression_is_scikit_learns_on_standardised_features(num_classes):
    features, classes = samples(400, num_classes)
    expected = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    expected.fit(features.astype(np.float64), classes)
    found = fit_classifier("logistic-regression", features, classes, num_classes).predict_proba(features)
    # The weights are kept, and applied, in float32; logits reach 30.
    np.testing.assert_allclose(found, expected.predict_proba(features.astype(np.float64)), atol=2e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_seed_decides_and_number_of_threads_does_not(name):
    features, classes = samples(600)
    first, second, other = (
        fit_classifier(name, features, classes, 3, seed=seed, threads=threads).predict_proba(features)
        for seed, threads in ((0, 1), (0, 3), (1, 1))
    )
    # A forest adds its trees up in the order in which threads finish.
    np.testing.assert_allclose(first, second, atol=1e-6 if name in FORESTS else 0)
    assert np.array_equal(first, other) == (name not in FORESTS)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_features_of_any_layout_and_type_and_no_pixels_at_all_are_predicted(name):
    features, classes = samples(300)
    classifier = fit_classifier(name, features, classes.astype(np.uint8), 3, threads=1)
    expected = classifier.predict_proba(features)
    np.testing.assert_array_equal(classifier.predict_proba(np.asfortranarray(features.astype(np.float64))), expected)
    assert classifier.predict_proba(features[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_saved_classifier_predicts_the_same_to_the_bit_in_a_fresh_process(name, tmp_path):
    classifier = fit_classifier(name, *samples(400), 3, threads=1)
    features, _ = samples(1000, seed=1)
    classifier.save(tmp_path)
    np.save(tmp_path / "features.npy", features)
    subprocess.run([sys.executable, "-c", LOADING, name, str(tmp_path)], check=True)
    expected = classifier.predict_proba(features)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected)
    loaded = load_classifier(name, tmp_path, threads=2)
    assert (loaded.num_features, loaded.num_classes) == (8, 3)
    np.testing.assert_array_equal(loaded.predict_proba(features), expected)


def test_random_forest_is_scikit_learns():
    features, classes = samples(400)
    forest = RandomForestClassifier(
        pixel_classifiers.FOREST_TREES, class_weight="balanced", random_state=3, n_jobs=1
    ).fit(features, classes)
    found = fit_classifier("random-forest", features, classes, 3, seed=3, threads=1)
    others, _ = samples(2000, seed=1)
    for pixels in (features, others):
        # Shares of a hundred trees are added up in float32.
        np.testing.assert_allclose(found.predict_proba(pixels), forest.predict_proba(pixels), atol=1e-5)


def test_a_threshold_is_on_the_same_side_in_single_precision():
    steps = np.linspace(-1, 1, 50, dtype=np.float32)
    values = np.concatenate([steps, np.nextafter(steps, np.float32(-9)), np.nextafter(steps, np.float32(9))])
    features, classes = values[:, None], (np.argsort(np.argsort(values)) % 2)
    tree = DecisionTreeClassifier(random_state=0).fit(features, classes)
    booster = forest_booster(read_forest([tree], [np.arange(1)]), 1, threads=1)
    shares = booster.inplace_predict(features, predict_type="margin")
    np.testing.assert_array_equal(shares, tree.predict_proba(features).astype(np.float32))


@pytest.mark.parametrize("num_classes", [2, 3, 9])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "random-forest"])
def test_a_pixel_or_two_of_each_class_are_learned_from(name, count, num_classes):
    """All but the random forest, half of whose trees have not seen a class of which there is a single pixel."""
    features = np.eye(num_classes, dtype=np.float32).repeat(count, axis=0)
    classifier = fit_classifier(name, features, np.arange(num_classes).repeat(count), num_classes, threads=1)
    assert (classifier.predict_proba(features).argmax(axis=1) == np.arange(num_classes).repeat(count)).all()


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"", lambda content: content + b" "])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_damaged_file_is_refused(name, damage, tmp_path):
    fit_classifier(name, *samples(50), 3, threads=1).save(tmp_path)
    (path,) = tmp_path.glob("classifier.[us]*")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        load_classifier(name, tmp_path)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_damaged_record_and_missing_files_are_refused(name, tmp_path):
    fit_classifier(name, *samples(50), 3, threads=1).save(tmp_path)
    record = tmp_path / "classifier.json"
    for text in ("{", "[]", "\xff"):
        record.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="is damaged"):
            load_classifier(name, tmp_path)
    record.unlink()
    with pytest.raises(FileNotFoundError, match=f"classifier.json is missing.*{name}"):
        load_classifier(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=f"is missing.*{name}"):
        load_classifier(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("xgboost", b"nothing of XGBoost"),
        ("xgboost", bytes(xgboost.train({}, xgboost.DMatrix(np.eye(3), np.arange(3)), 1).save_raw("ubj"))),
        ("logistic-regression", safetensors.numpy.save({"mean": np.zeros(3)})),
        ("logistic-regression", safetensors.numpy.save({name: np.zeros(3) for name in ("mean", "weights", "bias")})),
        (
            "logistic-regression",
            safetensors.numpy.save({"mean": np.zeros(3), "weights": np.zeros((4, 2)), "bias": np.zeros(2)}),
        ),
    ],
)
def test_whole_file_of_something_else_is_refused(name, content, tmp_path, monkeypatch):
    kind = pixel_classifiers.KINDS[name]
    classifier = fit_classifier(name, *samples(50), 3, threads=1)
    monkeypatch.setattr(kind, "to_bytes", lambda self: content)
    classifier.save(tmp_path)
    with pytest.raises(
        ValueError, match=r"is damaged \((XGBoost cannot|it is no classifier|it does not hold|its mean)"
    ):
        load_classifier(name, tmp_path)


def test_saving_needs_a_folder_and_leaves_no_half_file(tmp_path, monkeypatch):
    classifier = fit_classifier("logistic-regression", *samples(50), 3)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        classifier.save(tmp_path / "nowhere")

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        classifier.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_record_holds_the_checksum_alone(tmp_path):
    fit_classifier("xgboost", *samples(50), 3, threads=1).save(tmp_path)
    record = json.loads((tmp_path / "classifier.json").read_text())
    assert record.keys() == {"file", "sha256"}
    assert record["file"] == "classifier.ubj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "svm"},
            "no classifier 'svm'; choose from stroke-forest, xgboost, random-forest, logistic",
        ),
        ({"threads": 0}, "0 threads"),
        ({"num_classes": 1, "classes": np.zeros(50, dtype=int)}, "1 class; a classifier needs 2"),
        ({"num_classes": 4}, r"No pixel is labelled as class \[3\] of 0 to 3"),
        ({"num_classes": 2}, r"Classes are 0 to 1; there is \[2\] too"),
        ({"classes": np.zeros(50)}, "float64 of shape .* must be integers"),
        ({"classes": np.arange(49) % 3}, r"shape \(49,\).*50 pixels"),
        ({"features": np.ones(50)}, r"shape \(50,\); they must be \(pixels, features\)"),
        ({"features": np.ones((50, 0))}, r"shape \(50, 0\)"),
        ({"features": np.full((50, 2), np.nan)}, "NaN or infinite"),
        ({"features": np.full((50, 2), -np.inf)}, "NaN or infinite"),
    ],
)
def test_bad_labels_and_features_are_refused(change, message):
    features, classes = samples(50)
    arguments = {"name": "xgboost", "features": features, "classes": classes, "num_classes": 3, "threads": 1}
    with pytest.raises(ValueError, match=message):
        fit_classifier(**arguments | change)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_bad_features_are_refused_at_prediction(name):
    features, classes = samples(50)
    classifier = fit_classifier(name, features, classes, 3, threads=1)
    with pytest.raises(ValueError, match="7 features; this classifier was fitted on 8"):
        classifier.predict_proba(features[:, 1:])
    features[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        classifier.predict_proba(features)


def test_xgboost_prints_nothing_and_its_settings_stay(tmp_path, capfd):
    before = xgboost.get_config()
    fit_classifier("xgboost", *samples(50), 3, threads=1).save(tmp_path)
    load_classifier("xgboost", tmp_path)
    assert xgboost.get_config() == before
    assert capfd.readouterr() == ("", "")
