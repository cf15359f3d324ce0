# SPDX-License-Identifier: Apache-2.0
"""From scores to figures: means, ranks, and what one would have chosen without the data set that it is reported on.

Scores are mIoU, `(seeds, ways, rounds)` for each contender on each data set.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from evaluation.semantics.miou import mean_iou

Scores = Mapping[str, Mapping[str, np.ndarray]]  # contender -> data set -> (seeds, ways, rounds)


class Choice(NamedTuple):
    """What was chosen on all data sets but one, and what that gives on the one left out.

    Attributes:
        chosen: the contender that is best on the others.
        on_the_others: its mean mIoU there.
        left_out: its mean mIoU on the one left out.
        best: the contender that is best on the one left out.
        best_left_out: that one's mean mIoU: what choosing on it would have given.
    """

    chosen: str
    on_the_others: float
    left_out: float
    best: str
    best_left_out: float


def mious(matrices: np.ndarray) -> np.ndarray:
    """mIoU of confusion matrices `(..., K, K)`, `(...)`."""
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    return np.array([mean_iou(matrix) for matrix in flat]).reshape(matrices.shape[:-2])


def balanced(scores: Mapping[str, np.ndarray], sets: Sequence[str]) -> np.ndarray:
    """Mean over data sets and ways of drawing, each counting the same, `(seeds, rounds)`."""
    return np.mean([scores[name].mean(axis=1) for name in sets], axis=0)


def mean_ranks(scores: Scores, sets: Sequence[str]) -> dict[str, float]:
    """The mean rank of each contender over data sets, ways and rounds, 1 for the best; users are averaged first."""
    table = np.stack(
        [np.concatenate([of_sets[name].mean(axis=0).ravel() for name in sets]) for of_sets in scores.values()]
    )
    ranks = rankdata(-table, axis=0).mean(axis=1)
    return dict(zip(scores, map(float, ranks), strict=True))


def leave_one_out(scores: Scores, sets: Sequence[str]) -> dict[str, Choice]:
    """For each data set, the contender that one would choose on all others, and how it does on this one."""
    means = {name: {one: float(found[one].mean()) for one in sets} for name, found in scores.items()}
    choices = {}
    for left_out in sets:
        others = {
            name: float(np.mean([found[one] for one in sets if one != left_out])) for name, found in means.items()
        }
        chosen = max(others, key=others.__getitem__)
        best = max(means, key=lambda name: means[name][left_out])
        choices[left_out] = Choice(chosen, others[chosen], means[chosen][left_out], best, means[best][left_out])
    return choices


def figures(scores: Scores, sets: Sequence[str], rounds: Sequence[int]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics and their spread under the names that records use.

    Returns:
        `miou` is that of the first contender over all data sets and rounds. For each contender there are
        `NAME/miou_round_N` over all data sets, `NAME/SET/miou_round_N` on each, `NAME/miou` over all rounds and
        `NAME/rank`. The spread is the standard deviation over the users, estimated from this sample of them.
    """
    metrics: dict[str, float] = {}
    spread: dict[str, float] = {}
    ranks = mean_ranks(scores, sets)
    for name, of_sets in scores.items():
        means = {"": balanced(of_sets, sets)} | {f"{one}/": balanced(of_sets, [one]) for one in sets}
        values = {
            f"{prefix}miou_round_{number}": column
            for prefix, found in means.items()
            for number, column in zip(rounds, found.T, strict=True)
        }
        values["miou"] = means[""].mean(axis=1)
        metrics |= {f"{name}/{key}": float(found.mean()) for key, found in values.items()}
        spread |= {f"{name}/{key}": float(found.std(ddof=1)) for key, found in values.items() if len(found) > 1}
        metrics[f"{name}/rank"] = ranks[name]
    metrics["miou"] = metrics[f"{next(iter(scores))}/miou"]
    return metrics, spread
