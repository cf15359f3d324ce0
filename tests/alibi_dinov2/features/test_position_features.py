# SPDX-License-Identifier: Apache-2.0
"""Positions are those of a double loop, whatever the block, and end at 0 and 1 in images of all sizes."""

import numpy as np
import pytest

from alibi_dinov2.features.position_features import POSITIONS, position_features, require_positions


def slow(shape, row, column):
    height, width = shape
    nearest = min(row + 0.5, height - row - 0.5, column + 0.5, width - column - 0.5)
    return [(row + 0.5) / height, (column + 0.5) / width, nearest / (min(shape) / 2)]


@pytest.mark.parametrize("shape", [(7, 12), (30, 5), (1, 1)])
def test_they_are_a_double_loop(shape):
    whole = position_features(shape, (slice(0, shape[0]), slice(0, shape[1])), POSITIONS)
    assert whole.dtype == np.float32
    for row in range(shape[0]):
        for column in range(shape[1]):
            np.testing.assert_allclose(whole[row, column], slow(shape, row, column), rtol=1e-6)
            part = position_features(shape, (slice(row, shape[0]), slice(column, shape[1])), ("border", "row"))
            np.testing.assert_array_equal(part, whole[row:, column:][..., [2, 0]])


def test_others_are_refused():
    require_positions([])
    require_positions(("row", "border"))
    for wrong in ("row", ["radius"], ["row", "row"]):
        with pytest.raises(ValueError, match="give some of row, column, border"):
            require_positions(wrong)
