# SPDX-License-Identifier: Apache-2.0
"""Layers as the segmenter sees them."""

import numpy as np
import pytest
from napari.components import Dims, ViewerModel
from napari.layers import Image
from napari_alibi_dinov2.images import Seen, current_slice, image_of, pixel_size, stack_shape, visible_block

WHOLE = slice(0, 6), slice(0, 8)


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def test_a_grey_image_is_one_slice_in_grey():
    array = noise(6, 8)
    image = image_of(Image(array), Seen())
    assert (image.slices, image.shape) == (1, (6, 8))
    np.testing.assert_array_equal(image.read(0, *WHOLE), np.repeat(array[..., None], 3, axis=2))


def test_all_axes_but_rows_and_columns_are_slices_in_their_order():
    array = noise(2, 3, 6, 8)
    layer = Image(array)
    image = image_of(layer, Seen())
    assert image.slices == 6
    for index, page in enumerate(array.reshape(6, 6, 8)):
        np.testing.assert_array_equal(image.read(index, *WHOLE)[..., 0], page)
    assert stack_shape(layer) == array.shape


def test_the_first_axis_can_have_channels():
    array = noise(2, 3, 6, 8)
    layer = Image(array)
    image = image_of(layer, Seen(channel=1, channels_first=True))
    assert image.slices == 3
    np.testing.assert_array_equal(image.read(2, *WHOLE)[..., 0], array[1, 2])
    assert stack_shape(layer, channels_first=True) == (3, 6, 8)


def test_colours_are_seen_all_or_one():
    array = noise(2, 6, 8, 3)
    layer = Image(array, rgb=True)
    np.testing.assert_array_equal(image_of(layer, Seen()).read(1, *WHOLE), array[1])
    green = image_of(layer, Seen(channel=1)).read(1, *WHOLE)
    np.testing.assert_array_equal(green, np.repeat(array[1, ..., 1:2], 3, axis=2))


def test_of_a_pyramid_the_finest_level_is_segmented():
    array = noise(64, 64)
    image = image_of(Image([array, array[::2, ::2]], multiscale=True), Seen())
    assert image.shape == (64, 64)


def test_16_bits_are_stretched_alike_in_all_slices():
    array = noise(2, 40, 40, dtype=np.uint16) + np.uint16(20_000)
    array[1] += 100
    levels = [image_of(Image(array), Seen()).read(index, slice(0, 40), slice(0, 40)) for index in (0, 1)]
    assert len(np.unique(levels)) > 100
    assert levels[1].mean() > levels[0].mean() + 20
    limited = image_of(Image(array), Seen(contrast=(20_000.0, 20_010.0))).read(0, slice(0, 40), slice(0, 40))
    np.testing.assert_array_equal(limited[array[0] >= 20_010], 255)


def test_what_cannot_be_segmented_is_refused_with_a_reason():
    with pytest.raises(ValueError, match="no axis of channels"):
        image_of(Image(noise(6, 8)), Seen(channel=0, channels_first=True))
    with pytest.raises(ValueError, match="choose one"):
        image_of(Image(noise(2, 6, 8)), Seen(channels_first=True))


def test_the_slice_that_is_shown_has_its_number_whatever_the_scale():
    viewer = ViewerModel()
    layer = viewer.add_image(noise(2, 3, 6, 8), scale=(10, 4, 0.5, 0.5), translate=(5, 7, 1, 1))
    viewer.dims.set_point((0, 1), (15.0, 15.0))
    assert current_slice(layer, viewer.dims) == 1 * 3 + 2
    viewer.dims.ndisplay = 3
    with pytest.raises(ValueError, match="two dimensions"):
        current_slice(layer, viewer.dims)
    viewer.dims.ndisplay = 2
    viewer.dims.order = (2, 1, 0, 3)
    with pytest.raises(ValueError, match="rows and columns"):
        current_slice(layer, viewer.dims)


def test_a_plain_image_has_slice_0():
    assert current_slice(Image(noise(6, 8)), Dims(ndim=2)) == 0


def test_pixels_have_a_size_if_the_scale_has_a_unit_of_length():
    assert pixel_size(Image(noise(6, 8), scale=(2, 3))) is None
    found = pixel_size(Image(noise(6, 8), scale=(2, 3), units=("nm", "nm")))
    assert found.unit == "µm"
    np.testing.assert_allclose(found[:2], (0.002, 0.003))


def test_what_is_seen_is_cut_around_its_middle():
    layer = Image(noise(100, 100))
    layer.corner_pixels = np.array([[20, 30], [59, 89]])
    assert visible_block(layer, (100, 100), 10**6) == (slice(20, 60), slice(30, 90))
    rows, columns = visible_block(layer, (100, 100), 600)
    assert rows.stop - rows.start == 20
    assert columns.stop - columns.start == 30
    assert rows.start + rows.stop == 80
    assert columns.start + columns.stop == 120
    layer.corner_pixels = np.array([[-50, 300], [-20, 400]])  # the viewer looks elsewhere
    assert visible_block(layer, (100, 100), 10**6) == (slice(0, 100), slice(0, 100))
