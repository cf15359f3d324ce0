# SPDX-License-Identifier: Apache-2.0
"""RASA: directions that tell row and column are removed, again and again (Franca, arXiv 2507.14137).

In the published code the predictors of position are trained by gradient descent through a sigmoid; here each is the
least-squares solution, the same prediction linearised at the centre: exact, without a random start, and a hundred times
faster.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.position.position_targets import position_targets

ROUNDS = 9  # of the published configuration
NEGLIGIBLE = 1e-9  # of the variance of position; a predictor that explains less is rounding


def rasa_basis(features: Sequence[np.ndarray], rounds: int) -> np.ndarray:
    """The directions that RASA removes, `(k, D)` float32 with orthonormal rows; k is 2 per round at most.

    In each round row and column are predicted from what the rounds before have left of the features, linearly and
    without intercept, from −½ to ½; the plane of the two predictors' weights is removed. When nothing is left that
    predicts them, the rounds end.

    Args:
        features: one `(h, w, D)` array per image.
        rounds: at most.
    """
    width = features[0].shape[-1]
    gram, cross, variance = np.zeros((width, width)), np.zeros((width, 2)), 0.0
    for image in features:
        inputs, targets = image.reshape(-1, width).astype(np.float64), position_targets(*image.shape[:2]) - 0.5
        gram += inputs.T @ inputs
        cross += inputs.T @ targets
        variance += (targets**2).sum()
    basis = np.zeros((0, width))
    for _ in range(rounds):
        rest = np.eye(width) - basis.T @ basis
        weights = np.linalg.lstsq(rest @ gram @ rest, rest @ cross)[0]
        if (weights * cross).sum() <= NEGLIGIBLE * variance:
            break
        directions, sizes, _ = np.linalg.svd(rest @ weights, full_matrices=False)
        basis = np.concatenate([basis, directions.T[sizes > NEGLIGIBLE * sizes[0]]])
    return basis.astype(np.float32)
