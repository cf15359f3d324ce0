# SPDX-License-Identifier: Apache-2.0
"""Tiles stand where they belong."""

import numpy as np
from PIL import Image

from alibi_dinov2.pictures.panels import caption, heading, image_tile, map_tile, panel, resample


def test_panel_has_a_row_per_image_and_a_column_per_label():
    red, blue = (Image.new("RGB", (60, 40), colour) for colour in ("red", "blue"))
    narrow = Image.new("RGB", (20, 40), "lime")
    sheet = panel([[red, blue], [narrow, red]], ["first", "second"])
    assert sheet.size == (2 * 60 + 6, 24 + 2 * (6 + 40))
    assert sheet.getpixel((30, 50)) == (255, 0, 0)
    assert sheet.getpixel((96, 50)) == (0, 0, 255)
    assert sheet.getpixel((30, 96)) == (0, 255, 0)
    assert sheet.getpixel((5, 96)) == (255, 255, 255)
    assert sheet.getpixel((96, 96)) == (255, 0, 0)
    assert np.asarray(sheet)[:24, :60].min() < 100, "no label over the first column"


def test_map_tile_has_the_extent_of_the_image_and_sharp_patches():
    colours = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    image = Image.new("L", (100, 50))
    tile = map_tile(colours, image, height=20)
    assert tile.size == image_tile(image, height=20).size == (40, 20)
    assert tile.getpixel((19, 10)) == (255, 0, 0)
    assert tile.getpixel((20, 10)) == (0, 0, 255)


def test_long_labels_shrink_into_their_column():
    dark = np.asarray(heading(["a label that is far too long for the column", ""], 100)).min(axis=(0, 2)) < 128
    assert dark[:100].any()
    assert not dark[100:].any()


def test_caption_stands_under_the_picture():
    tile = Image.new("RGB", (120, 30), "red")
    described = caption(tile, "position 0.5")
    assert described.size == (120, 54)
    np.testing.assert_array_equal(np.asarray(described)[:30], np.asarray(tile))
    assert np.asarray(described)[30:].min() < 100


def test_resampling_takes_the_nearest_value():
    values = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(resample(values, 3, 4), values)
    np.testing.assert_array_equal(resample(values, 6, 8), np.repeat(np.repeat(values, 2, axis=0), 2, axis=1))
    np.testing.assert_array_equal(resample(values, 1, 2), [[5, 7]])
