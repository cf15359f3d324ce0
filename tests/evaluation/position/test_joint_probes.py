# SPDX-License-Identifier: Apache-2.0
"""Probes of all channels together, against the equations written out."""

import numpy as np
import pytest

from evaluation.position.joint_probes import PROBES, predict, predict_ramps, r_squared
from evaluation.position.position_targets import ramp_targets
from tests.comparison import assert_close

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(300, 40)).astype(np.float32) * np.linspace(0.1, 30, 40, dtype=np.float32) + 5
RAMPS = ramp_targets(["left_right", "x_y", "radial"], 15, 20, RANDOM)
TARGETS = np.concatenate(list(RAMPS.values()), axis=1)
TRAIN = np.arange(300) % 9 == 0  # fewer patches than channels


def standardised(train: np.ndarray) -> np.ndarray:
    inputs = FEATURES.astype(np.float64)
    return (inputs - inputs[train].mean(axis=0)) / inputs[train].std(axis=0)


def test_ridge_is_the_normal_equations():
    inputs, offset = standardised(TRAIN), TARGETS[TRAIN].mean(axis=0)
    gram = inputs[TRAIN].T @ inputs[TRAIN] + np.eye(40)
    expected = inputs @ np.linalg.solve(gram, inputs[TRAIN].T @ (TARGETS[TRAIN] - offset)) + offset
    assert_close(predict("ridge", FEATURES, TARGETS, TRAIN), expected, 1e-9, "double precision")


def test_linear_is_the_smallest_solution_of_least_squares():
    inputs, offset = standardised(TRAIN), TARGETS[TRAIN].mean(axis=0)
    expected = inputs @ (np.linalg.pinv(inputs[TRAIN], rcond=1e-10) @ (TARGETS[TRAIN] - offset)) + offset
    found = predict("linear", FEATURES, TARGETS, TRAIN)
    assert_close(found, expected, 1e-9, "double precision")
    assert_close(found[TRAIN], TARGETS[TRAIN], 1e-9, "fewer patches than channels are met exactly")


def test_linear_does_not_fit_rounding_errors():
    random = np.random.default_rng(1)
    periodic = np.tile(random.normal(size=(15, 4, 40)), (1, 5, 1)).reshape(300, 40)
    rounded = periodic * (1 + 1e-7 * random.normal(size=periodic.shape))
    target = RAMPS["left_right"]
    assert r_squared(predict("linear", rounded, target, TRAIN), target)[0] > -10
    assert_close(
        predict("linear", rounded, target, TRAIN), predict("linear", periodic, target, TRAIN), 1e-4, "of size 1e-7 each"
    )


@pytest.mark.parametrize("probe", PROBES)
def test_ramps_side_by_side_are_what_each_is_alone(probe):
    ramps = list(RAMPS.values())
    found = predict_ramps(probe, FEATURES, ramps, TRAIN, seed=3)
    expected = np.concatenate([predict(probe, FEATURES, ramp, TRAIN, seed=3) for ramp in ramps], axis=1)
    assert found.shape == (300, 4)
    assert_close(found, expected, 1e-9, "targets together or one after the other")


def test_mlp_learns_what_no_line_can_and_is_that_of_the_seed():
    random = np.random.default_rng(1)
    features = random.uniform(-1, 1, (400, 3))
    target = features[:, :1] ** 2
    train = np.arange(400) % 2 == 0
    scores = {probe: r_squared(predict(probe, features, target, train), target, ~train) for probe in PROBES}
    assert scores["ridge"] < 0.2
    assert scores["mlp"] > 0.8
    np.testing.assert_array_equal(predict("mlp", features, target, train), predict("mlp", features, target, train))
    assert (predict("mlp", features, target, train) != predict("mlp", features, target, train, seed=1)).any()


@pytest.mark.filterwarnings("error")
def test_constant_features_predict_the_mean():
    for probe in ("linear", "ridge"):
        found = predict(probe, np.full((300, 5), 3.0), TARGETS, TRAIN)
        np.testing.assert_allclose(found, [TARGETS[TRAIN].mean(axis=0)] * 300, atol=1e-12)


def test_r_squared_by_hand():
    targets = np.array([[0.0, 0], [1, 0], [2, 3], [3, 3]])
    predictions = np.array([[0.0, 1], [1, 1], [2, 2], [5, 2]])
    np.testing.assert_allclose(r_squared(predictions, targets), [1 - 4 / 5, 1 - 4 / 9])
    np.testing.assert_allclose(r_squared(predictions, targets, np.array([True, True, True, False])), [1, 1 - 3 / 6])


def test_unknown_probe_is_refused():
    with pytest.raises(ValueError, match="no probe forest; choose from linear, ridge, mlp"):
        predict("forest", FEATURES, TARGETS, TRAIN)
