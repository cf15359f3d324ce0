# SPDX-License-Identifier: Apache-2.0
"""Ramps are the functions of the place that their names say."""

import numpy as np
import pytest

from evaluation.position.position_targets import RAMPS, position_targets, ramp_targets


def ramps(rows: int, columns: int, seed: int = 0) -> dict[str, np.ndarray]:
    targets = ramp_targets(RAMPS, rows, columns, np.random.default_rng(seed))
    return {name: ramp.reshape(rows, columns, -1) for name, ramp in targets.items()}


def test_places_run_from_0_to_1_along_columns_and_rows():
    targets = position_targets(3, 5).reshape(3, 5, 2)
    np.testing.assert_allclose(targets[1, :, 0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(targets[:, 2, 1], [0, 0.5, 1])


def test_every_ramp_by_hand():
    found = ramps(3, 3)
    side = 1 - 1 / np.sqrt(2)  # the corners are √2 from the middle
    np.testing.assert_allclose(found["left_right"][1, :, 0], [0, 0.5, 1])
    np.testing.assert_allclose(found["up_down"][:, 1, 0], [0, 0.5, 1])
    np.testing.assert_allclose(found["diagonal"][..., 0], [[0, 0.25, 0.5], [0.25, 0.5, 0.75], [0.5, 0.75, 1]])
    np.testing.assert_allclose(found["radial"][..., 0], [[0, side, 0], [side, 1, side], [0, side, 0]], atol=1e-12)
    np.testing.assert_allclose(found["raster"].ravel(), np.arange(9) / 8)
    np.testing.assert_array_equal(found["x_y"][..., :1], found["left_right"])
    np.testing.assert_array_equal(found["x_y"][..., 1:], found["up_down"])


def test_all_run_from_0_to_1_on_any_grid():
    for ramp in ramps(4, 7).values():
        assert ramp.min() == 0
        assert ramp.max() == 1


def test_diagonal_grows_as_much_by_row_as_by_column():
    diagonal = ramps(4, 9)["diagonal"][..., 0]
    np.testing.assert_allclose(np.diff(diagonal, axis=0)[0, 0], np.diff(diagonal, axis=1)[0, 0])


def test_radial_is_the_same_mirrored():
    radial = ramps(6, 9)["radial"]
    np.testing.assert_allclose(radial, radial[::-1, ::-1])


def test_random_is_that_of_the_seed():
    np.testing.assert_array_equal(ramps(5, 5)["random"], ramps(5, 5)["random"])
    assert (ramps(5, 5)["random"] != ramps(5, 5, seed=1)["random"]).any()


def test_unknown_ramps_and_grids_without_a_ramp_are_refused():
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no ramp spiral; choose from left_right, up_down"):
        ramp_targets(["radial", "spiral"], 4, 4, random)
    with pytest.raises(ValueError, match="up_down ramp is the same all over 1×9 patches"):
        ramp_targets(["left_right", "up_down"], 1, 9, random)
    assert list(ramp_targets(["left_right"], 1, 9, random)) == ["left_right"]
