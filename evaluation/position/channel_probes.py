# SPDX-License-Identifier: Apache-2.0
"""How well each channel alone predicts a target: ridge regression in closed form, for all channels at once.

A probe of one channel has one slope, so that all it takes is sums over patches: of x, x², xy, y and y². They are matrix
products of the masks of patches and the features. The paper fits scikit-learn channel by channel (arXiv 2603.16840,
figures 2 and 3); the results are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.position.position_targets import position_targets


@dataclass(frozen=True)
class ChannelScores:
    """R² of each channel's own probe, `(L, R, T, D)` each: over all patches, and over those to test on."""

    all_patches: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Means and centred sums of products of channels x and targets y over sets of patches.

    With `L` layers, `R` sets, `T` targets and `D` channels all are `(L or 1, R, T or 1, D or 1)`.
    """

    count: np.ndarray
    x_mean: np.ndarray
    y_mean: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray


def moments(features: np.ndarray, targets: np.ndarray, masks: np.ndarray) -> Moments:
    """Moments of every channel and target over every set of patches.

    Args:
        features: `(L, N, D)` float64, of about zero mean and unit variance, or digits are lost.
        targets: `(N, T)` float64.
        masks: `(R, N)` boolean.
    """
    weights = masks.astype(np.float64)
    products = (weights[:, None] * targets.T).reshape(-1, len(targets))  # (R·T, N)
    count = weights.sum(axis=1)[:, None, None]
    x_mean = (weights @ features)[:, :, None] / count
    y_mean = (weights @ targets)[None, ..., None] / count
    xy = (products @ features).reshape(len(features), len(masks), -1, features.shape[-1])
    return Moments(
        count,
        x_mean,
        y_mean,
        xx=(weights @ features**2)[:, :, None] - count * x_mean**2,
        xy=xy - count * x_mean * y_mean,
        yy=(weights @ targets**2)[None, ..., None] - count * y_mean**2,
    )


def channel_r2(
    features: np.ndarray, targets: np.ndarray, train: np.ndarray, held_out: np.ndarray, alpha: float = 1.0
) -> ChannelScores:
    """R² of ridge regression from each channel, standardised on the patches to fit on, to each target.

    Args:
        features: `(L, N, D)`, of `L` layers, `N` patches and `D` channels; any float dtype.
        targets: `(N, T)`; none may be constant.
        train: `(R, N)` boolean, the patches to fit on.
        held_out: `(R, N)` boolean, the patches to test on.
        alpha: penalty, as scikit-learn's `Ridge` has it; 0 is least squares.

    Returns:
        R², 1 at best and without a lower limit. A channel that is constant on the patches to fit on predicts their mean
        target: 0, or below where that is not the mean of the patches that are scored.

    Raises:
        ValueError: `alpha` is negative.
    """
    if alpha < 0:
        raise ValueError(f"The penalty must not be negative; {alpha} was given.")
    inputs = features - features.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = inputs.std(axis=1, keepdims=True)
    inputs /= np.where(spread > 0, spread, 1)
    fit = moments(inputs, targets, train)
    # Of a channel that is constant on these patches, rounding leaves a little.
    varies = fit.xx > 1e-12 * fit.count * (1 + fit.x_mean**2)
    # The standardised channel has a sum of squares of `count`; Ridge adds alpha to it.
    slope = np.divide(fit.xy, fit.xx * (1 + alpha / fit.count), out=np.zeros_like(fit.xy), where=varies)

    def score(patches: Moments) -> np.ndarray:
        offset = patches.y_mean - fit.y_mean - slope * (patches.x_mean - fit.x_mean)
        residual = patches.yy - 2 * slope * patches.xy + slope**2 * patches.xx + patches.count * offset**2
        return 1 - residual / patches.yy

    everywhere = np.ones((1, len(targets)), dtype=bool)
    return ChannelScores(score(moments(inputs, targets, everywhere)), score(moments(inputs, targets, held_out)))


def most_positional_channels(features: Sequence[np.ndarray], count: int) -> list[int]:
    """The channels that alone tell a patch's row or column best, in ascending order.

    A channel's score is the R² of its own least-squares fit to x or to y, whichever is higher, averaged over images.

    Args:
        features: one `(h, w, D)` array per image.
        count: how many.

    Raises:
        ValueError: there are fewer channels than that.
    """
    width = features[0].shape[-1]
    if not 0 <= count <= width:
        raise ValueError(f"{count} of {width} channels were asked for; it must be 0 to {width}.")
    scores = np.mean([channel_scores(image) for image in features], axis=0).max(axis=0)
    return sorted(np.argsort(scores)[::-1][:count].tolist())


def channel_scores(features: np.ndarray) -> np.ndarray:
    """R² of each channel alone for x and for y over all patches, `(2, D)`: the squared correlation; 0 if constant."""
    rows, columns, width = features.shape
    inputs = features.reshape(-1, width).astype(np.float64)
    inputs -= inputs.mean(axis=0)
    targets = position_targets(rows, columns)
    targets -= targets.mean(axis=0)
    power = np.outer((targets**2).sum(axis=0), (inputs**2).sum(axis=0))
    return np.divide((targets.T @ inputs) ** 2, power, out=np.zeros_like(power), where=power > 0)
