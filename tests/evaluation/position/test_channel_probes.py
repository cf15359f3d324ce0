# SPDX-License-Identifier: Apache-2.0
"""The closed form for all channels is what scikit-learn finds channel by channel."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.position.channel_probes import ChannelScores, channel_r2
from evaluation.position.patch_sampling import SAMPLINGS, sample_repeatedly
from evaluation.position.position_targets import RAMPS, ramp_targets
from tests.comparison import assert_close

ROWS, COLUMNS = 24, 20
# Both are in double precision, and round in another order.
TOLERANCE = 1e-9


def features(layers: int = 2, width: int = 6, seed: int = 0) -> np.ndarray:
    """`(layers, 480, width)` float32 of all sorts: positional, far from zero, of large and of small variance."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(layers, ROWS, COLUMNS, width))
    values[..., 0] += np.linspace(-2, 2, COLUMNS)
    values[..., 1] = 300 + 0.01 * values[..., 1]
    values[..., 2] *= 1e4
    values[0, 3, 4, 3] = 1e3  # a single outlying patch
    return values.reshape(layers, -1, width).astype(np.float32)


def targets() -> np.ndarray:
    return np.concatenate(list(ramp_targets(RAMPS, ROWS, COLUMNS, np.random.default_rng(1)).values()), axis=1)


def by_scikit_learn(inputs: np.ndarray, expected: np.ndarray, sample, alpha: float) -> ChannelScores:
    """A pipeline for each layer, draw and channel."""
    layers, draws, width = len(inputs), len(sample.train), inputs.shape[-1]
    scores = ChannelScores(*np.empty((2, layers, draws, expected.shape[1], width)))
    for layer, draw, channel in np.ndindex(layers, draws, width):
        x, train = inputs[layer, :, [channel]].T.astype(np.float64), sample.train[draw]
        found = make_pipeline(StandardScaler(), Ridge(alpha)).fit(x[train], expected[train]).predict(x)
        for array, patches in ((scores.all_patches, np.s_[:]), (scores.held_out, sample.held_out[draw])):
            array[layer, draw, :, channel] = r2_score(expected[patches], found[patches], multioutput="raw_values")
    return scores


@pytest.mark.parametrize(("sampling", "alpha"), [*((name, 1.0) for name in SAMPLINGS), ("random", 0.0)])
def test_equals_scikit_learn_channel_by_channel(sampling, alpha):
    sample = sample_repeatedly(sampling, ROWS, COLUMNS, 2, np.random.default_rng(2), step=5)
    found = channel_r2(features(), targets(), sample.train, sample.held_out, alpha)
    expected = by_scikit_learn(features(), targets(), sample, alpha)
    assert found.all_patches.shape == (2, 2, 8, 6)
    assert_close(found.all_patches, expected.all_patches, TOLERANCE, "double precision")
    assert_close(found.held_out, expected.held_out, TOLERANCE, "double precision")


def test_penalty_counts():
    sample = sample_repeatedly("random", ROWS, COLUMNS, 2, np.random.default_rng(2))
    scores = [channel_r2(features(), targets(), sample.train, sample.held_out, alpha).held_out for alpha in (0, 1, 100)]
    assert np.abs(scores[0] - scores[1])[..., 0].max() > 1e-3
    assert np.abs(scores[2]).max() < np.abs(scores[1]).max()


def test_a_channel_that_is_the_target_scores_1():
    inputs, expected = features(), targets()
    inputs[:, :, 4] = 5 - 3 * expected[:, 0]
    sample = sample_repeatedly("random", ROWS, COLUMNS, 2, np.random.default_rng(2))
    scores = channel_r2(inputs, expected, sample.train, sample.held_out, alpha=0)
    # Features are in single precision.
    np.testing.assert_allclose(scores.all_patches[:, :, 0, 4], 1, atol=1e-9)
    np.testing.assert_allclose(scores.held_out[:, :, 0, 4], 1, atol=1e-9)


@pytest.mark.parametrize("elsewhere", [7.3, 9.0])
def test_a_constant_channel_predicts_the_mean_as_in_scikit_learn(elsewhere):
    sample = sample_repeatedly("random", ROWS, COLUMNS, 1, np.random.default_rng(2))
    inputs = features()
    inputs[:, :, 5] = 7.3
    inputs[:, ~sample.train[0], 5] = elsewhere  # constant everywhere, or where it is fitted only
    found = channel_r2(inputs, targets(), sample.train, sample.held_out)
    expected = by_scikit_learn(inputs, targets(), sample, 1.0)
    assert_close(found.all_patches, expected.all_patches, TOLERANCE, "double precision")
    assert (found.all_patches[..., 5] <= 0).all()
    everything = np.ones((1, ROWS * COLUMNS), dtype=bool)
    exact = channel_r2(inputs[..., [5]], targets(), everything, everything).all_patches
    if elsewhere == 7.3:
        np.testing.assert_allclose(exact, 0, atol=1e-12)


def test_a_negative_penalty_is_refused():
    sample = sample_repeatedly("random", ROWS, COLUMNS, 1, np.random.default_rng(2))
    with pytest.raises(ValueError, match=r"must not be negative; -1 was given"):
        channel_r2(features(), targets(), sample.train, sample.held_out, alpha=-1)
