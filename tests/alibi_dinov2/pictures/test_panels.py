# SPDX-License-Identifier: Apache-2.0
"""Tiles stand where they belong, texts above and under them, and pixels are sharp."""

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.pictures.panels import DPI, Tile, image_tile, legend_strip, panel, rasterise, save_figure
from tests.drawn_panels import grid_of, pixel_at, shape_of, texts_of, tile_pixels

RED, BLUE, LIME = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def plain(colour: tuple[int, int, int], width: int = 60, height: int = 40, **options) -> Tile:
    return image_tile(np.full((height, width, 3), colour, dtype=np.uint8), **options)


def test_panel_has_a_row_per_image_and_a_column_per_heading():
    figure = panel([[plain(RED), plain(BLUE)], [plain(LIME, 20), plain(RED)]], ["first", "second"])
    assert shape_of(figure) == (2, 2)
    colours = [[pixel_at(figure, axes, 0.5, 0.5) for axes in row] for row in grid_of(figure)]
    assert colours == [[RED, BLUE], [LIME, RED]]
    assert texts_of(figure) == ["first", "second"]


def test_columns_are_equally_wide_and_a_narrow_tile_is_centred_in_its_own():
    figure = panel([[plain(RED), plain(BLUE)], [plain(LIME, 20), plain(RED)]], ["first", "second"])
    drawn = rasterise(figure)

    def extent(colour: tuple[int, int, int]) -> tuple[int, int]:
        _, columns = np.nonzero((drawn == colour).all(axis=-1))
        first_column = columns < drawn.shape[1] // 2
        return columns[first_column].min(), columns[first_column].max()

    (left, right), (inner_left, inner_right) = extent(RED), extent(LIME)
    # To a pixel at each edge, where a tile does not begin on a whole one.
    assert inner_right - inner_left == pytest.approx((right - left) / 3, abs=2)
    assert inner_left + inner_right == pytest.approx(left + right, abs=2)


def test_map_is_drawn_over_its_image_with_sharp_patches():
    pixels = np.array([[RED, BLUE]], dtype=np.uint8)
    figure = panel([[plain(LIME, 100, 50), Tile(pixels, (100, 50))]], ["image", "map"])
    ((image, drawn_map),) = grid_of(figure)
    found = tile_pixels(figure, drawn_map)
    assert found.shape == pytest.approx(tile_pixels(figure, image).shape, abs=1)
    assert {tuple(colour) for colour in np.unique(found.reshape(-1, 3), axis=0).tolist()} == {RED, BLUE}
    # Half of the map each, to the pixel that the border may fall on.
    assert (found == RED).all(axis=-1).sum(axis=1) == pytest.approx(found.shape[1] / 2, abs=1)


def test_large_photographs_are_averaged():
    stripes = np.zeros((1200, 1200, 3), dtype=np.uint8)
    stripes[::2] = 255
    figure = panel([[image_tile(stripes)]], ["image"])
    found = tile_pixels(figure, grid_of(figure)[0][0])
    assert abs(found.mean() - 127.5) < 5
    assert found.std() < 64, "black and white stripes, which average to grey"


def test_captions_and_footer_stand_under_their_columns():
    figure = panel([[plain(RED, caption="position 0.5"), plain(BLUE)]], ["one", "two"], ["all 0.5", "all 0.7"])
    assert texts_of(figure) == ["one", "two", "position 0.5", "all 0.5", "all 0.7"]
    ((left, right),) = grid_of(figure)
    places = {text.get_text(): text.get_position() for text in figure.texts if text.get_text()}
    for axes, texts in ((left, ("one", "position 0.5", "all 0.5")), (right, ("two", "all 0.7"))):
        box = axes.get_position()
        assert [places[text][0] for text in texts] == pytest.approx([(box.x0 + box.x1) / 2] * len(texts))
    box = left.get_position()
    assert places["one"][1] > box.y1
    assert box.y0 > places["position 0.5"][1] > places["all 0.5"][1] > 0


@pytest.mark.parametrize(
    "text",
    [
        "a label that is far too long for its column and goes on",
        "someone/alibi-dinov2-small-of-micrographs-at-high-resolution",
    ],
)
def test_long_texts_stay_in_their_column_and_above_their_tiles(text):
    figure = panel([[plain(RED, caption=text), plain(RED)]] * 2, [text, ""], [text, ""])
    drawn = rasterise(figure)
    dark = drawn.max(axis=2) < 128
    width = dark.shape[1] // 2
    assert dark[:, :width].any()
    assert not dark[:, width:].any()
    for row in grid_of(figure):
        assert (tile_pixels(figure, row[0]) == RED).all(), "a text over a tile"
    assert not dark[[0, -1]].any(), "a text is cut off"


def test_mark_is_a_red_ring_around_its_point():
    figure = panel([[plain(BLUE, mark=(0.25, 0.75)), plain(BLUE)]], ["", ""])
    ((marked, other),) = grid_of(figure)
    found = tile_pixels(figure, marked)
    rows, columns = np.nonzero((found == RED).all(axis=-1))
    assert rows.mean() / found.shape[0] == pytest.approx(0.75, abs=0.01)
    assert columns.mean() / found.shape[1] == pytest.approx(0.25, abs=0.01)
    assert pixel_at(figure, marked, 0.25, 0.75) == BLUE, "the point itself is to be seen"
    assert (tile_pixels(figure, other) == BLUE).all()


def test_legend_shows_every_colour_and_needs_no_more_width_than_there_is():
    names = [f"a class with a long name, {number}" for number in range(7)]
    colours = np.random.default_rng(0).integers(0, 256, (7, 3), dtype=np.uint8)
    figure = panel([[plain(RED)]], ["image"], legend=list(zip(names, colours, strict=True)))
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == names
    drawn = rasterise(figure)
    for colour in colours:
        assert (drawn == colour).all(axis=-1).sum() > 20, "a square of the colour"
    assert (tile_pixels(figure, grid_of(figure)[0][0]) == RED).all()


@pytest.mark.parametrize("width", [90, 600])
def test_legend_strip_is_as_wide_as_its_picture_or_as_its_names(width):
    entries = [("grain", np.array([10, 200, 30], np.uint8)), ("grain boundary", np.array([200, 10, 30], np.uint8))]
    strip = legend_strip(entries, width)
    assert strip.shape[1] >= width
    assert strip.shape[1] == width or width == 90
    assert all((strip == colour).all(axis=-1).sum() > 20 for _, colour in entries)
    assert (strip[:, [0, -1]] == 255).all(), "a name is cut off"


def test_saved_figure_is_what_was_drawn_and_the_same_bytes_again(tmp_path):
    for name in ("a.png", "b.png"):
        figure = panel([[plain(RED), plain(BLUE)]], ["first", "second"])
        save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == pytest.approx(figure.get_size_inches() * DPI, abs=1)
        found = np.asarray(image.convert("RGB"))
    assert (found == RED).all(axis=-1).sum() == pytest.approx((found == BLUE).all(axis=-1).sum(), rel=0.02)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
