# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from alibi_dinov2.segmentation.uncertainty import uncertainty, where_to_draw


def test_uncertainty_is_one_less_the_margin():
    probabilities = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.7, 0.1], [1 / 3, 1 / 3, 1 / 3]], dtype=np.float32)
    np.testing.assert_allclose(uncertainty(probabilities), [0, 1, 0.5, 1], atol=1e-6)
    assert uncertainty(np.zeros((4, 5, 2))).shape == (4, 5)


def test_places_are_the_most_uncertain_ones_apart_from_each_other():
    uncertain = np.full((200, 300), 0.1, dtype=np.float32)
    uncertain[20:60, 30:70], uncertain[120:160, 200:240] = 0.6, 0.9
    first, second, *rest = where_to_draw(uncertain, 5, 40)
    assert (first.row, first.column) == pytest.approx((140, 220), abs=1)
    assert (second.row, second.column) == pytest.approx((40, 50), abs=1)
    # The sum of 1,600 numbers in float32.
    assert (first.uncertainty, second.uncertainty) == pytest.approx((0.9, 0.6), abs=1e-4)
    places = np.array([place[:2] for place in (first, second, *rest)])
    for index, place in enumerate(places):
        apart = abs(places[:index] - place).max(axis=1, initial=0)
        assert index == 0 or apart.min() >= 40


def test_what_was_drawn_on_counts_no_more():
    uncertain = np.zeros((100, 100), dtype=np.float32)
    uncertain[10:30, 10:30], uncertain[70:90, 70:90] = 1, 0.5
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[10:30:10, 10:30:10] = 2
    (place,) = where_to_draw(uncertain, 1, 20, labels)
    assert (place.row, place.column) == pytest.approx((80, 80), abs=1)
    assert where_to_draw(uncertain, 3, 20, labels + 1) == []


def test_small_images_have_a_place_too():
    assert len(where_to_draw(np.ones((5, 7), np.float32), 3)) == 1
    with pytest.raises(ValueError, match="give 1 or more"):
        where_to_draw(np.ones((5, 7)), 0)
    with pytest.raises(ValueError, match="give equal ones"):
        where_to_draw(np.ones((5, 7)), labels=np.zeros((7, 5)))
