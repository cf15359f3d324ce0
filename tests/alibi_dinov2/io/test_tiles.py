# SPDX-License-Identifier: Apache-2.0
from itertools import pairwise

import numpy as np
import pytest

from alibi_dinov2.io.tiles import blocks, window_starts, window_weights


@pytest.mark.parametrize(
    ("length", "window", "overlap"), [(37, 37, 8), (38, 37, 8), (100, 37, 8), (66, 37, 0), (5, 37, 8)]
)
def test_windows_cover_an_axis_and_overlap(length, window, overlap):
    starts = window_starts(length, window, overlap)
    covered = {cell for start in starts for cell in range(start, start + window)}
    assert covered >= set(range(length))
    assert starts == sorted(set(starts))
    assert all(second - first <= window - overlap for first, second in pairwise(starts))
    assert starts[-1] == max(length - window, 0)


def test_weights_fall_to_the_ends_only_where_windows_overlap():
    weights = window_weights(10, 3)
    assert weights.tolist() == [0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert window_weights(5, 0).tolist() == [1] * 5
    # Where two neighbours share exactly the overlap, their weights add up to one: neither is favoured.
    np.testing.assert_allclose(weights[-3:] + weights[:3], 1)


def test_blocks_tile_an_image_once():
    counted = np.zeros((70, 41), dtype=int)
    for block in blocks(counted.shape, 32):
        assert counted[block].size > 0
        counted[block] += 1
    assert (counted == 1).all()
