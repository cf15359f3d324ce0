# SPDX-License-Identifier: Apache-2.0
"""The metrics for the library `evaluate` say what the package says, stand alone and need no network."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from huggingface_hub import RepoCard

from evaluation.metrics.miou.miou import MeanIoU
from evaluation.metrics.positional_score.positional_score import PositionalScore
from evaluation.position.positional_probe import probe_images, summarise
from evaluation.semantics.miou import confusion_matrix, iou_per_class, mean_iou, pixel_accuracy

FOLDERS = Path(__file__).parents[2] / "evaluation" / "metrics"
# Run in a new process elsewhere, in which a connection is an error and the repository is not known.
ALONE = """
import os
import socket
import sys

def refuse(*_):
    raise AssertionError("a metric asked for the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path[:] = [entry for entry in sys.path if not os.path.isdir(os.path.join(entry, "evaluation"))]
import importlib.util
assert importlib.util.find_spec("evaluation") is None

import json
import evaluate
import numpy as np

features = np.random.default_rng(0).normal(size=(9, 10, 4))
results = {
    "positional_score": evaluate.load("metrics/positional_score").compute(predictions=[features], repeats=2),
    "miou": evaluate.load("metrics/miou").compute(predictions=[[[0, 1]]], references=[[[0, 0]]], num_classes=2),
}
print(json.dumps(results))
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """`evaluate` keeps inputs in files; these are to be the test's own."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")


def feature_maps() -> list[np.ndarray]:
    """Features of two images of different sizes, with some position in them."""
    random = np.random.default_rng(0)
    maps = [random.normal(size=(*grid, 5)).astype(np.float32) for grid in ((12, 9), (8, 14))]
    for image in maps:
        image[..., 2] += np.linspace(0, 3, image.shape[1])
    return maps


def test_positional_score_is_that_of_the_package():
    maps = feature_maps()
    for options in ({}, {"repeats": 3, "fraction": 0.2, "seed": 7}):
        found = PositionalScore().compute(predictions=maps, **options)
        expected = summarise(probe_images(maps, **options))
        # Two exact solvers in double precision.
        assert found == pytest.approx(expected, abs=1e-9)


def test_features_may_come_image_by_image():
    maps = feature_maps()
    metric = PositionalScore()
    for image in maps:
        metric.add(prediction=image)
    assert metric.compute() == PositionalScore().compute(predictions=maps)


def test_positional_score_of_position_itself_and_of_constants():
    x, y = np.meshgrid(np.linspace(0, 1, 30), np.linspace(0, 1, 30))
    assert PositionalScore().compute(predictions=[np.stack([x, y], axis=-1)])["r2_held_out"] > 0.95
    assert PositionalScore().compute(predictions=[np.ones((30, 30, 4))])["r2_held_out"] <= 0


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((5, 5, 3)), "0.0278 of 25 patches are 0; the probe needs 2"),
        (np.full((12, 12, 3), np.nan), "NaN or infinite"),
        ([[[1.0, 2.0]] * 9] * 8 + [[[1.0, 2.0]] * 8], "rows or patches differ in length"),
        ([[[1.0, 2.0]] * 9] * 8 + [[[1.0]] * 9], "rows or patches differ in length"),
    ],
)
def test_wrong_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        PositionalScore().compute(predictions=[features])


def label_images() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Predictions and truths of two images, with void; class 3 occurs nowhere, 4 in predictions only."""
    random = np.random.default_rng(1)
    truths = [random.integers(0, 3, shape).astype(np.uint8) for shape in ((6, 8), (5, 4))]
    predictions = [np.where(random.random(truth.shape) < 0.7, truth, 4) for truth in truths]
    for truth in truths:
        truth[0, :3] = 255
    return predictions, truths


def test_miou_is_that_of_the_package():
    predictions, truths = label_images()
    found = MeanIoU().compute(predictions=predictions, references=truths, num_classes=5)
    matrix = sum(confusion_matrix(*pair, 5) for pair in zip(predictions, truths, strict=True))
    np.testing.assert_array_equal(found["iou_per_class"], iou_per_class(matrix))
    assert math.isnan(found["iou_per_class"][3])
    assert found["iou_per_class"][4] == 0
    assert found["miou"] == mean_iou(matrix)
    assert found["pixel_accuracy"] == pixel_accuracy(matrix)


def test_miou_where_nothing_counts_is_nan():
    found = MeanIoU().compute(predictions=[[[0, 1]]], references=[[[7, 7]]], num_classes=2, void=7)
    assert math.isnan(found["miou"])
    assert math.isnan(found["pixel_accuracy"])


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([[0, 1]], [[0], [1]], "another size than its reference"),
        ([[0, 5]], [[0, 1]], r"prediction has labels that are no class: 5\. 2 classes are 0 to 1"),
        ([[0, 1]], [[0, -1]], r"reference has labels that are no class: -1\."),
        ([[0.5, 1.0]], [[0, 1]], r"labels that are no class: 0\.5\."),
    ],
)
def test_wrong_labels_are_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        MeanIoU().compute(predictions=[prediction], references=[truth], num_classes=2)


def test_folders_stand_alone_and_load_without_network(tmp_path):
    shutil.copytree(FOLDERS, tmp_path / "metrics", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    features = np.random.default_rng(0).normal(size=(9, 10, 4)).astype(np.float32)
    assert found["positional_score"] == pytest.approx(summarise(probe_images([features], repeats=2)), abs=1e-9)
    assert found["miou"]["miou"] == 0.25


@pytest.mark.parametrize("name", ["positional_score", "miou"])
def test_folder_is_a_metric_of_the_hub(name):
    card = RepoCard.load(FOLDERS / name / "README.md", ignore_metadata_errors=False)
    assert {"evaluate", "metric"} <= set(card.data.tags)
    assert card.data.to_dict()["sdk"] == "static"
    assert {path.name for path in (FOLDERS / name).iterdir() if path.is_file()} == {
        *("README.md", "requirements.txt"),
        f"{name}.py",
    }
