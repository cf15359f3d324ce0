# SPDX-License-Identifier: Apache-2.0
"""Which patches a positional probe is fitted on, and which it is tested on (arXiv 2603.16840, figure S2)."""

from dataclasses import dataclass

import numpy as np

STEP = 6  # of the grids; random samples are as dense
TRAIN_FRACTION = 1 / STEP**2
BLOCK = 0.7  # of both sides, from which a probe with a held-out region is fitted
SAMPLINGS = ("random", "grid", "grid_corner", "grid_centre")


@dataclass(frozen=True)
class PatchSample:
    """Patches to fit on and patches to test on, `(repeats, patches)` boolean each, one row a draw."""

    train: np.ndarray
    held_out: np.ndarray


def sample_patches(count: int, fraction: float, random: np.random.Generator) -> np.ndarray:
    """A random choice of patches, `(count,)` boolean; `fraction` of them, rounded down.

    Raises:
        ValueError: fewer than 2 would be chosen, or fewer than 2 left to test on.
    """
    mask = np.zeros(count, dtype=bool)
    mask[random.choice(count, int(count * fraction), replace=False)] = True
    require_enough(mask, ~mask)
    return mask


def sample_repeatedly(
    sampling: str, rows: int, columns: int, repeats: int, random: np.random.Generator, step: int = STEP
) -> PatchSample:
    """Draws of patches of a grid.

    `random` takes one patch in `step²` anywhere, `grid` every `step`-th in both directions; both are tested on all
    others. `grid_corner` and `grid_centre` take every `step`-th in a block of 0.7 of both sides, in the upper left
    corner or in the middle, and are tested on all that is outside of it. (The paper has the block in the middle for the
    radial ramp and in the corner for the others.) The first grid begins with the first patch, as published; the others
    each begin somewhere else.

    Args:
        sampling: one of `SAMPLINGS`.
        rows, columns: of the grid of patches.
        repeats: number of draws.
        random: draws patches, or where grids begin.
        step: distance of the patches of a grid.

    Raises:
        ValueError: there is no such sampling, there are not so many grids, or there are too few patches.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"There is no sampling {sampling}; choose from {', '.join(SAMPLINGS)}.")
    if repeats < 1 or (sampling != "random" and repeats > step**2):
        raise ValueError(f"{repeats} draws were asked for; at least 1 is needed, and {step**2} grids are different.")
    if sampling == "random":
        train = np.stack([sample_patches(rows * columns, 1 / step**2, random) for _ in range(repeats)])
        return PatchSample(train, ~train)
    region = np.zeros((rows, columns), dtype=bool)
    region[block(sampling, rows), block(sampling, columns)] = True
    begins = [0, *1 + random.permutation(step**2 - 1)][:repeats]
    train = np.stack([grid(region, begin, step) for begin in begins])
    held_out = ~train if sampling == "grid" else np.broadcast_to(~region.ravel(), train.shape)
    for masks in zip(train, held_out, strict=True):
        require_enough(*masks)
    return PatchSample(train, held_out)


def block(sampling: str, side: int) -> slice:
    """The patches along a side from which a grid is taken."""
    length = side if sampling == "grid" else int(side * BLOCK)
    start = (side - length) // 2 if sampling == "grid_centre" else 0
    return slice(start, start + length)


def grid(region: np.ndarray, begin: int, step: int) -> np.ndarray:
    """Every `step`-th patch of a rectangular region in both directions.

    Args:
        region: `(h, w)` boolean.
        begin: which of the first `step` × `step` patches is the first, 0 to `step² - 1`.
        step: distance of the patches.

    Returns:
        `(h·w,)` boolean.
    """
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    row, column = divmod(begin, step)
    mask = np.zeros_like(region)
    mask[np.ix_(rows[row::step], columns[column::step])] = True
    return mask.ravel()


def require_enough(train: np.ndarray, held_out: np.ndarray) -> None:
    """Raise a `ValueError` unless there are two patches to fit on and two to test on: R² needs a spread."""
    if min(train.sum(), held_out.sum()) < 2:
        raise ValueError(
            f"Of {train.size} patches {train.sum()} are to be fitted on and {held_out.sum()} tested on; the probe "
            "needs 2 to fit on and 2 to test on. Use larger images or a denser sample."
        )
