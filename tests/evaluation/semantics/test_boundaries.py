# SPDX-License-Identifier: Apache-2.0
"""The F-score of boundaries is that of a slow double loop, and falls as a boundary moves beyond the tolerance."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evaluation.semantics.boundaries import boundary_counts, boundary_f


def slow_boundary(labels, target, number, void):
    """Pixels of a class with a neighbour of another; none that is void or touches void."""
    found = []
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            near = [(row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            near = [(r, c) for r, c in near if 0 <= r < labels.shape[0] and 0 <= c < labels.shape[1]]
            if any(target[place] == void for place in near) or labels[row, column] != number:
                continue
            if any(labels[place] != number for place in near):
                found.append((row, column))
    return found


def slow_f(prediction, target, number, tolerance, void=255):
    lines = [slow_boundary(labels, target, number, void) for labels in (prediction, target)]
    if not lines[0] and not lines[1]:
        return np.nan
    shares = []
    for line, other in (lines, lines[::-1]):
        near = [any((a - c) ** 2 + (b - d) ** 2 <= tolerance**2 for c, d in other) for a, b in line]
        shares.append(sum(near) / len(near) if near else 0)
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0


def grains(seed, side=24):
    random = np.random.default_rng(seed)
    return gaussian_filter(random.normal(size=(3, side, side)), (0, 3, 3)).argmax(axis=0)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 2.9])
def test_it_is_a_slow_double_loop(tolerance):
    truth, prediction = grains(0), grains(1)
    truth[:5, 9:14] = 255
    prediction[15:, 15:] = truth[15:, 15:] % 3
    found = boundary_f(boundary_counts(prediction, truth, 4, tolerance))
    expected = [slow_f(prediction, truth, number, tolerance) for number in range(4)]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(found[3])


def test_a_boundary_counts_up_to_the_tolerance():
    truth = (np.arange(40) >= 20).astype(int)[None].repeat(30, axis=0)
    scores = [
        boundary_f(boundary_counts(np.roll(truth, shift, 1) * (np.arange(40) > 9), truth, 2)) for shift in range(5)
    ]
    assert [score.tolist() for score in scores[:3]] == [[1, 1]] * 3
    assert [score.tolist() for score in scores[3:]] == [[0, 0]] * 2


def test_images_are_summed():
    one, other = grains(0), grains(1)
    apart = boundary_counts(one, one, 3) + boundary_counts(other, one, 3)
    assert (boundary_f(apart) < 1).all()
    assert (boundary_f(apart) > boundary_f(boundary_counts(other, one, 3))).all()
    assert boundary_f(boundary_counts(one, one, 3)).tolist() == [1, 1, 1]
    assert boundary_f(boundary_counts(0 * one, one, 3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("prediction", "target", "tolerance", "message"),
    [
        (grains(0), grains(0)[1:], 2, "cannot be compared"),
        (grains(0) + 1, grains(0), 2, "labels out of range"),
        (grains(0), grains(0), -1, "must be 0 pixels or more"),
    ],
)
def test_wrong_input_is_refused(prediction, target, tolerance, message):
    with pytest.raises(ValueError, match=message):
        boundary_counts(prediction, target, 3, tolerance)
