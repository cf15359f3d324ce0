# SPDX-License-Identifier: Apache-2.0
"""The commands that draw: what they draw, the files they write, and what they say to wrong input."""

import json
from importlib import import_module

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone, preprocess
from alibi_dinov2.features.dense_features import patch_features
from alibi_dinov2.pictures.colours import position_colours
from alibi_dinov2.pictures.feature_colours import relative_spread
from alibi_dinov2.pictures.panels import panel
from evaluation.command import figure_columns, figure_parser, image_paths
from evaluation.position.noise import noise_images
from evaluation.position.query_similarity import patch_at, similarity_colours, similarity_map
from evaluation.position.stress import dot_grid, with_jitter, with_jitters
from evaluation.position.token_geometry import cloud_tile, token_cloud
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from tests.drawn_panels import grid_of, pixel_at, shape_of, texts_of, tile_pixels

FEATURES = np.random.default_rng(0).normal(size=(6, 9, 20)) * np.linspace(3, 0.1, 20)


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
def draw(folder):
    """`draw(command, *options)`: the figure that a command draws of the images."""

    def figure_of(command: str, *options, models=("alibi", "stock"), images="images") -> Figure:
        module = import_module(f"evaluation.position.{command}")
        return module.command(module.make_parser().parse_args(words_of(folder, options, models, images)))

    return figure_of


@pytest.fixture
def run(folder):
    """`run(command, *options)`: the exit status of a command whose picture is `figure.png`."""

    def status_of(command: str, *options, models=("alibi", "stock"), images="images") -> int:
        module = import_module(f"evaluation.position.{command}")
        with pytest.raises(SystemExit) as ended:
            module.main(words_of(folder, options, models, images))
        return ended.value.code

    return status_of


def words_of(folder, options, models, images) -> list[str]:
    paths = ["--models", *(folder / name for name in models), "--images", folder / images]
    return list(map(str, [*paths, "--size", 56, "--output", folder / "figure.png", *options]))


def test_geometry_has_a_key_of_colours_and_a_cloud_of_each_model(draw):
    figure = draw("token_geometry")
    assert shape_of(figure) == (2, 4)
    assert texts_of(figure) == ["image", "colour of a place", "alibi", "stock"]
    for _, key, *clouds in grid_of(figure):
        corners = [pixel_at(figure, key, x, y) for y in (0.01, 0.99) for x in (0.01, 0.99)]
        expected = position_colours(2, 2).reshape(4, 3)
        # A pixel beside the corner has the colour of the place that it is in, of 64 along each side.
        np.testing.assert_allclose(corners, expected, atol=8)
        assert [axes.name for axes in clouds] == ["3d", "3d"]
        assert [len(axes.collections[0].get_offsets()) for axes in clouds] == [16, 16]


def test_every_size_gives_every_model_a_column(draw):
    figure = draw("token_geometry", "--size", 56, 70)
    assert shape_of(figure) == (2, 6)
    assert texts_of(figure)[2:] == ["alibi, 56 px", "alibi, 70 px", "stock, 56 px", "stock, 70 px"]


def test_similarity_is_brightest_at_the_marked_query(draw):
    figure = draw("query_similarity", "--query", 0.1, 0.9)
    assert shape_of(figure) == (2, 3)
    texts = texts_of(figure)
    assert texts[:3] == ["image", "alibi", "stock"]
    assert len(texts) == 3 + 2 * 2
    assert all(text.startswith("dark ") for text in texts[3:])
    brightest = tuple(similarity_colours(np.ones((1, 1)))[0, 0].tolist())
    for row in grid_of(figure):
        for column, axes in enumerate(row):
            pixels = tile_pixels(figure, axes)
            rows, columns = np.nonzero((pixels == (255, 0, 0)).all(axis=-1))
            assert len(rows) > 20, "no red ring"
            assert rows.mean() / len(pixels) == pytest.approx(0.9, abs=0.02)
            assert columns.mean() / pixels.shape[1] == pytest.approx(0.1, abs=0.02)
            if column:
                assert pixel_at(figure, axes, 0.1, 0.9) == brightest


