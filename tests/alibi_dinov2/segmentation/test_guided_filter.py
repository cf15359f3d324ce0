# SPDX-License-Identifier: Apache-2.0
"""The guided filter is that of a double loop, keeps sums, moves borders of classes to edges, and leaves no seams."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from alibi_dinov2.segmentation.guided_filter import FLAT, filtered_probabilities, guided_filter
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from tests.alibi_dinov2.segmentation.materials import CLASSICAL, IMAGE, LABELS


def slow(guide, values, radius, flat):
    """Lines fitted in every window by least squares, averaged over the windows that have the pixel."""

    def windows(array):
        padded = np.pad(array, radius, mode="symmetric")
        for row in range(array.shape[0]):
            for column in range(array.shape[1]):
                yield row, column, padded[row : row + 2 * radius + 1, column : column + 2 * radius + 1].ravel()

    slopes, offsets = np.zeros_like(guide), np.zeros_like(guide)
    for (row, column, levels), (_, _, of_window) in zip(windows(guide), windows(values), strict=True):
        slopes[row, column] = np.cov(levels, of_window, bias=True)[0, 1] / (levels.var() + flat)
        offsets[row, column] = of_window.mean() - slopes[row, column] * levels.mean()
    found = np.zeros_like(guide)
    for (row, column, of_slopes), (_, _, of_offsets) in zip(windows(slopes), windows(offsets), strict=True):
        found[row, column] = of_slopes.mean() * guide[row, column] + of_offsets.mean()
    return found


@pytest.mark.parametrize(("radius", "flat"), [(1, FLAT), (3, FLAT), (2, 0.1)])
def test_it_is_a_slow_double_loop(radius, flat):
    random = np.random.default_rng(0)
    guide, values = random.random((14, 11)), random.random((14, 11, 2))
    found = guided_filter(guide, values, radius, flat)
    expected = np.stack([slow(guide, values[..., number], radius, flat) for number in range(2)], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # the result is float32


def test_borders_move_to_edges_and_probabilities_stay_probabilities():
    random = np.random.default_rng(0)
    truth = np.arange(60)[None].repeat(50, axis=0) >= 30
    image = (60 + 120 * truth + random.normal(0, 8, truth.shape)).clip(0, 255).astype(np.uint8)
    blurred = gaussian_filter(np.roll(truth, 3, axis=1).astype(np.float32), 4)
    before = np.stack([1 - blurred, blurred], axis=-1)
    after = filtered_probabilities(image[..., None].repeat(3, axis=-1), before, 8)
    wrong = [((found.argmax(axis=-1) == 1) != truth)[:, 10:50].mean() for found in (before, after)]
    assert wrong[0] > 0.05
    assert wrong[1] < 0.01
    assert after.dtype == np.float32
    assert after.min() >= 0
    np.testing.assert_allclose(after.sum(axis=-1), 1, atol=1e-6)


def test_a_flat_image_is_averaged_and_certainty_stays():
    certain = np.zeros((20, 30, 3), dtype=np.float32)
    certain[..., 1] = 1
    flat = np.full((20, 30, 3), 7, dtype=np.uint8)
    np.testing.assert_allclose(filtered_probabilities(flat, certain, 4), certain, atol=1e-6)
    spot = certain.copy()
    spot[10, 10] = 0, 0, 1
    assert (filtered_probabilities(flat, spot, 4).argmax(axis=-1) == 1).all()


def test_a_segmenter_filters_without_seams(hybrid):
    plain = hybrid(guided_radius=0).fit(IMAGE, LABELS)
    found = hybrid(guided_radius=4).fit(IMAGE, LABELS)
    pixels = np.repeat(IMAGE[..., None], 3, axis=-1)
    expected = filtered_probabilities(pixels, plain.predict_proba(IMAGE), 4)
    np.testing.assert_allclose(found.predict_proba(IMAGE), expected, atol=1e-6)
    assert not np.array_equal(found.predict(IMAGE), plain.predict(IMAGE))
    for segmenter in (plain, found):
        segmenter.features_ = replace(segmenter.features_, block_size=32)
    expected = filtered_probabilities(pixels, plain.predict_proba(IMAGE), 4)
    # Features of blocks differ by the rounding of float32, and a tree may go the other way then.
    assert (np.abs(found.predict_proba(IMAGE) - expected) < 1e-3).mean() > 0.99


def test_an_impossible_radius_is_refused():
    with pytest.raises(ValueError, match="must be 0 pixels, for no filter, or more"):
        TrainableSegmenter(classical=CLASSICAL, guided_radius=-1).fit(IMAGE, LABELS)
