# SPDX-License-Identifier: Apache-2.0
"""Ways to edges do what they say on a tiny model, the choice looks at the other sets alone, the command records."""

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.report.card import by_model, results_table
from evaluation.report.records import read_record
from evaluation.segmentation import edges
from evaluation.segmentation.benchmark.prepare import prepare
from evaluation.segmentation.benchmark.sets import open_sets
from evaluation.segmentation.edge_methods import METHODS, kind_of
from evaluation.segmentation.edges import choose, make_task, predictions
from evaluation.segmentation.joint_bilateral import joint_bilateral

SETTINGS = {"classifier": "logistic-regression", "components": 3, "window": 112, "overlap": 14}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    assert len(list(prepare(None, folder, ["made-ct", "made-layers"]))) == 2
    for path in folder.glob("*/*/*/*.png"):  # smaller, so that this is quick
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image)[::4, ::4]).save(path)
    return folder


def slow_bilateral(guide, grid, patch, scale):
    """One pixel after the other."""
    shape = [-(-pixels // side) for pixels, side in zip(guide.shape, patch, strict=True)]
    padding = [(0, count * side - pixels) for count, side, pixels in zip(shape, patch, guide.shape, strict=True)]
    padded = np.pad(guide, padding, mode="symmetric")
    found = np.zeros((*guide.shape, grid.shape[-1]))
    for row in range(guide.shape[0]):
        for column in range(guide.shape[1]):
            y, x = (row + 0.5) / patch[0] - 0.5, (column + 0.5) / patch[1] - 0.5
            total = 0
            for down in range(round(y) - 2, round(y) + 3):
                for right in range(round(x) - 2, round(x) + 3):
                    i, j = min(max(down, 0), shape[0] - 1), min(max(right, 0), shape[1] - 1)
                    level = padded[i * patch[0] : (i + 1) * patch[0], j * patch[1] : (j + 1) * patch[1]].mean()
                    weight = np.exp(-2 * ((y - down) ** 2 + (x - right) ** 2))
                    weight *= np.exp(-(((guide[row, column] - level) / scale) ** 2) / 2)
                    found[row, column] += weight * grid[i, j]
                    total += weight
            found[row, column] /= total
    return found


def test_joint_bilateral_upsampling_is_a_slow_loop():
    random = np.random.default_rng(0)
    guide, grid = random.random((13, 17)), random.random((5, 6, 2)).astype(np.float32)
    found = joint_bilateral(guide, grid, (4, 3), 0.3)
    np.testing.assert_allclose(found, slow_bilateral(guide, grid, (4, 3), 0.3), atol=1e-5)
    # With levels that no patch has, all weights are 0 by rounding: nothing is divided by it.
    assert np.isfinite(joint_bilateral(guide + 100 * np.eye(13, 17), grid, (4, 3), 0.01)).all()


def test_methods_are_those_of_the_segmenter(tmp_path, data_folder, model_folder):
    (data,) = open_sets(data_folder, ["made-ct"])
    task, backbone = make_task(data, [], seed=0, rounds=2, images=1), load_backbone(model_folder)
    for features, filters in (("deep", {"classical": None}), ("combined", {})):
        maps = dict(predictions(task, backbone, features, FeatureCache(tmp_path / "cache"), 0, **SETTINGS))
        assert list(maps) == list(METHODS)
        for name, settings in (
            ("bilinear", {"guided_radius": 0}),
            ("shifts-2", {"guided_radius": 0, "shifts": 2}),
            ("guided-probabilities-4", {"guided_radius": 4}),
        ):
            expected = TrainableSegmenter(backbone, **filters, **SETTINGS, **settings).fit(task.train, task.strokes)
            # Features are kept in half precision on disk.
            assert (maps[name][0] + 1 == expected.predict(task.test[0])).mean() > 0.99
        assert len({found[0].tobytes() for found in maps.values()}) == len(maps), "two ways are the same"


def test_the_set_that_is_left_out_has_no_say():
    figures = {f"deep/{name}": dict.fromkeys(METHODS, (0.5, 0.5)) for name in "abc"}
    figures["deep/a"] = figures["deep/a"] | {"shifts-2": (0.9, 0.9), "bilinear": (0.6, 0.6)}
    assert choose(figures, "deep") == {"a": "bilinear", "b": "shifts-2", "c": "shifts-2"}
    assert [kind_of(name) for name in ("bilinear", "shifts-2", "joint-bilateral-0.1, guided-probabilities-8")] == [
        "bilinear",
        "shifts",
        "joint-bilateral, guided-probabilities",
    ]


def test_command_records_draws_and_keeps_what_is_done(tmp_path, data_folder, model_folder, monkeypatch, capsys):
    options = ["--data", data_folder, "--models", model_folder, "--names", "tiny", "--images", 1, "--seeds", 1]
    for name, value in SETTINGS.items():
        options += [f"--{name}", value]
    options += ["--cache", tmp_path / "cache", "--output-folder", tmp_path / "records"]
    options += ["--figure", tmp_path / "edges.png"]

    def run(*more) -> int:
        with pytest.raises(SystemExit) as ended:
            edges.main([str(option) for option in (*options, *more)])
        return ended.value.code

    assert run() == 0
    said = capsys.readouterr().out
    assert "| guided-probabilities-8 |" in said
    (path,) = (tmp_path / "records").iterdir()
    record = read_record(path)
    values = [record["metrics"][f"combined/bilinear/miou/{name}"] for name in ("made-ct", "made-layers")]
    assert record["metrics"]["combined/bilinear/miou"] == pytest.approx(np.mean(values))
    assert record["chosen"]["deep"].keys() == {"made-ct", "made-layers"}
    assert "mIoU" in results_table(by_model([record]))
    with Image.open(tmp_path / "edges.png") as picture:
        assert picture.width > 500
    monkeypatch.setattr(edges, "predictions", None)
    assert run() == 0, "what was done was done again"
    assert run("--data", tmp_path) == 2
    assert "holds no data set" in capsys.readouterr().err
