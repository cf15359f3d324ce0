# SPDX-License-Identifier: Apache-2.0
"""Position helps where layers look alike, misleads where labels are one-sided, and the command records both."""

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.report.card import by_model, results_table
from evaluation.report.records import read_record
from evaluation.segmentation import position_features
from evaluation.segmentation.position_features import segment_layers
from tests.alibi_dinov2.segmentation.materials import CLASSICAL
from tests.evaluation.segmentation.test_biased_labels import as_image, material, one_sided


def test_position_helps_in_layers_that_look_alike():
    found = [
        segment_layers(TrainableSegmenter(classical=CLASSICAL, classifier="stroke-forest", position=position), 2, 1)
        for position in ((), ("row",))
    ]
    without, with_ = (layered.mious[0] for layered in found)
    assert with_ > without + 0.1
    np.testing.assert_array_equal(found[0].strokes, found[1].strokes)


def test_command_writes_a_record_and_a_picture(tmp_path, model_folder, capsys, monkeypatch):
    (tmp_path / "grains").mkdir()
    phases = material()
    Image.fromarray(as_image(phases)).save(tmp_path / "grains" / "image.png")
    Image.fromarray(one_sided(phases)).save(tmp_path / "labels.png")
    make_image = position_features.make_image
    small = lambda recipe, seed: [part[::4, ::4] for part in make_image(recipe, seed)]  # noqa: E731
    monkeypatch.setattr(position_features, "make_image", small)
    options = ["--models", model_folder, "--names", "tiny", "--image", tmp_path / "grains" / "image.png"]
    options += ["--labels", tmp_path / "labels.png", "--classifier", "logistic-regression", "--window", 112]
    options += ["--overlap", 0, "--components", 2, "--cache", tmp_path / "cache", "--rounds", 1, "--seeds", 2]
    options += ["--output-folder", tmp_path / "records", "--figure", tmp_path / "position.png"]
    with pytest.raises(SystemExit) as ended:
        position_features.main([str(option) for option in options])
    assert ended.value.code == 0
    (path,) = (tmp_path / "records").iterdir()
    record = read_record(path)
    metrics = record["metrics"]
    assert metrics["layers/classical/with/miou"] > metrics["layers/classical/without/miou"]
    assert metrics["biased/deep/with/position_explains"] > metrics["biased/deep/without/position_explains"]
    assert record["spread"].keys() >= {"layers/combined/with/miou"}
    assert record["parameters"]["position"] == ["row", "column"]
    assert "position" in results_table(by_model([record]))
    assert f"{metrics['layers/deep/with/miou']:.3f}" in capsys.readouterr().out
    with Image.open(tmp_path / "position.png") as picture:
        assert picture.width > 2 * picture.height * 0.8
