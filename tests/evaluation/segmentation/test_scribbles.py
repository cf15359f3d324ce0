# SPDX-License-Identifier: Apache-2.0
"""Simulated strokes lie in their class, hang together, have the length that was asked for, and come from the seed."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from evaluation.segmentation.scribbles import add_strokes, stroke, stroke_rounds
from evaluation.semantics.miou import VOID

CORNERS = np.ones((3, 3), dtype=bool)


def blobs(side: int = 96, seed: int = 0) -> np.ndarray:
    """A mask of three classes in patches of some ten pixels."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 5)
    return np.digitize(values, np.quantile(values, [0.4, 0.8])).astype(np.uint8)


def pieces(drawn: np.ndarray) -> int:
    return ndimage.label(drawn, CORNERS)[1]


def line(mask: np.ndarray, length: int, seed: int = 0, width: int = 1) -> np.ndarray:
    return stroke(mask, length, width, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(20))
def test_stroke_is_one_line_of_the_asked_length(seed):
    drawn = line(np.ones((60, 80), dtype=bool), 25, seed)
    assert drawn.sum() == 25
    assert pieces(drawn) == 1


@pytest.mark.parametrize("width", [1, 3, 5])
def test_stroke_stays_in_its_region_and_in_one_piece(width):
    for seed in range(20):
        region = blobs(seed=seed) == seed % 3
        drawn = line(region, 25, seed, width)
        assert drawn.any()
        assert not (drawn & ~region).any()
        assert pieces(drawn) == 1


def test_brush_has_its_width():
    drawn = line(np.ones((100, 100), dtype=bool), 30, width=5)
    thin = line(np.ones((100, 100), dtype=bool), 30)
    assert (drawn & thin).sum() == 30
    assert (ndimage.distance_transform_cdt(~thin, "taxicab") <= 2)[drawn].all()
    assert drawn.sum() > 4 * thin.sum()


def test_wide_brush_does_not_jump_over_a_wall():
    mask = np.ones((9, 60), dtype=bool)
    mask[4] = False
    for seed in range(10):
        drawn = line(mask, 20, seed, width=5)
        assert pieces(drawn) == 1
        assert not (drawn[:4].any() and drawn[5:].any())


@pytest.mark.parametrize("seed", range(10))
def test_thin_region_is_followed_round_its_corners(seed):
    mask = np.zeros((40, 40), dtype=bool)
    mask[5, 5:35] = mask[5:35, 34] = True
    drawn = line(mask, 25, seed)
    assert drawn.sum() == 25
    assert not (drawn & ~mask).any()


def test_region_that_is_too_small_is_crossed_from_end_to_end():
    for seed in range(10):
        mask = np.zeros((40, 40), dtype=bool)
        mask[20, 8:20] = True
        np.testing.assert_array_equal(line(mask, 25, seed), mask)
        mask[:] = False
        mask[3, 7] = True
        np.testing.assert_array_equal(line(mask, 25, seed), mask)


def test_strokes_bend_and_begin_in_all_places():
    drawn = [line(np.ones((64, 64), dtype=bool), 25, seed) for seed in range(40)]
    straight = [min(np.ptp(np.argwhere(one), axis=0)) == 0 for one in drawn]
    assert np.mean(straight) < 0.1
    centres = np.array([np.argwhere(one).mean(axis=0) for one in drawn])
    assert (centres.min(axis=0) < 20).all()
    assert (centres.max(axis=0) > 44).all()


def test_straight_strokes_are_straight_and_as_long_as_there_is_room():
    angles = []
    for seed in range(40):
        drawn = stroke(np.ones((80, 90), dtype=bool), 25, 1, np.random.default_rng(seed), straight=True)
        assert drawn.sum() == 25
        assert pieces(drawn) == 1
        places = np.argwhere(drawn).astype(float)
        _, sizes, (along, _) = np.linalg.svd(places - places.mean(axis=0))
        assert sizes[1] < 2  # half a pixel of rounding at each of 25 places
        angles.append(np.arctan2(*along) % np.pi)
    assert np.histogram(angles, 4, (0, np.pi))[0].min() > 2
    for seed in range(20):
        region = blobs(seed=seed) == seed % 3
        drawn = stroke(region, 25, 1, np.random.default_rng(seed), straight=True)
        assert 1 <= drawn.sum() <= 25
        assert not (drawn & ~region).any()
        assert pieces(drawn) == 1


def test_straight_stroke_takes_the_longest_way_where_none_is_long_enough():
    mask = np.zeros((40, 40), dtype=bool)
    mask[10, 8:20] = mask[10:13, 8] = True
    drawn = stroke(mask, 25, 1, np.random.default_rng(0), straight=True)
    assert drawn.sum() >= 6  # it begins somewhere on a line of 12


def test_impossible_strokes_are_refused():
    region = np.ones((8, 8), dtype=bool)
    for length, width in ((0, 1), (5, 2), (5, 0), (5, -1)):
        with pytest.raises(ValueError, match=r"length is 1 or more, its width 1, 3, 5"):
            line(region, length, width=width)
    with pytest.raises(ValueError, match="region is empty"):
        line(~region, 5)


def test_every_class_that_occurs_gets_a_stroke_over_nothing():
    mask = blobs()
    mask[mask == 1] = VOID
    before = np.zeros(mask.shape, dtype=np.uint8)
    random = np.random.default_rng(0)
    once = add_strokes(before, mask, random)
    twice = add_strokes(once, mask, random)
    assert not before.any()
    for labels, count in ((once, 25), (twice, 50)):
        np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], [count, 0, count])
        np.testing.assert_array_equal(labels[labels > 0] - 1, mask[labels > 0])
    np.testing.assert_array_equal(twice[once > 0], once[once > 0])


def test_class_that_is_labelled_everywhere_gets_nothing_more():
    mask = np.zeros((6, 6), dtype=np.uint8)
    mask[2, 2:4] = 1
    *_, (last,) = stroke_rounds([mask], 60, 0, length=4)
    np.testing.assert_array_equal(last, mask + 1)


def test_rounds_come_from_the_seed_and_grow():
    masks = [blobs(seed=1), blobs(seed=2)]
    rounds, again, other = (list(stroke_rounds(masks, 4, seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(rounds, again)
    assert (np.array(rounds) != np.array(other)).any()
    for before, after in pairwise(rounds):
        for drawn, more in zip(before, after, strict=True):
            np.testing.assert_array_equal(more[drawn > 0], drawn[drawn > 0])
            assert (more > 0).sum() > (drawn > 0).sum()


def test_longer_run_begins_alike_and_an_image_depends_on_no_other():
    masks = [blobs(seed=1), blobs(seed=2)]
    short, long = list(stroke_rounds(masks, 2, 0)), list(stroke_rounds(masks, 3, 0))
    np.testing.assert_array_equal(short, long[:2])
    np.testing.assert_array_equal([image for image, _ in short], [image for (image,) in stroke_rounds(masks[:1], 2, 0)])
