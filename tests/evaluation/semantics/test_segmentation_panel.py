# SPDX-License-Identifier: Apache-2.0
"""Image, truth and prediction stand beside each other in the colours that the legend names."""

import numpy as np
from PIL import Image

from alibi_dinov2.pictures.colours import class_colours
from evaluation.semantics.miou import VOID
from evaluation.semantics.segmentation_panel import panel_row, segmentation_panel
from tests.drawn_panels import grid_of, pixel_at, texts_of


def test_panel_shows_image_truth_and_prediction():
    image = Image.new("RGB", (80, 60), (10, 20, 30))
    truth, prediction = np.full((60, 80), 1, dtype=np.uint8), np.full((60, 80), 2, dtype=np.uint8)
    truth[:, 40:] = VOID
    figure = segmentation_panel([image], [truth], [prediction], ["a", "b", "c"])
    one, two, void = (tuple(class_colours()[index].tolist()) for index in (1, 2, VOID))
    (row,) = grid_of(figure)
    assert [pixel_at(figure, axes, 0.25, 0.5) for axes in row] == [(10, 20, 30), one, two]
    assert [pixel_at(figure, axes, 0.75, 0.5) for axes in row] == [(10, 20, 30), void, void]
    assert texts_of(figure) == ["image", "ground truth", "prediction"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["b", "c"], "the two classes that are to be seen"
    faces = [tuple(round(255 * value) for value in patch.get_facecolor()[:3]) for patch in legend.get_patches()]
    assert faces == [one, two]


def test_what_is_void_in_the_truth_is_void_in_both_maps():
    truth = np.array([[0, VOID], [1, 2]], dtype=np.uint8)
    image, *maps = panel_row(Image.new("RGB", (2, 2)), truth, np.full((2, 2), 2, dtype=np.uint8))
    assert image.size == (2, 2)
    np.testing.assert_array_equal(maps[0].pixels, class_colours()[truth])
    np.testing.assert_array_equal(maps[1].pixels, class_colours()[[[2, VOID], [2, 2]]])
