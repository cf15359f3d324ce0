# SPDX-License-Identifier: Apache-2.0
"""The figures tell predictions that follow position from those that follow content; the shipped image is whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.metrics import cohen_kappa_score
from transformers import Dinov2Config, Dinov2Model

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.panels import DPI, ROW_HEIGHT
from evaluation.position.clusters import count_conflicts
from evaluation.report.card import by_model, results_table
from evaluation.report.records import read_record
from evaluation.segmentation import biased_labels
from evaluation.segmentation.biased_labels import (
    FILTERS,
    Segmentation,
    biased_panel,
    describe_prediction,
    explained_by_position,
    kappa,
    roll_conflicts,
    segment,
)
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from tests.drawn_panels import grid_of, pixel_at, texts_of

SHIPPED = Path(__file__).parents[3] / "data" / "biased_labels"
RANDOM = np.random.default_rng(0)
SIDE = 112
SETTINGS = {"classifier": "logistic-regression", "components": 2, "window": SIDE, "overlap": 0}


def material(side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Grains of two phases, 1 and 2, the same everywhere, `(side, side)`; they meet at the borders."""
    noise = np.random.default_rng(seed).normal(size=(side, side))
    return (1 + (ndimage.gaussian_filter(noise, 4, mode="wrap") > 0)).astype(np.uint8)


