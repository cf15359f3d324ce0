# SPDX-License-Identifier: Apache-2.0
"""Features as whole numbers: the same order as float16, there and back."""

import numpy as np
import pytest

from alibi_dinov2.features.half_precision import from_ordered, half, ordered_thresholds, to_ordered

BITS = np.arange(2**16, dtype=np.uint16).view(np.float16)
ALL = np.unique(BITS[np.isfinite(BITS)]).astype(np.float32)  # every float16, ascending


def test_every_half_float_keeps_its_place_and_comes_back():
    ordered = to_ordered(ALL)
    assert (np.diff(ordered.astype(int)) > 0).all()
    np.testing.assert_array_equal(from_ordered(ordered), ALL)
    assert to_ordered(np.float32([-0.0])) == to_ordered(np.float32([0.0]))


def test_features_are_rounded_as_numpy_does():
    features = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32) ** 5
    np.testing.assert_array_equal(from_ordered(to_ordered(features)), features.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(half(features.T), features.T.astype(np.float16))


def test_a_threshold_splits_them_where_it_splits_their_values():
    random = np.random.default_rng(1)
    thresholds = np.concatenate(
        [
            random.normal(size=200) * 10.0 ** random.integers(-9, 6, 200),
            random.choice(ALL, 200),
            np.nextafter(random.choice(ALL, 200), np.inf),
            [0.0, -0.0, 65504.0, 65505.0, 1e9, -1e9, np.inf, -np.inf, 1e-30, -1e-30],
        ]
    ).astype(np.float32)
    ordered = to_ordered(ALL)
    for threshold, found in zip(thresholds, ordered_thresholds(thresholds), strict=True):
        np.testing.assert_array_equal(ordered >= found, threshold <= ALL, err_msg=str(threshold))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 7e4, -7e4])
def test_what_half_precision_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="cannot be kept in half precision"):
        to_ordered(np.array([0.0, value], dtype=np.float32))
