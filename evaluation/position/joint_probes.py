# SPDX-License-Identifier: Apache-2.0
"""How well all channels together predict a target: least squares, ridge and an MLP (arXiv 2603.16840, section 3)."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

PROBES = ("linear", "ridge", "mlp")


def predict(probe: str, features: np.ndarray, targets: np.ndarray, train: np.ndarray, seed: int = 0) -> np.ndarray:
    """Fit a probe on some patches and predict the target of all of them.

    Args:
        probe: `linear`, the smallest of the least-squares solutions; `ridge`, with a penalty of 1; or `mlp`, with three
            hidden layers of 10. The last two are scikit-learn's, set as published.
        features: `(N, D)`. They are standardised by mean and standard deviation of the patches to fit on.
        targets: `(N, T)`.
        train: `(N,)` boolean, the patches to fit on.
        seed: of the weights that an MLP begins with.

    Returns:
        `(N, T)` float64.

    Raises:
        ValueError: there is no such probe.
    """
    if probe not in PROBES:
        raise ValueError(f"There is no probe {probe}; choose from {', '.join(PROBES)}.")
    # In double precision: a probe on a few dozen patches of some hundred channels is ill-conditioned.
    inputs = features.astype(np.float64)
    inputs = StandardScaler().fit(inputs[train]).transform(inputs)
    if probe == "linear":
        return least_squares(inputs, targets, train)
    regressor = (
        Ridge()
        if probe == "ridge"
        else MLPRegressor(hidden_layer_sizes=(10, 10, 10), max_iter=1000, learning_rate_init=0.01, random_state=seed)
    )
    expected = targets[train] if targets.shape[1] > 1 else targets[train, 0]
    return regressor.fit(inputs[train], expected).predict(inputs).reshape(targets.shape)


def least_squares(inputs: np.ndarray, targets: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Predictions of the smallest of the least-squares solutions; arguments as in `predict`, standardised.

    Models compute in single precision. Directions in which patches differ by no more than its rounding errors, as those
    of periodic images do, are left out: else the probe would fit the errors, and R² fall below -1,000,000.
    """
    offset = targets[train].mean(axis=0)
    rounding = max(inputs[train].shape) * np.finfo(np.float32).eps
    weights = np.linalg.lstsq(inputs[train], targets[train] - offset, rcond=rounding)[0]
    return inputs @ weights + offset


def predict_ramps(
    probe: str, features: np.ndarray, ramps: Sequence[np.ndarray], train: np.ndarray, seed: int = 0
) -> np.ndarray:
    """As `predict`, for several ramps of `(N, 1)` or `(N, 2)`, each with a probe of its own; side by side."""
    # A linear probe has weights of its own for every target anyway, so that one fit serves all ramps.
    groups = ramps if probe == "mlp" else [np.concatenate(ramps, axis=1)]
    return np.concatenate([predict(probe, features, targets, train, seed) for targets in groups], axis=1)


def r_squared(predictions: np.ndarray, targets: np.ndarray, patches: np.ndarray | slice = np.s_[:]) -> np.ndarray:
    """R² of predictions of each target, `(N, T)` -> `(T,)`, over some patches.

    1 is perfect, 0 as good as the mean, and there is no lower limit.
    """
    return r2_score(targets[patches], predictions[patches], multioutput="raw_values")
