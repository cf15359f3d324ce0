# SPDX-License-Identifier: Apache-2.0
"""Class maps over their images."""

import numpy as np
import tifffile

from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.overlays import outlines, overlay


def test_overlay_of_a_large_image_is_small_and_shows_both(tmp_path):
    height, width = 2100, 4100
    image, labels = (
        np.random.default_rng(0).integers(0, 60, (height, width), np.uint8),
        np.ones((height, width), dtype=np.uint8),
    )
    image[:, width // 2 :] += 150
    labels[:, width // 2 :] = 2
    tifffile.imwrite(tmp_path / "image.tif", image)
    with open_image(tmp_path / "image.tif") as source:
        picture = np.asarray(overlay(source, labels, 0, [1, 2], ["left", "right"]))
    assert picture.shape[1] == width // 3
    for column, number, mean in ((300, 1, 29.5), (1000, 2, 179.5)):
        expected = 0.65 * mean + 0.35 * class_colours()[number]
        # Means of 9 pixels of noise, over 600 × 100 of them.
        np.testing.assert_allclose(picture[:600, column : column + 100].mean(axis=(0, 1)), expected, atol=1)


def test_outlines_are_where_classes_change():
    labels = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    np.testing.assert_array_equal(outlines(labels), [[0, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert len(np.unique(class_colours()[:8], axis=0)) == 8
