# SPDX-License-Identifier: Apache-2.0
"""A saved segmenter is the same anywhere, and whatever is done to its files is told."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alibi_dinov2.features.backbone import Removal, load_backbone
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.segmentation import saved_segmenter
from alibi_dinov2.segmentation.saved_segmenter import read_settings
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from tests.alibi_dinov2.segmentation.materials import CLASSICAL, IMAGE, LABELS, WINDOWS

REPOSITORY = Path(__file__).parents[3]


def test_a_fresh_process_predicts_the_same(hybrid, tmp_path):
    kinds = ("xgboost", "logistic-regression")
    fitted = {kind: hybrid(classifier=kind, class_names=["smooth", "rough"]).fit(IMAGE, LABELS) for kind in kinds}
    for kind, found in fitted.items():
        found.save(tmp_path / kind)
    np.save(tmp_path / "image.npy", IMAGE)
    program = (
        "import sys, numpy as np\n"
        "from alibi_dinov2.segmentation.segmenter import TrainableSegmenter\n"
        "image = np.load('image.npy')\n"
        "for kind in sys.argv[1:]:\n"
        "    found = TrainableSegmenter.load(kind)\n"
        "    np.savez(kind + '.npz', mask=found.predict(image), probabilities=found.predict_proba(image))\n"
        "    print(found.identity_, *found.class_names)\n"
    )
    environment = {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, *kinds]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for (kind, found), line in zip(fitted.items(), done.stdout.splitlines(), strict=True):
        assert line.split() == [found.identity_, "smooth", "rough"]
        result = np.load(tmp_path / f"{kind}.npz")
        np.testing.assert_array_equal(result["mask"], found.predict(IMAGE))
        # Another process may have other threads, which sum in another order.
        np.testing.assert_allclose(result["probabilities"], found.predict_proba(IMAGE), atol=1e-4)
        assert not [path for path in (tmp_path / kind).iterdir() if path.suffix in (".pkl", ".pickle", ".joblib")]


def test_a_classical_segmenter_needs_no_backbone(tmp_path):
    found = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)
    found.save(tmp_path / "saved")
    again = TrainableSegmenter.load(tmp_path / "saved")
    assert again.backbone is None
    assert again.identity_ == found.identity_
    np.testing.assert_array_equal(again.predict(IMAGE), found.predict(IMAGE))
    assert found.fit(IMAGE, LABELS).identity_ is None


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    found = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_segmenter, "write_json", full)
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
    assert TrainableSegmenter.load(tmp_path / "saved", moved, cache=FeatureCache(tmp_path / "cache")).components == 4


@pytest.mark.filterwarnings("ignore:bfloat16 may be slower")
def test_the_dtype_of_the_backbone_is_saved_and_another_one_refused(backbone_folder, tmp_path):
    source, folders = backbone_folder(), {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        folders[name] = tmp_path / name
        fitted = TrainableSegmenter(load_backbone(source, dtype=dtype), None, **WINDOWS).fit(IMAGE, LABELS)
        fitted.save(folders[name])
        loaded = TrainableSegmenter.load(folders[name])
        assert loaded.backbone.model.dtype == dtype
        np.testing.assert_array_equal(loaded.predict_proba(IMAGE), fitted.predict_proba(IMAGE))
    with pytest.raises(ValueError, match="is not the backbone"):
        TrainableSegmenter.load(folders["bfloat16"], load_backbone(source))
    # Segmenters of the time before there was a choice say nothing of it, and keep their checksum.
    assert "dtype" not in json.loads((folders["float32"] / "segmenter.json").read_text())["backbone"]


def test_a_removal_is_no_model_to_save(hybrid, tmp_path):
    found = hybrid()
    removal = Removal("blank", {}, 1, lambda features, pixels: features(pixels))
    found = TrainableSegmenter(replace(found.backbone, removal=removal), CLASSICAL, **WINDOWS).fit(IMAGE, LABELS)
    with pytest.raises(ValueError, match="blank is no model"):
        found.save(tmp_path / "saved")


def test_no_path_of_this_machine_is_saved(hybrid, tmp_path):
    hybrid().fit(IMAGE, LABELS).save(tmp_path / "work" / "saved")
    content = b"".join(path.read_bytes() for path in (tmp_path / "work" / "saved").iterdir())
    assert str(tmp_path).encode() not in content
    assert read_settings(tmp_path / "work" / "saved").backbone.folder == "../../backbone"


@pytest.mark.parametrize("move", ["everything", "beside", "from another folder"])
def test_a_backbone_is_found_where_it_lay_as_seen_from_the_segmenter(hybrid, tmp_path, monkeypatch, move):
    found = hybrid().fit(IMAGE, LABELS)
    (tmp_path / "work").mkdir()
    found.save(tmp_path / "work" / "saved")
    folder = tmp_path / "work" / "saved"
    if move == "everything":
        (tmp_path / "elsewhere").mkdir()
        for name in ("work", "backbone"):
            shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
        folder = tmp_path / "elsewhere" / "work" / "saved"
    elif move == "beside":
        shutil.move(tmp_path / "backbone", tmp_path / "work" / "backbone")
    else:
        monkeypatch.chdir(folder)
        folder = Path()
    again = TrainableSegmenter.load(folder)
    assert again.identity_ == found.identity_
    np.testing.assert_array_equal(again.predict(IMAGE), found.predict(IMAGE))


def test_a_backbone_of_the_hub_keeps_its_id(hybrid, tmp_path):
    found = hybrid()
    found.set_params(backbone=replace(found.backbone, source="somebody/model")).fit(IMAGE, LABELS)
    found.save(tmp_path / "saved")
    backbone = read_settings(tmp_path / "saved").backbone
    assert (backbone.name, backbone.on_hub, backbone.folder) == ("somebody/model", True, None)


def test_other_files_in_the_folder_change_nothing(hybrid, tmp_path):
    found = hybrid().fit(IMAGE, LABELS)
    found.save(tmp_path / "saved")
    for name in ("._segmenter.json", ".DS_Store", "notes.txt", "Thumbs.db"):
        (tmp_path / "saved" / name).write_bytes(b"\0\5\x16\7")
    assert TrainableSegmenter.load(tmp_path / "saved").identity_ == found.identity_


@pytest.fixture
def loads(hybrid, tmp_path):
    """`loads()`: whether the saved segmenter in `tmp_path / "saved"` can be loaded; if not, only for our reason."""
    found = hybrid(classifier="logistic-regression").fit(IMAGE, LABELS)
    found.save(tmp_path / "saved")

    def attempt() -> bool:
        try:
            again = TrainableSegmenter.load(tmp_path / "saved", found.backbone)
        except ValueError as error:
            told = str(error)
            if "saved" in told and ("Take an intact copy" in told or "Save the classifier again" in told):
                return False
            raise
        return again.identity_ == found.identity_

    assert attempt()
    return attempt


def test_any_damage_to_any_file_is_told(loads, tmp_path):
    random = np.random.default_rng(0)
    files = sorted((tmp_path / "saved").iterdir())
    assert len(files) == 5  # settings, a reduction for each scale, the classifier in two
    for path in files:
        content = path.read_bytes()
        damaged = [content[: len(content) // 2], b"", content + b"x", b"[" * 100_000, b"\xff" * 50]
        for _ in range(50):
            changed = bytearray(content)
            changed[random.integers(len(content))] ^= 1 << random.integers(8)
            damaged.append(bytes(changed))
        for changed in damaged:
            path.write_bytes(changed)
            # White space and the escaping of characters carry nothing.
            assert not loads() or json.loads(changed) == json.loads(content)
        path.unlink()
        if path.name == "segmenter.json":
            with pytest.raises(FileNotFoundError, match="holds no segmenter"):
                loads()
        else:
            assert not loads()
        path.write_bytes(content)
    assert loads()


def edits(value, path=()):
    """Every way to remove a part of a JSON value or to put something else in its place."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield {name: other for name, other in value.items() if name != key}
            for changed in edits(part):
                yield value | {key: changed}
    for other in (None, -1, "text", [], {}, [value]):
        if other != value:
            yield other


