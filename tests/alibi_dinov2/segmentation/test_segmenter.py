# SPDX-License-Identifier: Apache-2.0
"""The segmenter on a tiny random backbone and images of two materials, smooth and rough."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from alibi_dinov2.features import deep_features
from alibi_dinov2.features.backbone import Removal, load_backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.segmentation import segmenter
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

REPOSITORY = Path(__file__).parents[3]
CLASSICAL = ClassicalFeatures(sigmas=(1.0, 2.0), membrane=False)
WINDOWS = {"window": 56, "overlap": 14, "components": 4}


def materials(seed: int = 0, height: int = 80, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """An image with smooth and rough regions, and its truth, 1 and 2."""
    random = np.random.default_rng(seed)
    rough = gaussian_filter(random.normal(size=(height, width)), 8) > 0
    noise = random.normal(size=(height, width))
    image = 128 + np.where(rough, 40 * noise, 12 * gaussian_filter(noise, 3))
    return image.clip(0, 255).astype(np.uint8), rough + np.uint8(1)


def scribbles(truth: np.ndarray, seed: int = 0, count: int = 40) -> np.ndarray:
    """A few labelled pixels of each class."""
    labels, random = np.zeros_like(truth), np.random.default_rng(seed)
    for label in np.unique(truth):
        rows, columns = random.permutation(np.argwhere(truth == label))[:count].T
        labels[rows, columns] = label
    return labels


@pytest.fixture
def backbone_folder(tmp_path, tiny_model):
    """`backbone_folder(name, **overrides)`: a saved tiny model."""

    def make(name="backbone", **overrides):
        tiny_model(**overrides).save_pretrained(tmp_path / name)
        Dinov2AlibiImageProcessor().save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def hybrid(backbone_folder):
    """`hybrid(**overrides)`: a segmenter with both kinds of features."""

    def make(**overrides):
        return TrainableSegmenter(load_backbone(backbone_folder()), **({"classical": CLASSICAL} | WINDOWS | overrides))

    return make


IMAGE, TRUTH = materials()
LABELS = scribbles(TRUTH)


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
    deep = TrainableSegmenter(both.deep.backbone, classical=None, **WINDOWS).fit(IMAGE, LABELS)
    parts = [segmenter.pixel_features(IMAGE) for segmenter in (classical, deep)]
    np.testing.assert_array_equal(both.pixel_features(IMAGE), np.concatenate(parts, axis=-1))
    assert parts[0].shape[-1] == len(CLASSICAL.names(1))
    assert parts[1].shape[-1] == WINDOWS["components"]
    np.testing.assert_array_equal(parts[0], CLASSICAL(IMAGE[..., None]))


def test_blocks_leave_no_seams(hybrid, monkeypatch):
    whole = hybrid().fit(IMAGE, LABELS)
    expected, mask = whole.pixel_features(IMAGE), whole.predict(IMAGE)
    monkeypatch.setattr(segmenter, "BLOCK", 32)
    # Sums of float32 in another order.
    np.testing.assert_allclose(whole.pixel_features(IMAGE), expected, atol=1e-4)
    in_blocks = hybrid().fit(IMAGE, LABELS)
    assert (in_blocks.predict(IMAGE) == mask).mean() > 0.99
    wanted = [number for number, _, _ in in_blocks.predict_blocks(ArrayImage(IMAGE), skip=lambda number: number != 4)]
    assert wanted == [4]


def test_classes_may_have_gaps_and_live_in_different_images(hybrid):
    other, truth = materials(seed=5)
    first, second = np.where(LABELS == 1, 1, 0), np.where(scribbles(truth) == 2, 3, 0)
    found = hybrid(class_names=["smooth", "rough"]).fit([IMAGE, other, IMAGE], [first, second, np.zeros_like(first)])
    assert found.classes_.tolist() == [1, 3]
    assert set(np.unique(found.predict(IMAGE))) == {1, 3}


def test_slices_of_a_stack_are_images(hybrid):
    other, truth = materials(seed=5)

    class Stack(ArrayImage):
        slices = 2

        def read(self, index, rows, columns):
            return np.repeat([IMAGE, other][index][rows, columns, None], 3, axis=-1)

    stacked = hybrid().fit(Stack(IMAGE), np.stack([LABELS, scribbles(truth)]))
    apart = hybrid().fit([IMAGE, other], [LABELS, scribbles(truth)])
    ((_, _, second),) = stacked.predict_blocks(Stack(IMAGE), 1)
    np.testing.assert_array_equal(second, apart.predict_proba(other))


def test_colour_counts_if_an_image_to_learn_from_has_it():
    random = np.random.default_rng(0)
    red = np.zeros((*TRUTH.shape, 3), dtype=np.uint8)
    # Of the same grey: only the hue tells the classes apart.
    red[TRUTH == 1], red[TRUTH == 2] = (100, 49, 0), (0, 100, 0)
    red += random.integers(0, 3, red.shape, dtype=np.uint8)
    found = TrainableSegmenter(classical=CLASSICAL).fit(red, LABELS)
    assert found.colour_
    assert (found.predict(red) == TRUTH).mean() > 0.95
    assert found.predict(IMAGE).shape == IMAGE.shape
    grey = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)
    assert not grey.colour_
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
    assert sorted(computed) == ["classical", *["deep"] * 4]
    before = found.predict_proba(IMAGE)
    computed.clear()
    found.fit(IMAGE, np.where(LABELS > 0, LABELS, scribbles(TRUTH, seed=1)))
    assert computed == []
    assert not np.array_equal(found.predict_proba(IMAGE), before)


def test_pixels_beyond_the_limit_are_not_learned_from(hybrid, monkeypatch):
    seen = []
    original = segmenter.fit_classifier
    monkeypatch.setattr(segmenter, "fit_classifier", lambda *given: seen.append(given[1].shape) or original(*given))
    hybrid(max_pixels=100).fit(IMAGE, TRUTH)
    assert 98 <= seen[0][0] <= 101


@pytest.mark.parametrize("classifier", ["xgboost", "logistic-regression"])
def test_a_fresh_process_predicts_the_same(hybrid, tmp_path, classifier):
    found = hybrid(classifier=classifier, class_names=["smooth", "rough"]).fit(IMAGE, LABELS)
    assert found.identity is None
    found.save(tmp_path / "saved")
    np.save(tmp_path / "image.npy", IMAGE)
    program = (
        "import sys, numpy as np\n"
        "from alibi_dinov2.segmentation.segmenter import TrainableSegmenter\n"
        "found = TrainableSegmenter.load('saved')\n"
        "image = np.load('image.npy')\n"
        "np.savez('found.npz', mask=found.predict(image), probabilities=found.predict_proba(image))\n"
        "print(found.identity, *found.class_names)\n"
    )
    environment = {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [found.identity, "smooth", "rough"]
    result = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(result["mask"], found.predict(IMAGE))
    # Another process may have other threads, which sum in another order.
    np.testing.assert_allclose(result["probabilities"], found.predict_proba(IMAGE), atol=1e-4)
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]


def test_a_classical_segmenter_needs_no_backbone(tmp_path):
    found = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)
    found.save(tmp_path / "saved")
    again = TrainableSegmenter.load(tmp_path / "saved")
    assert again.deep is None
    assert again.identity == found.identity
    np.testing.assert_array_equal(again.predict(IMAGE), found.predict(IMAGE))
    assert found.fit(IMAGE, LABELS).identity is None


def test_a_random_forest_cannot_be_saved(tmp_path):
    found = TrainableSegmenter(classical=CLASSICAL, classifier="random-forest").fit(IMAGE, LABELS)
    with pytest.raises(ValueError, match="pickle"):
        found.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    found = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segmenter, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        found.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_another_backbone_is_refused(hybrid, backbone_folder, tmp_path):
    hybrid().fit(IMAGE, LABELS).save(tmp_path / "saved")
    other = load_backbone(backbone_folder("other", seed=3))
    with pytest.raises(ValueError, match=r"not the backbone that .*saved was fitted with"):
        TrainableSegmenter.load(tmp_path / "saved", other)
    (tmp_path / "backbone").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"backbone, the backbone of .*saved, cannot be loaded"):
        TrainableSegmenter.load(tmp_path / "saved")
    moved = load_backbone(tmp_path / "moved")
    assert (
        TrainableSegmenter.load(tmp_path / "saved", moved, cache=FeatureCache(tmp_path / "cache")).deep.components == 4
    )


def test_a_removal_is_no_model_to_save(hybrid, tmp_path):
    found = hybrid()
    removal = Removal("blank", {}, 1, lambda features, pixels: features(pixels))
    found = TrainableSegmenter(replace(found.deep.backbone, removal=removal), CLASSICAL, **WINDOWS).fit(IMAGE, LABELS)
    with pytest.raises(ValueError, match="blank is no model"):
        found.save(tmp_path / "saved")


def test_damage_is_told(hybrid, tmp_path):
    folder = tmp_path / "saved"
    hybrid().fit(IMAGE, LABELS).save(folder)
    with pytest.raises(FileNotFoundError, match="holds no segmenter"):
        TrainableSegmenter.load(tmp_path)
    for name, message in (("reduction.safetensors", "damaged"), ("segmenter.json", "damaged")):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:40])
        with pytest.raises(ValueError, match=message):
            TrainableSegmenter.load(folder)
        (folder / name).write_bytes(content)
    settings = json.loads((folder / "segmenter.json").read_text())
    settings.pop("classes")
    (folder / "segmenter.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="incomplete"):
        TrainableSegmenter.load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classical": None}, "neither a backbone nor classical"),
        ({"classifier": "svm"}, "must be one of xgboost"),
        ({"max_pixels": 1}, "must be 2 or more"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainableSegmenter(**settings)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGE, LABELS.T, "its image"),
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


def test_a_refit_that_fails_leaves_what_was_learned_or_nothing(monkeypatch):
    found = TrainableSegmenter(classical=CLASSICAL, class_names=["smooth", "rough"]).fit(IMAGE, LABELS)
    before = found.predict(IMAGE)
    three = np.where(TRUTH == 1, LABELS, 3 * (LABELS > 0))
    three[0, 0] = 2
    for labels in (np.zeros_like(LABELS), LABELS[1:], three):
        with pytest.raises(ValueError, match=r"mark nothing|its image|2 class names"):
            found.fit(IMAGE, labels)
        np.testing.assert_array_equal(found.predict(IMAGE), before)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(segmenter, "fit_classifier", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.fit(IMAGE, LABELS)
    with pytest.raises(ValueError, match="call `fit`"):
        found.predict(IMAGE)


def test_names_must_fit_the_classes():
    with pytest.raises(ValueError, match="1 class names for classes"):
        TrainableSegmenter(classical=CLASSICAL, class_names=["smooth"]).fit(IMAGE, LABELS)


def test_nothing_is_predicted_before_something_was_learned(tmp_path):
    new = TrainableSegmenter(classical=CLASSICAL)
    for use in (new.predict, new.pixel_features, lambda _: new.save(tmp_path / "saved")):
        with pytest.raises(ValueError, match="call `fit`"):
            use(IMAGE)
