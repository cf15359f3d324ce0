# SPDX-License-Identifier: Apache-2.0
"""Plots: figures with axes, made without pyplot, and what lines look like."""

from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from alibi_dinov2.pictures.colours import line_colours

MARKERS = "os^Dv"


def subplots(
    rows: int, columns: int, width: float, height: float, width_ratios: Sequence[float] | None = None
) -> tuple[Figure, np.ndarray]:
    """A figure of some inches and its axes, `(rows, columns)`; made without pyplot, it leaves no state behind."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=width_ratios)


def line_looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for the line of each name, in their order."""
    return dict(zip(names, zip(cycle(line_colours()), cycle(MARKERS), strict=False), strict=False))
