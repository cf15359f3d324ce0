# SPDX-License-Identifier: Apache-2.0
"""The panel of principal components and the command that draws it."""

import sys

import numpy as np
import pytest
import tifffile
from matplotlib.figure import Figure
from PIL import Image

from alibi_dinov2 import cli
from alibi_dinov2.feature_panel import feature_panel
from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.columns import columns
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.pictures.feature_colours import feature_colours
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from tests.drawn_panels import grid_of, pixel_at, shape_of, texts_of


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 70, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_teacher):
    """A folder with the models `alibi` and `stock` and two images."""
    for name, model in (("alibi", tiny_model()), ("stock", tiny_teacher())):
        model.save_pretrained(tmp_path / name)
        Dinov2AlibiImageProcessor().save_pretrained(tmp_path / name)
    (tmp_path / "images").mkdir()
    for number in range(2):
        noise(number).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


@pytest.fixture
def pca(folder, monkeypatch):
    """`pca(*options)`: run the command on both models and images; its exit status."""

    def run(*options) -> int:
        words = ["pca", "--models", folder / "alibi", folder / "stock", "--images", folder / "images"]
        words += ["--size", 56, "--output", folder / "figure.png", *options]
        monkeypatch.setattr(sys, "argv", ["alibi-dinov2", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    return run


@pytest.mark.parametrize("shared", [False, True])
def test_tiles_are_the_components_of_each_image_or_of_all(folder, shared):
    images, backbones = [noise(0), noise(1)], [load_backbone(folder / name) for name in ("alibi", "stock")]
    figure = feature_panel(images, columns(backbones, [56]), shared=shared)
    assert shape_of(figure) == (2, 3)
    assert texts_of(figure) == ["image", "alibi", "stock"]
    maps = [list(dense_features(backbone, images, 56)) for backbone in backbones]
    if shared:
        expected = feature_colours(maps)
    else:
        own = [feature_colours([[model[index]] for model in maps]) for index in range(2)]
        expected = [[own[index][model][0] for index in range(2)] for model in range(2)]
    for index, row in enumerate(grid_of(figure)):
        for model, axes in enumerate(row[1:]):
            # The middles of the patches of a grid of 4 by 4, in their colours as they are: sharp, and in their place.
            middles = [[pixel_at(figure, axes, (x + 0.5) / 4, (y + 0.5) / 4) for x in range(4)] for y in range(4)]
            np.testing.assert_array_equal(middles, expected[model][index])


def test_command_sees_an_image_as_it_is_asked_to(pca, folder, capsys, monkeypatch):
    dim = np.tile(np.arange(0, 256, 4, dtype=np.uint16), (64, 1))
    for path in (folder / "images").iterdir():
        path.unlink()
    tifffile.imwrite(folder / "images" / "dim.tif", dim)
    seen = []
    monkeypatch.setattr(cli, "feature_panel", lambda images, *rest: seen.append((images[0], rest[0])) or Figure())
    for options in ((), ("--contrast", "full-range"), ("--dtype", "bfloat16")):
        assert pca(*options) == 0
    stretched, full, _ = (np.asarray(image) for image, _ in seen)
    assert np.ptp(stretched) == 255
    assert np.ptp(full) <= 1  # of 65,536 grey levels there are 256
    assert [str(of[0].backbone.model.dtype) for _, of in seen] == ["torch.float32", "torch.float32", "torch.bfloat16"]
    assert pca("--series", "other") == 2
    assert "other" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--shared", "--foreground", "--standardise"), ("--size", 56, 70)])
def test_command_writes_a_picture(pca, folder, capsys, options):
    assert pca(*options) == 0
    assert "figure.png: 2 images" in capsys.readouterr().out
    with Image.open(folder / "figure.png") as picture:
        columns_drawn = picture.width / picture.height * 2
        assert picture.format == "PNG"
    # Tiles of square images are as wide as high; headings take a little of the height.
    assert columns_drawn == pytest.approx(5 if "--size" in options else 3, rel=0.1)


def test_every_size_gives_every_model_a_column(folder):
    backbones = [load_backbone(folder / name) for name in ("alibi", "stock")]
    figure = feature_panel([noise(0)], columns(backbones, [56, 70]))
    assert shape_of(figure) == (1, 5)
    assert texts_of(figure) == ["image", "alibi, 56 px", "alibi, 70 px", "stock, 56 px", "stock, 70 px"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--images", "nowhere"), "nowhere"),
        (("--names", "one"), "1 names for 2 models"),
        (("--names", "one", "one"), "cannot be told apart"),
        (("--models", "nowhere/model/x"), "nowhere/model/x"),
        (("--size", "14"), "1 patches of 48 channels have no 3 components"),
        (("--size", "56", "0"), "The size is 56 0; it must be 1 pixel or more"),
    ],
)
def test_wrong_input_ends_with_a_message_and_without_a_file(pca, folder, capsys, options, message):
    assert pca(*options) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "figure.png").exists()
