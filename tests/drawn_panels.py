# SPDX-License-Identifier: Apache-2.0
"""What a panel shows, read from the figure as it is drawn."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alibi_dinov2.pictures.panels import rasterise


def grid_of(figure: Figure) -> list[list[Axes]]:
    """The axes of a panel's tiles in their rows, from the top, and columns, from the left."""
    rows: dict[float, list[Axes]] = {}
    for axes in figure.axes:
        box = axes.get_position(original=True)
        rows.setdefault(round(box.y0 + box.height / 2, 4), []).append(axes)
    return [sorted(row, key=lambda axes: axes.get_position().x0) for _, row in sorted(rows.items(), reverse=True)]


def shape_of(figure: Figure) -> tuple[int, int]:
    """Rows and columns of a panel, each of which must have as many tiles as the others."""
    grid = grid_of(figure)
    (columns,) = {len(row) for row in grid}
    return len(grid), columns


def texts_of(figure: Figure) -> list[str]:
    """All that is written above, between and under the tiles, lines joined."""
    return [text.get_text().replace("\n", " ") for text in figure.texts if text.get_text()]


def tile_pixels(figure: Figure, axes: Axes) -> np.ndarray:
    """The pixels of a tile as they are drawn, `(h, w, 3)` uint8, without those at its edges."""
    drawn = rasterise(figure)
    height, width = drawn.shape[:2]
    box = axes.get_position()
    rows = slice(round((1 - box.y1) * height) + 1, round((1 - box.y0) * height) - 1)
    return drawn[rows, round(box.x0 * width) + 1 : round(box.x1 * width) - 1]


def pixel_at(figure: Figure, axes: Axes, x: float, y: float) -> tuple[int, ...]:
    """The colour of a tile at a point, from 0 at the left and top to 1."""
    pixels = tile_pixels(figure, axes)
    return tuple(pixels[round(y * (pixels.shape[0] - 1)), round(x * (pixels.shape[1] - 1))].tolist())
