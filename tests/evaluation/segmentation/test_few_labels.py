# SPDX-License-Identifier: Apache-2.0
"""Learning curves are those of the segmenter, come from the seed, go on after a stop, and end in records."""

import json

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.report.card import by_model, headlines, results_table
from evaluation.report.records import read_record
from evaluation.segmentation import few_labels
from evaluation.segmentation.few_labels import Drawing, curve_figure, curve_table, measure, mious, summarise
from evaluation.segmentation.scribbles import stroke_rounds
from evaluation.semantics.miou import confusion_matrix, iou_per_class, mean_iou
from evaluation.semantics.segmentation_data import Labels, open_data

NAMES = ("train_a", "train_b", "test_a", "test_b")
SETTINGS = {"classifier": "logistic-regression", "components": 4, "window": 56, "overlap": 14}
SIDE = 56


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """Bright discs on dark ground with noise."""
    folder = tmp_path_factory.mktemp("discs")
    random = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for name in NAMES:
        row, column = random.integers(18, 38, 2)
        mask = ((rows - row) ** 2 + (columns - column) ** 2 < 200).astype(np.uint8)
        image = (80 + 60 * mask + random.normal(0, 40, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    return folder


@pytest.fixture
def data(data_folder):
    return open_data(data_folder, Labels((0, 1), ("ground", "disc")), NAMES[:2])


@pytest.fixture
def backbone(model_folder):
    return load_backbone(model_folder, name="tiny")


def test_every_round_is_what_a_segmenter_gives_that_is_fitted_on_its_strokes(tmp_path, data, backbone):
    train, test = data
    drawing = Drawing(rounds=2, seeds=2, length=8)
    _, curves = measure([backbone], train, test, drawing, FeatureCache(tmp_path / "cache"), **SETTINGS)
    masks = [train.mask(index) for index in range(2)]
    for name, model in (("classical", None), ("classical + tiny", backbone)):
        assert curves[name].shape == (2, 2)
        for seed in range(2):
            for number, labels in enumerate(stroke_rounds(masks, 2, seed, 8)):
                segmenter = TrainableSegmenter(model, seed=seed, **SETTINGS)
                segmenter.fit([train.image(index) for index in range(2)], labels)
                matrix = sum(
                    confusion_matrix(segmenter.predict(test.image(index)) - 1, test.mask(index), 2)
                    for index in range(2)
                )
                # The backbone's features are kept in half precision on disk: a pixel on a border may change sides.
                assert curves[name][seed, number] == pytest.approx(mean_iou(matrix), abs=0.01)


def test_record_holds_the_curves_and_the_baseline(tmp_path, data, backbone):
    drawing = Drawing(rounds=2, seeds=2, length=8)
    (record,), curves = measure([backbone], *data, drawing, FeatureCache(tmp_path), **SETTINGS)
    metrics, spread = record["metrics"], record["spread"]
    for name, prefix in (("classical", "classical_"), ("classical + tiny", "")):
        means = curves[name].mean(axis=0)
        assert metrics[f"{prefix}miou_first"] == metrics[f"{prefix}miou_round_1"] == pytest.approx(means[0])
        assert metrics[f"{prefix}miou_best"] == pytest.approx(means.max())
        assert metrics[f"{prefix}best_round"] == means.argmax() + 1
        assert spread[f"{prefix}miou_round_2"] == pytest.approx(abs(np.diff(curves[name][:, 1])[0]) / 2**0.5)
    assert record["task"] == "trainable_segmentation"
    assert record["dataset"]["images"] == 2
    assert record["parameters"]["train"]["images"] == 2
    assert record["parameters"]["rounds"] == 2
    assert record["parameters"]["classifier"] == "logistic-regression"
    assert "xgboost" in record["versions"]
    assert headlines(record)
    json.dumps(record, allow_nan=False)


def test_finished_rounds_are_not_computed_again_and_more_can_follow(tmp_path, data, backbone, monkeypatch):
    cache, fitted = FeatureCache(tmp_path), []
    fit = few_labels.fit_strokes
    monkeypatch.setattr(few_labels, "fit_strokes", lambda *given: fitted.append(given[-2]) or fit(*given))
    _, short = measure([backbone], *data, Drawing(1, 1, 8), cache, **SETTINGS)
    assert len(fitted) == 3  # classical, both, deep
    _, longer = measure([backbone], *data, Drawing(2, 2, 8), cache, **SETTINGS)
    assert len(fitted) == 3 + 3 * 3
    measure([backbone], *data, Drawing(2, 2, 8), cache, **SETTINGS)
    assert len(fitted) == 12
    for name in short:
        np.testing.assert_array_equal(short[name][0, 0], longer[name][0, 0])
    measure([], *data, Drawing(1, 1, 8), cache, **SETTINGS | {"classifier": "random-forest"})
    measure([], *data, Drawing(1, 1, 9), cache, **SETTINGS)
    assert len(fitted) == 14


def test_figures_are_means_over_seeds_of_the_iou_over_all_pixels():
    matrices = np.random.default_rng(0).integers(1, 50, (3, 4, 2, 2))
    metrics, spread = summarise(matrices, ["ground", "disc"])
    scores = np.array([[mean_iou(matrix) for matrix in row] for row in matrices])
    best = scores.mean(axis=0).argmax()
    assert metrics["miou_round_3"] == pytest.approx(scores[:, 2].mean())
    assert metrics["miou_best"] == pytest.approx(scores[:, best].mean())
    assert metrics["iou_disc"] == pytest.approx(np.mean([iou_per_class(matrix)[1] for matrix in matrices[:, best]]))
    assert spread["miou_first"] == pytest.approx(scores[:, 0].std(ddof=1))
    np.testing.assert_array_equal(mious(matrices), scores)
    assert summarise(matrices[:1], ["ground", "disc"])[1] == {}
    assert summarise(matrices, ["ground", "disc"], "deep_")[0] == {
        f"deep_{name}": value for name, value in metrics.items()
    }


def test_a_model_has_one_colour_and_is_dashed_alone():
    scores = np.ones((1, 2))
    (axis,) = curve_figure(
        {"classical": scores, "classical + one": scores, "one": scores, "classical + two": scores}
    ).axes
    alone, both, deep, other = axis.lines
    assert both.get_color() == deep.get_color()
    assert len({line.get_color() for line in (alone, both, other)}) == 3
    assert [line.get_linestyle() for line in axis.lines] == ["-", "-", "--", "-"]


def test_figure_has_a_line_and_a_band_for_each_curve_and_the_table_its_means():
    curves = {"classical": np.array([[0.2, 0.4], [0.4, 0.4]]), "classical + tiny": np.array([[0.5, 0.6], [0.5, 0.8]])}
    (axis,) = curve_figure(curves).axes
    np.testing.assert_allclose([line.get_ydata() for line in axis.lines], [[0.3, 0.4], [0.5, 0.7]])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(curves)
    (band, _) = axis.collections
    assert band.get_datalim(axis.transData).y0 == pytest.approx(0.3 - 0.1 * 2**0.5)
    table = curve_table(curves)
    assert "0.700 ± 0.141" in table
    assert len({len(line) for line in table.splitlines()}) == 1
    (axis,) = curve_figure({name: scores[:1] for name, scores in curves.items()}).axes
    assert not axis.collections
    assert "±" not in curve_table({name: scores[:1] for name, scores in curves.items()})


def test_class_that_nobody_can_draw_is_refused(tmp_path, data_folder):
    train, test = open_data(data_folder, Labels((0, 1, 2), ("ground", "disc", "pore")), NAMES[:2])
    with pytest.raises(ValueError, match="no pixel of pore"):
        measure([], train, test, Drawing(1, 1), FeatureCache(tmp_path), **SETTINGS)


def test_impossible_drawings_are_refused():
    for wrong in ({"rounds": 0}, {"seeds": 0}, {"length": 0}, {"width": 2}):
        with pytest.raises(ValueError, match="asked for"):
            Drawing(**wrong)


def run_main(*options) -> int:
    """The exit status of the command."""
    with pytest.raises(SystemExit) as ended:
        few_labels.main([str(option) for option in options])
    return ended.value.code


def test_command_writes_records_a_figure_and_a_table(tmp_path, data_folder, model_folder, capsys):
    options = ["--data", data_folder, "--classes", 0, 1, "--train-images", *NAMES[:2], "--models", model_folder]
    options += ["--names", "tiny", "--rounds", 1, "--seeds", 1, "--components", 4, "--window", 56, "--overlap", 14]
    options += ["--output-folder", tmp_path / "records", "--figure", tmp_path / "curve.png", "--cache", tmp_path / "c"]
    for wrong, message in ((["--width", 2], "its width 1, 3, 5"), (["--overlap", 50], "overlap by less than half")):
        assert run_main(*options, *wrong) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "records").exists()
    assert run_main(*options) == 0
    (path,) = (tmp_path / "records").iterdir()
    record = read_record(path)
    assert path.name == f"trainable_segmentation-{data_folder.name}-tiny.json"
    assert f"{record['metrics']['miou_first']:.3f}" in capsys.readouterr().out
    assert record["command"][:3] == ["python", "-m", "evaluation.segmentation.few_labels"]
    assert "mIoU of trainable segmentation, first round" in results_table(by_model([record]))
    with Image.open(tmp_path / "curve.png") as figure:
        assert figure.format == "PNG"
