# SPDX-License-Identifier: Apache-2.0
"""What a positional probe is to predict: functions of a patch's place, called ramps (arXiv 2603.16840, figure 2)."""

from collections.abc import Sequence

import numpy as np

RAMPS = ("left_right", "up_down", "diagonal", "radial", "x_y", "raster", "random")


def ramp_targets(names: Sequence[str], rows: int, columns: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Targets of each patch of a grid, row by row.

    `left_right` and `up_down` grow by column and by row, `diagonal` by their sum; `radial` falls with the distance from
    the middle of the grid; `raster` is the running number of the patch; `random`, a new draw each time, is what nothing
    can predict: the control. All run from 0 to 1. `x_y` is `left_right` and `up_down` together.

    Args:
        names: of `RAMPS`.
        rows, columns: of the grid.
        random: of the `random` ramp.

    Returns:
        By name, `(rows·columns, 1)`, or `(rows·columns, 2)` for `x_y`.

    Raises:
        ValueError: there is no such ramp, or it is the same all over so small a grid.
    """
    row, column = np.indices((rows, columns)).reshape(2, -1)
    values: dict[str, list[np.ndarray]] = {
        "left_right": [column],
        "up_down": [row],
        "diagonal": [row + column],
        "radial": [-np.hypot(row - (rows - 1) / 2, column - (columns - 1) / 2)],
        "x_y": [column, row],
        "raster": [np.arange(rows * columns)],
        "random": [random.random(rows * columns)],
    }
    unknown = [name for name in names if name not in values]
    if unknown:
        raise ValueError(f"There is no ramp {', '.join(unknown)}; choose from {', '.join(RAMPS)}.")
    for name in names:
        if any(np.ptp(value) == 0 for value in values[name]):
            raise ValueError(f"The {name} ramp is the same all over {rows}×{columns} patches; use larger images.")
    return {name: np.stack([(v - v.min()) / np.ptp(v) for v in values[name]], axis=1) for name in names}


def position_targets(rows: int, columns: int) -> np.ndarray:
    """Places of the patches of a grid, `(rows·columns, 2)`: x and y, from 0 at the first to 1 at the last."""
    return ramp_targets(["x_y"], rows, columns, np.random.default_rng(0))["x_y"]
