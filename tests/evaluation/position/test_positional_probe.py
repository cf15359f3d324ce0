# SPDX-License-Identifier: Apache-2.0
"""The probe finds position where it is, and only there."""

import numpy as np
import pytest

from evaluation.position.channel_probes import channel_scores, most_positional_channels
from evaluation.position.patch_sampling import sample_patches
from evaluation.position.positional_probe import (
    probe_images,
    probe_position,
    summarise,
)


def features_with_position(rows: int, columns: int, noise: float, seed: int = 0) -> np.ndarray:
    """`(rows, columns, 16)`: x in channel 3, y in channel 7, and noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, columns, 16)) * noise
    features[..., 3] += np.linspace(-1, 1, columns)[None, :]
    features[..., 7] += np.linspace(-1, 1, rows)[:, None]
    return features.astype(np.float32)


def slow_ridge_r2(features: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """The probe written out: standardise, solve the normal equations with penalty 1, R² averaged over x and y."""
    rows, columns, width = features.shape
    inputs = features.reshape(-1, width).astype(np.float64)
    targets = np.array([[c / (columns - 1), r / (rows - 1)] for r in range(rows) for c in range(columns)])
    mean, std = inputs[train].mean(axis=0), inputs[train].std(axis=0)
    inputs = (inputs - mean) / std
    offset = targets[train].mean(axis=0)
    gram = inputs[train].T @ inputs[train] + np.eye(width)
    weights = np.linalg.solve(gram, inputs[train].T @ (targets[train] - offset))
    residual = ((inputs[test] @ weights + offset - targets[test]) ** 2).sum(axis=0)
    total = ((targets[test] - targets[test].mean(axis=0)) ** 2).sum(axis=0)
    return float(np.mean(1 - residual / total))


@pytest.mark.parametrize("shape", [(37, 37), (20, 45)])
def test_probe_equals_the_normal_equations(shape):
    features = features_with_position(*shape, noise=0.5)
    train = sample_patches(shape[0] * shape[1], 1 / 36, np.random.default_rng(1))
    score = probe_position(features, train)
    # Two exact solvers in double precision.
    assert score.all_patches == pytest.approx(slow_ridge_r2(features, train, np.ones_like(train)), abs=1e-9)
    assert score.held_out == pytest.approx(slow_ridge_r2(features, train, ~train), abs=1e-9)


def test_scores_of_positional_and_of_random_features():
    positional = summarise(probe_images([features_with_position(37, 37, noise=0.05)]))
    random = summarise(probe_images([np.random.default_rng(0).normal(size=(37, 37, 384))]))
    assert positional["r2_all_patches"] > 0.9
    assert positional["r2_held_out"] > 0.9
    assert random["r2_held_out"] < 0
    # The patches that the probe was fitted on flatter it.
    assert random["r2_all_patches"] > random["r2_held_out"]


def test_constant_features_know_nothing():
    score = summarise(probe_images([np.ones((37, 37, 8))]))
    assert -0.2 < score["r2_held_out"] <= 0


def test_scores_are_those_of_the_seed():
    features = [features_with_position(20, 20, noise=1.0)]
    assert probe_images(features, seed=3) == probe_images(features, seed=3)
    assert probe_images(features, seed=3) != probe_images(features, seed=4)


def test_channel_score_is_the_squared_correlation():
    features = features_with_position(9, 12, noise=0.7)
    scores = channel_scores(features)
    x = np.tile(np.arange(12), (9, 1)).ravel()
    y = np.repeat(np.arange(9), 12)
    for channel in range(16):
        values = features[..., channel].ravel().astype(np.float64)
        assert scores[0, channel] == pytest.approx(np.corrcoef(values, x)[0, 1] ** 2, abs=1e-10)
        assert scores[1, channel] == pytest.approx(np.corrcoef(values, y)[0, 1] ** 2, abs=1e-10)


def test_most_positional_channels_are_found():
    features = [features_with_position(16, 16, noise=0.3, seed=seed) for seed in range(3)]
    assert most_positional_channels(features, 2) == [3, 7]
    assert most_positional_channels(features, 0) == []
    with pytest.raises(ValueError, match="17 of 16 channels"):
        most_positional_channels(features, 17)


def test_constant_channel_scores_0():
    features = features_with_position(8, 8, noise=0.1)
    features[..., 0] = 5
    assert (channel_scores(features)[:, 0] == 0).all()
