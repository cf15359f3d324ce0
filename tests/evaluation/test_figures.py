# SPDX-License-Identifier: Apache-2.0
"""The commands that draw: what they draw, the files they write, and what they say to wrong input."""

import json
import sys
from importlib import import_module

import numpy as np
import pytest
from evaluation.figures import figure_columns, figure_parser, image_paths
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone, preprocess
from alibi_dinov2.features.dense_features import patch_features
from alibi_dinov2.pictures.feature_colours import relative_spread
from evaluation.position.noise import noise_images
from evaluation.position.query_similarity import mark, patch_at, similarity_colours, similarity_map
from evaluation.position.stress import dot_grid, with_jitter, with_jitters
from evaluation.position.token_geometry import cloud_tile, position_colours, token_cloud
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

FEATURES = np.random.default_rng(0).normal(size=(6, 9, 20)) * np.linspace(3, 0.1, 20)
COMMANDS = ("pca", "token_geometry", "query_similarity", "clusters", "stress")
ROW, COLUMN = 259 + 6, 259 + 6


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_teacher):
    """A folder with the models `alibi` and `stock`, two images and their masks."""
    for name, model in (("alibi", tiny_model()), ("stock", tiny_teacher())):
        model.save_pretrained(tmp_path / name)
        Dinov2AlibiImageProcessor().save_pretrained(tmp_path / name)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number, image in enumerate(noise_images(2, 70)):
        image.save(tmp_path / "images" / f"{number}.png")
        Image.fromarray((np.asarray(image)[..., 0] // 128).astype(np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


@pytest.fixture
def draw(folder, monkeypatch):
    """`draw(command, *options)`: run a command on the images, and open its picture."""

    def run(command: str, *options, models=("alibi", "stock"), images="images") -> Image.Image:
        paths = ["--models", *(folder / name for name in models), "--images", folder / images]
        words = [command, *paths, "--size", 56, "--output", folder / "figure.png", *options]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        import_module(f"evaluation.{command}").main()
        return Image.open(folder / "figure.png")

    return run


@pytest.mark.parametrize("options", [(), ("--shared", "--foreground", "--standardise")])
def test_pca_has_a_column_per_model_and_a_row_per_image(draw, options):
    assert draw("pca", *options).size == (3 * COLUMN - 6, 24 + 2 * ROW)


def test_every_size_gives_every_model_a_column(draw):
    assert draw("pca", "--size", 56, 70).size == (5 * COLUMN - 6, 24 + 2 * ROW)


def test_geometry_has_a_key_of_colours(draw):
    sheet = draw("token_geometry")
    assert sheet.size == (4 * COLUMN - 6, 24 + 2 * ROW)
    key = np.asarray(sheet)[30:289, COLUMN : COLUMN + 259]
    np.testing.assert_array_equal(key[[0, 0, -1, -1], [0, -1, 0, -1]], position_colours(2, 2).reshape(4, 3))


def test_similarity_is_brightest_at_the_marked_query(draw):
    sheet = draw("query_similarity", "--query", 0.1, 0.9)
    assert sheet.size == (3 * COLUMN - 6, 24 + 2 * (ROW + 24))
    for column in range(3):
        x, y = column * COLUMN + round(0.1 * 259), 30 + round(0.9 * 259)
        ring = np.asarray(sheet)[y, x + 5 : x + 11]
        assert (ring == (255, 0, 0)).all(axis=-1).any(), "no red ring"
        if column:
            np.testing.assert_array_equal(sheet.getpixel((x, y)), similarity_colours(np.ones((1, 1)))[0, 0])


def test_clusters_write_a_record_per_model(draw, folder):
    options = ("--masks", folder / "masks", "--records", folder / "records", "--dataset", "noise")
    assert draw("clusters", *options).size == (4 * COLUMN - 6, 24 + 2 * (ROW + 24) + 6 + 24)
    for name in ("alibi", "stock"):
        record = json.loads((folder / "records" / f"clusters-noise-{name}-56.json").read_text())
        assert record["model"]["name"] == name
        assert record["parameters"]["clusters"] == 2, "as many as classes"
        assert record["metrics"].keys() == {"in_conflict", "position_explains", "content_explains", "miou"}
        assert record["command"][:3] == ["python", "-m", "evaluation.position.clusters"]
        assert str(folder) not in json.dumps(record)


def test_stress_shows_zeros_dots_noise_and_images_and_jitter(draw):
    sheet = draw("stress", "--jitter", 0.5, 2)
    assert sheet.size == (5 * COLUMN - 6, 24 + 5 * (ROW + 24))
    zeros = np.asarray(sheet)[30:289]
    assert (zeros[:, COLUMN : 2 * COLUMN - 6] == 128).all(), "ALiBi tells places of an empty image apart"
    assert len(np.unique(zeros[:, 4 * COLUMN :].reshape(-1, 3), axis=0)) > 4, "the position embedding does not show"


WRONG = {
    "no images": (("pca", "--images", "nowhere"), "nowhere is not a folder"),
    "names": (("pca", "--names", "one"), "1 --names for 2 --models"),
    "same names": (("pca", "--names", "one", "one"), "cannot be told apart"),
    "no model": (("pca", "--models", "nowhere/model/x"), "nowhere"),
    "size": (("pca", "--size", "14"), "1 patches of 48 channels have no 3 components"),
    "no size": (("stress", "--size", "56", "0"), "--size is 56 0; it must be 1 pixel or more"),
    "query": (("query_similarity", "--query", "0.5", "1.5"), "outside the image"),
    "clusters": (("clusters", "--clusters", "99"), "99 clusters of 16 patches"),
    "masks": (("clusters", "--masks", "nowhere"), "nowhere is not a folder"),
    "jitter": (("stress", "--jitter", "-1"), "must be a positive number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_with_a_message_and_without_a_file(draw, folder, capsys, case):
    (command, *options), message = WRONG[case]
    with pytest.raises(SystemExit):
        draw(command, *options)
    assert message in capsys.readouterr().err
    assert not (folder / "figure.png").exists()


def test_masks_must_be_there_and_of_the_size_of_their_images(draw, folder, capsys):
    Image.new("L", (70, 71)).save(folder / "masks" / "1.png")
    with pytest.raises(SystemExit):
        draw("clusters", "--masks", folder / "masks")
    assert "1.png has 70×71 pixels, its image 70×70" in capsys.readouterr().err
    (folder / "masks" / "1.png").unlink()
    with pytest.raises(SystemExit):
        draw("clusters", "--masks", folder / "masks")
    assert "no mask for 1 images, among them 1.png" in capsys.readouterr().err


def test_jitter_needs_a_model_with_distances(draw, capsys):
    with pytest.raises(SystemExit):
        draw("stress", "--jitter", 1, models=["stock"])
    assert "None of the models has ALiBi distances" in capsys.readouterr().err


def test_all_figures_take_the_same_options(folder):
    words = ["--models", folder / "alibi", folder / "stock", "--names", "a", "b", "--size", 56, 70, "--output", "x.png"]
    words += ["--images", folder / "images" / "1.png", folder / "images"]
    arguments = figure_parser("").parse_args(list(map(str, words)))
    assert [path.name for path in image_paths(arguments)] == ["1.png", "0.png", "1.png"]
    labels = [column.label for column in figure_columns(arguments)]
    assert labels == ["a, 56 px", "a, 70 px", "b, 56 px", "b, 70 px"]


def test_similarity_is_the_cosine():
    found = similarity_map(FEATURES, 2, 5)
    query, other = FEATURES[2, 5], FEATURES[4, 1]
    assert found[4, 1] == pytest.approx(query @ other / np.linalg.norm(query) / np.linalg.norm(other))
    assert found[2, 5] == pytest.approx(1)
    np.testing.assert_allclose(similarity_map(FEATURES * 5, 2, 5), found)
    assert similarity_map(np.zeros((2, 2, 4)), 0, 0).tolist() == [[0, 0], [0, 0]]


def test_query_is_found_in_x_and_y():
    assert patch_at((0, 0), 6, 9) == (0, 0)
    assert patch_at((1, 1), 6, 9) == (5, 8)
    assert patch_at((0.95, 0.4), 6, 9) == (2, 8)


def test_marking_leaves_the_tile_alone():
    tile = Image.new("RGB", (50, 50))
    assert np.asarray(mark(tile, (0.5, 0.5))).any()
    assert not np.asarray(tile).any()


def test_cloud_keeps_variances_and_places():
    cloud = token_cloud(FEATURES)
    assert cloud.shape == (6, 9, 3)
    patches = FEATURES.reshape(-1, 20) - FEATURES.reshape(-1, 20).mean(axis=0)
    singular_values = np.linalg.svd(patches, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(cloud.reshape(-1, 3), axis=0), singular_values[:3])
    np.testing.assert_allclose(np.abs(cloud[5, 8]), np.abs(token_cloud(FEATURES[::-1])[0, 8]))


def test_cloud_is_drawn_in_the_colours_of_the_places():
    drawn = np.asarray(cloud_tile(token_cloud(FEATURES), 200)).reshape(-1, 3)
    assert drawn.shape == (200 * 200, 3)
    # Points are 2 pixels wide and smoothed at the edge, and some hide others.
    nearest = [np.abs(drawn - colour.astype(int)).max(axis=1).min() for colour in position_colours(6, 9).reshape(-1, 3)]
    assert np.mean(np.array(nearest) < 30) > 0.8


def test_dots_repeat_at_their_spacing():
    pixels = np.asarray(dot_grid(168))[..., 0]
    assert set(np.unique(pixels)) == {0, 255}
    np.testing.assert_array_equal(pixels, np.roll(pixels, (56, 112), axis=(0, 1)))
    # Nine discs of radius 9.
    assert (pixels > 0).sum() == pytest.approx(9 * np.pi * 9**2, rel=0.15)


def test_jitter_disturbs_the_same_weights(folder):
    backbone = load_backbone(folder / "alibi")
    pixels = preprocess(backbone, noise_images(1, 56), 56)
    plain = patch_features(backbone, pixels)
    slight, strong = (patch_features(with_jitter(backbone, sigma), pixels) for sigma in (1e-6, 3.0))
    np.testing.assert_allclose(slight, plain, atol=1e-3)
    assert relative_spread((strong - plain).reshape(-1, 48)) > 0
    assert np.abs(strong - plain).max() > 0.1
    assert backbone.model.config.alibi_jitter == 0


def test_only_alibi_models_get_jitter(folder):
    words = ["--models", folder / "alibi", folder / "stock", "--images", folder, "--output", "x.png"]
    columns = figure_columns(figure_parser("").parse_args(list(map(str, words))))
    assert [column.label for column in with_jitters(columns, [0.5])] == ["alibi", "alibi, jitter 0.5", "stock"]