def sides(side: int = SIDE) -> np.ndarray:
    """Class 1 in the left half, 2 in the right."""
    return np.broadcast_to(1 + (np.arange(side) >= side // 2), (side, side)).astype(np.uint8)


def one_sided(phases: np.ndarray) -> np.ndarray:
    """Labels of phase 1 on the left only and of phase 2 on the right only."""
    return np.where((phases == sides(len(phases))) & (np.arange(len(phases)) % 4 == 0)[:, None], phases, 0)


def as_image(phases: np.ndarray) -> np.ndarray:
    return np.repeat((60 * phases)[..., None], 3, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("degree", [1, 2])
def test_position_explains_halves_and_not_a_homogeneous_material(degree):
    assert explained_by_position(sides(448), degree) > 0.8
    # Some 250 grains and 5 parameters: what is left to chance is a few thousandths, on held-out blocks below 0.
    assert -0.05 < explained_by_position(material(448), degree) < 0.02


def test_only_squares_explain_a_spot_in_the_middle():
    rows, columns = np.indices((448, 448)) - 224
    spot = (1 + (rows**2 + columns**2 < 120**2)).astype(np.uint8)
    assert explained_by_position(spot, 2) > 0.6
    assert explained_by_position(spot, 1) < 0.02


def test_position_explains_part_of_a_mixture():
    mixed = np.where(RANDOM.random((448, 448)) < 0.5, sides(448), material(448))
    assert 0.05 < explained_by_position(mixed, 1) < explained_by_position(sides(448), 1) - 0.3


def test_nothing_is_to_explain_where_there_is_one_class():
    assert explained_by_position(np.ones((200, 200), dtype=np.uint8), 2) == 0
    nearly = np.ones((200, 200), dtype=np.uint8)
    nearly[7, 7] = 2
    assert explained_by_position(nearly, 2) == 0


@pytest.mark.parametrize("classes", [2, 4])
def test_kappa_is_that_of_scikit_learn(classes):
    one = RANDOM.integers(1, classes + 1, (30, 40))
    other = np.where(RANDOM.random(one.shape) < 0.4, one, RANDOM.integers(1, classes + 1, one.shape))
    assert kappa(one, other) == pytest.approx(cohen_kappa_score(one.ravel(), other.ravel()))
    assert kappa(one, one) == pytest.approx(1)
    assert kappa(np.ones((3, 3), dtype=int), np.ones((3, 3), dtype=int)) == 0


def test_figures_of_sides_and_of_phases():
    phases, halves = material(), sides()
    labels = one_sided(phases)
    shift = (0, SIDE // 2)
    carried = np.roll(halves, shift, axis=(0, 1))
    followed = describe_prediction(halves, count_conflicts(halves, halves, carried), labels, phases)
    assert followed["position_explains"] == 1
    assert (followed["fraction_left"], followed["fraction_right"], followed["halves_difference"]) == (1, 0, 1)
    assert followed["classical_kappa"] < 0.3
    rolled = np.roll(phases, shift, axis=(0, 1))
    right = describe_prediction(phases, count_conflicts(phases, rolled, rolled), labels, phases)
    assert (right["position_explains"], right["content_explains"]) == (0, 1)
    assert right["classical_kappa"] == pytest.approx(1)
    assert right["halves_difference"] == pytest.approx(abs((phases[:, :56] == 1).mean() - (phases[:, 56:] == 1).mean()))


class Fixed:
    """A segmenter of images whose red channel tells the class."""

    def predict(self, image):
        return image[..., 0] // 60


def test_rolls_are_of_half_of_one_side_and_of_both():
    phases = material()
    conflicts = roll_conflicts(Fixed(), as_image(phases), phases)
    shifts = ((SIDE // 2, 0), (0, SIDE // 2), (SIDE // 2, SIDE // 2))
    carried = [np.roll(phases, shift, (0, 1)) for shift in shifts]
    expected = [count_conflicts(phases, rolled, rolled) for rolled in carried]
    np.testing.assert_array_equal(conflicts, np.sum(expected, axis=0))
    assert conflicts[2] == 0


@pytest.fixture
def biased_folder(tmp_path, tiny_teacher):
    """A model whose features are little but position."""
    model = tiny_teacher(Dinov2Model, Dinov2Config, image_size=SIDE)
    ramp = torch.linspace(-1, 1, SIDE // 14)
    places = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        model.embeddings.position_embeddings[0, 1:] = 1000 * places @ torch.randn(2, 48)
    model.save_pretrained(tmp_path / "biased")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "biased")
    return tmp_path / "biased"


def test_deep_features_of_position_give_sides_and_filters_give_phases(biased_folder):
    phases = material()
    image, labels = as_image(phases), one_sided(phases)
    classical = segment(image, labels, None, FILTERS, **SETTINGS)
    deep = segment(image, labels, load_backbone(biased_folder), None, classical, **SETTINGS)
    assert (classical.prediction == phases).mean() > 0.95
    assert classical.figures["position_explains"] < 0.05
    assert classical.figures["classical_kappa"] == pytest.approx(1)
    assert (deep.prediction == sides()).mean() > 0.9
    assert deep.figures["position_explains"] > 0.9
    assert deep.figures["position_d2_linear"] > 0.5
    assert deep.figures["halves_difference"] > 0.8


def test_panel_has_deep_features_above_classical_ones_for_each_model():
    image, labels = np.full((40, 40, 3), 100, dtype=np.uint8), np.zeros((40, 40), dtype=np.uint8)
    labels[:20, :20] = 1
    one, two = (np.full((40, 40), number, dtype=np.uint8) for number in (1, 2))
    found = [Segmentation(one, {"position_explains": 0.25}), Segmentation(two, {})]
    figure = biased_panel(image, labels, found[0], {"a": found, "b": found[::-1]})
    assert texts_of(figure) == [
        *("a", "b", "labels", "deep: position 0.250", "deep: no conflict"),
        *("classical: position 0.250", "classical + deep: no conflict", "classical + deep: position 0.250"),
    ]
    (drawn, *deep), predictions = grid_of(figure)
    # Labels hide the image; half of a prediction's colour lies over it.
    assert pixel_at(figure, drawn, 0.25, 0.25) == tuple(class_colours()[1].tolist())
    assert pixel_at(figure, drawn, 0.75, 0.75) == (100, 100, 100)
    first, second = (tuple(np.round((100.0 + class_colours()[number]) / 2).astype(int).tolist()) for number in (1, 2))
    assert [pixel_at(figure, axes, 0.5, 0.5) for axes in deep] == [first, second]
    assert [pixel_at(figure, axes, 0.5, 0.5) for axes in predictions] == [first, second, first]


def test_command_writes_records_and_a_picture(tmp_path, biased_folder, capsys):
    phases = material()
    picture = tmp_path / "grains" / "images" / "image.png"
    picture.parent.mkdir(parents=True)
    Image.fromarray(as_image(phases)).save(picture)
    labels = {"labels": one_sided(phases), "small": one_sided(phases)[:-1], "one": (phases == 1).astype(np.uint8)}
    for name, values in labels.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")

    def run(name: str) -> int:
        options = ["--models", biased_folder, "--image", picture, "--components", 2]
        options += ["--labels", tmp_path / f"{name}.png", "--classifier", "logistic-regression", "--window", SIDE]
        options += ["--overlap", 0, "--output-folder", tmp_path / "records", "--figure", tmp_path / "picture.png"]
        options += ["--cache", tmp_path / "cache"]
        with pytest.raises(SystemExit) as ended:
            biased_labels.main([str(option) for option in options])
        return ended.value.code

    for name, message in (
        ("small", "has shape (111, 112), but image 1 is one of 112×112 pixels"),
        ("one", "only class 1"),
        ("none", "none.png"),
    ):
        assert run(name) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "records").exists()
    assert run("labels") == 0
    record = read_record(tmp_path / "records" / "biased_labels-grains-biased.json")
    assert record["metrics"]["deep/position_explains"] > 0.9 > record["metrics"]["classical/position_explains"]
    assert f"position_explains {record['metrics']['deep/position_explains']:.3f}" in capsys.readouterr().out
    assert record["parameters"]["window"] == SIDE
    assert "xgboost" in record["versions"]
    assert "biased labels" in results_table(by_model([record]))
    with Image.open(tmp_path / "picture.png") as drawn:
        # Two columns of two rows, as the image is square.
        assert drawn.width > 2 * ROW_HEIGHT * DPI
        assert drawn.height > 2 * ROW_HEIGHT * DPI


def test_shipped_labels_confound_class_and_position():
    with Image.open(SHIPPED / "nickel_on_substrate.png") as image:
        assert (image.mode, image.size) == ("L", (1008, 896))
    with Image.open(SHIPPED / "nickel_on_substrate_labels.png") as file:
        labels = np.array(file)
    assert labels.shape == (896, 1008)
    assert np.bincount(labels.ravel()).tolist() == [896877, 5114, 1177]
    first, second = (np.argwhere(labels == label)[:, 1].mean() for label in (1, 2))
    assert first + 50 < second
    assert "MIT" in (SHIPPED / "LICENSE.md").read_text()