def test_any_edit_of_the_settings_is_told(loads, tmp_path):
    path = tmp_path / "saved" / "segmenter.json"
    settings = json.loads(path.read_text())
    for changed in edits(settings):
        path.write_text(json.dumps(changed))
        assert not loads()


def test_one_of_another_version_is_told(tmp_path, monkeypatch):
    found = TrainableSegmenter(classical=CLASSICAL).fit(IMAGE, LABELS)
    parameters = found.get_params(deep=False) | {"sharpness": 2}
    monkeypatch.setattr(found, "get_params", lambda deep: parameters)
    found.save(tmp_path / "newer")
    with pytest.raises(ValueError, match=r"newer was saved by another version .*sharpness"):
        TrainableSegmenter.load(tmp_path / "newer")
    monkeypatch.setattr(saved_segmenter, "FORMAT", 2)
    with pytest.raises(ValueError, match=r"its format is 1, this version of the package reads 2"):
        TrainableSegmenter.load(tmp_path / "newer")


def test_one_that_was_saved_before_a_filter_and_scales_predicts_as_then(hybrid, tmp_path, monkeypatch):
    found = hybrid(guided_radius=0, position=(), scales=(1,)).fit(IMAGE, LABELS)
    parameters, new = found.get_params(deep=False), ("guided_radius", "position", "scales")
    old = {name: value for name, value in parameters.items() if name not in new}
    monkeypatch.setattr(TrainableSegmenter, "get_params", lambda *_, **__: old)
    found.save(tmp_path / "saved")
    monkeypatch.undo()
    again = TrainableSegmenter.load(tmp_path / "saved")
    assert (again.guided_radius, list(again.scales)) == (0, [1])
    np.testing.assert_array_equal(again.predict_proba(IMAGE), found.predict_proba(IMAGE))


@pytest.mark.parametrize("scales", [(2,), (1, 2, 3)])
def test_each_scale_has_its_reduction(hybrid, tmp_path, scales):
    found = hybrid(scales=scales).fit(IMAGE, LABELS)
    found.save(tmp_path / "saved")
    assert len(list((tmp_path / "saved").glob("reduction*.safetensors"))) == len(scales)
    again = TrainableSegmenter.load(tmp_path / "saved")
    assert list(again.scales) == list(scales)
    np.testing.assert_array_equal(again.predict_proba(IMAGE), found.predict_proba(IMAGE))