@pytest.mark.parametrize("given", [(), ("--dataset", "noise")])
def test_clusters_write_a_record_per_model_and_a_picture(run, folder, given):
    options = ("--masks", folder / "masks", "--records", folder / "records", *given)
    assert run("clusters", *options) == 0
    data = given[-1] if given else folder.name  # `images` says nothing
    with Image.open(folder / "figure.png") as picture:
        assert picture.format == "PNG"
    for name in ("alibi", "stock"):
        record = json.loads((folder / "records" / f"clusters-{data}-{name}-56.json").read_text())
        assert record["dataset"]["name"] == data
        assert record["model"]["name"] == name
        assert record["parameters"]["clusters"] == 2, "as many as classes"
        assert record["metrics"].keys() == {"in_conflict", "position_explains", "content_explains", "miou"}
        assert record["command"][:3] == ["python", "-m", "evaluation.position.clusters"]
        assert str(folder) not in json.dumps(record)


def test_clusters_stand_beside_the_masks_over_figures_of_each_image_and_of_all(draw, folder):
    figure = draw("clusters", "--masks", folder / "masks")
    assert shape_of(figure) == (2, 4)
    texts = texts_of(figure)
    assert texts[:4] == ["image", "mask", "alibi", "stock"]
    assert texts[-3] == "2 images:"
    assert len(texts) == 4 + 2 * 2 + 3
    assert all("mIoU" in text for text in (*texts[4:8], *texts[-2:]))


def test_stress_shows_zeros_dots_noise_and_images_and_jitter(draw):
    figure = draw("stress", "--jitter", 0.5, 2)
    assert shape_of(figure) == (5, 5)
    texts = texts_of(figure)
    assert texts[:5] == ["input", "alibi", "alibi, jitter 0.5", "alibi, jitter 2", "stock"]
    assert texts[5::5] == ["tensor of zeros", "dot grid", "noise", "0.png", "1.png"]
    zeros = [tile_pixels(figure, axes) for axes in grid_of(figure)[0]]
    assert (zeros[1] == 128).all(), "ALiBi tells places of an empty image apart"
    assert len(np.unique(zeros[4].reshape(-1, 3), axis=0)) > 4, "the position embedding does not show"


WRONG = {
    "no images": (("clusters", "--images", "nowhere"), "nowhere is not a folder"),
    "names": (("stress", "--names", "one"), "1 names for 2 models"),
    "same names": (("stress", "--names", "one", "one"), "cannot be told apart"),
    "no model": (("query_similarity", "--models", "nowhere/model/x"), "nowhere"),
    "size": (("token_geometry", "--size", "14"), "1 patches of 48 channels have no 3 components"),
    "no size": (("stress", "--size", "56", "0"), "The size is 56 0; it must be 1 pixel or more"),
    "query": (("query_similarity", "--query", "0.5", "1.5"), "outside the image"),
    "clusters": (("clusters", "--clusters", "99"), "99 clusters of 16 patches"),
    "masks": (("clusters", "--masks", "nowhere"), "nowhere is not a folder"),
    "jitter": (("stress", "--jitter", "-1"), "must be a positive number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_with_a_message_and_without_a_file(run, folder, capsys, case):
    (command, *options), message = WRONG[case]
    assert run(command, *options) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "figure.png").exists()


def test_masks_must_be_there_and_of_the_size_of_their_images(run, folder, capsys):
    Image.new("L", (70, 71)).save(folder / "masks" / "1.png")
    assert run("clusters", "--masks", folder / "masks") == 2
    assert "1.png has 70×71 pixels, its image 70×70" in capsys.readouterr().err
    (folder / "masks" / "1.png").unlink()
    assert run("clusters", "--masks", folder / "masks") == 2
    assert "1.png: there is no mask of the same name" in capsys.readouterr().err


def test_jitter_needs_a_model_with_distances(run, capsys):
    assert run("stress", "--jitter", 1, models=["stock"]) == 2
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


def test_cloud_keeps_variances_and_places():
    cloud = token_cloud(FEATURES)
    assert cloud.shape == (6, 9, 3)
    patches = FEATURES.reshape(-1, 20) - FEATURES.reshape(-1, 20).mean(axis=0)
    singular_values = np.linalg.svd(patches, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(cloud.reshape(-1, 3), axis=0), singular_values[:3])
    np.testing.assert_allclose(np.abs(cloud[5, 8]), np.abs(token_cloud(FEATURES[::-1])[0, 8]))


def test_cloud_is_drawn_in_the_colours_of_the_places():
    figure = panel([[cloud_tile(token_cloud(FEATURES))]], ["model"])
    drawn = tile_pixels(figure, figure.axes[0]).reshape(-1, 3)
    # Points are a few pixels wide and smoothed at the edge, and some hide others.
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
