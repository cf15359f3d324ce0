# SPDX-License-Identifier: Apache-2.0
"""Samples take the patches they say, and test on none that they fit on."""

import numpy as np
import pytest

from evaluation.position.patch_sampling import SAMPLINGS, sample_patches, sample_repeatedly


def draw(sampling: str, rows: int = 37, columns: int = 50, repeats: int = 5, seed: int = 0, **options):
    sample = sample_repeatedly(sampling, rows, columns, repeats, np.random.default_rng(seed), **options)
    assert sample.train.shape == sample.held_out.shape == (repeats, rows * columns)
    return sample.train.reshape(-1, rows, columns), sample.held_out.reshape(-1, rows, columns)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_no_patch_is_both_fitted_and_tested_on(sampling):
    train, held_out = draw(sampling)
    assert not (train & held_out).any()
    assert (train.sum(axis=(1, 2)) >= 2).all()
    if sampling in ("random", "grid"):
        assert (train | held_out).all()


def test_random_sample_is_of_the_fraction_and_new_each_time():
    assert sample_patches(37 * 37, 1 / 36, np.random.default_rng(0)).sum() == 38
    train, _ = draw("random")
    assert (train.sum(axis=(1, 2)) == 37 * 50 // 36).all()
    assert len({mask.tobytes() for mask in train}) == 5
    np.testing.assert_array_equal(train, draw("random")[0])
    assert (train != draw("random", seed=1)[0]).any()


def test_grids_have_every_sixth_patch_and_begin_in_different_places():
    train, _ = draw("grid", repeats=36)
    expected = np.zeros((37, 50), dtype=bool)
    expected[::6, ::6] = True
    np.testing.assert_array_equal(train[0], expected)
    # All 36 grids, each patch in one of them.
    np.testing.assert_array_equal(train.sum(axis=0), np.ones((37, 50)))


def test_held_out_region_is_the_outside_of_a_block():
    train, held_out = draw("grid_corner", 20, 30, step=3)
    assert not held_out[:, :14, :21].any()
    assert held_out[:, 14:].all()
    assert held_out[:, :, 21:].all()
    np.testing.assert_array_equal(np.argwhere(train[0])[[0, -1]], [[0, 0], [12, 18]])

    train, held_out = draw("grid_centre", 20, 30, step=3)
    np.testing.assert_array_equal(np.argwhere(~held_out[0])[[0, -1]], [[3, 4], [16, 24]])
    np.testing.assert_array_equal(np.argwhere(train[0])[[0, -1]], [[3, 4], [15, 22]])


@pytest.mark.parametrize(("count", "fraction"), [(71, 1 / 36), (10, 1.0), (10, 0.9)])
def test_too_few_patches_are_refused(count, fraction):
    with pytest.raises(ValueError, match="the probe needs 2 to fit on and 2 to test on"):
        sample_patches(count, fraction, np.random.default_rng(0))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_grids_of_too_few_patches_are_refused(sampling):
    with pytest.raises(ValueError, match=r"Of 25 patches .* the probe needs 2 to fit on"):
        draw(sampling, 5, 5)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="no sampling everything; choose from random, grid"):
        draw("everything")
    with pytest.raises(ValueError, match="37 draws were asked for; at least 1 is needed, and 36 grids are different"):
        draw("grid", repeats=37)
    with pytest.raises(ValueError, match="0 draws"):
        draw("random", repeats=0)
