# SPDX-License-Identifier: Apache-2.0
"""Panels: a row per image and a column per model, headings above, a line of text under what needs one.

Figures are made without pyplot, so that they leave no state behind and need no display.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from alibi_dinov2.io.files import new_file

ROW_HEIGHT, TEXT_HEIGHT, GAP = 2.6, 0.24, 0.06  # inches of a tile, of a line of text, between tiles
FONT_SIZE = 10  # points
CHARACTER = FONT_SIZE * 0.58 / 72  # inches, of which a line of text has one for each of its characters
DPI = 120


@dataclass(frozen=True)
class Tile:
    """A picture in a panel.

    Args:
        pixels: an image or a map, `(h, w, 3)` uint8. Every pixel is drawn as a sharp rectangle.
        size: width and height of the image that it belongs to, over which it is drawn.
        caption: a line of text under it.
        mark: a point that gets a ring, x and y from 0 at the left and top to 1.
    """

    projection: ClassVar[str | None] = None

    pixels: np.ndarray
    size: tuple[int, int]
    caption: str = ""
    mark: tuple[float, float] | None = None

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size[0] / self.size[1]

    def draw(self, axes: Axes) -> None:
        """Draw it on axes of its own."""
        width, height = self.size
        # Photographs are drawn smaller than they are, so that their pixels have to be averaged.
        smaller = self.pixels.shape[0] > ROW_HEIGHT * DPI
        axes.imshow(self.pixels, interpolation="antialiased" if smaller else "nearest", extent=(0, width, height, 0))
        if self.mark:
            point = self.mark[0] * width, self.mark[1] * height
            for colour, line in (("white", 4.5), ("red", 2)):
                axes.plot(*point, "o", markersize=12, fillstyle="none", color=colour, markeredgewidth=line)
        axes.set_axis_off()


def image_tile(image: np.ndarray, caption: str = "", mark: tuple[float, float] | None = None) -> Tile:
    """An image `(H, W, 3)` uint8 as a tile."""
    return Tile(image, (image.shape[1], image.shape[0]), caption, mark)


def panel(
    rows: Sequence[Sequence[Tile]],
    headings: Sequence[str],
    footer: Sequence[str] = (),
    legend: Sequence[tuple[str, np.ndarray]] = (),
) -> Figure:
    """Rows of tiles under their headings, in columns of equal width.

    Args:
        rows: a tile for each heading in every row.
        headings: of the columns.
        footer: a text under each column, if any.
        legend: names and colours, `(3,)` uint8 each, of what the tiles show.
    """
    width = max(ROW_HEIGHT * tile.aspect for row in rows for tile in row)
    above, below = ([wrap(text, width) for text in texts] for texts in (headings, footer))
    captions = [[wrap(tile.caption, width) for tile in row] for row in rows]
    total = len(headings) * (width + GAP) - GAP
    key = legend_lines(legend, total)
    height = text_height(above) + GAP + text_height(below) + TEXT_HEIGHT * len(key)
    height += sum(ROW_HEIGHT + text_height(texts) + GAP for texts in captions)
    figure = Figure(figsize=(total, height))
    centres = [column * (width + GAP) + width / 2 for column in range(len(headings))]

    def write_line(texts: Sequence[str], top: float) -> None:
        for text, centre in zip(texts, centres, strict=False):
            figure.text(
                centre / total, 1 - top / height, text, ha="center", va="top", fontsize=FONT_SIZE, linespacing=1.1
            )

    write_line(above, GAP / 2)
    top = text_height(above) + GAP
    for row, texts in zip(rows, captions, strict=True):
        for tile, centre in zip(row, centres, strict=True):
            box = (centre - width / 2) / total, 1 - (top + ROW_HEIGHT) / height, width / total, ROW_HEIGHT / height
            tile.draw(figure.add_axes(box, projection=tile.projection))
        write_line(texts, top + ROW_HEIGHT + GAP / 2)
        top += ROW_HEIGHT + text_height(texts) + GAP
    write_line(below, top)
    top += text_height(below)
    for number, entries in enumerate(key):
        draw_legend(figure, entries, 1 - (top + number * TEXT_HEIGHT) / height)
    return figure


def wrap(text: str, width: float) -> str:
    """Text in lines of at most so many inches."""
    return textwrap.fill(text, max(int(width / CHARACTER), 1))


def text_height(texts: Sequence[str]) -> float:
    """Inches that texts beside each other take, as many as the one with most lines."""
    return TEXT_HEIGHT * max((text.count("\n") + 1 if text else 0 for text in texts), default=0)


def legend_lines(entries: Sequence[tuple[str, np.ndarray]], width: float) -> list[Sequence[tuple[str, np.ndarray]]]:
    """The entries of a legend in lines of at most so many inches."""
    count = max(int(width / entry_width(entries)), 1)
    return [entries[start : start + count] for start in range(0, len(entries), count)]


def entry_width(entries: Sequence[tuple[str, np.ndarray]]) -> float:
    """Inches that an entry of a legend takes with its square and the gap to the next."""
    return CHARACTER * max((len(name) + 6 for name, _ in entries), default=1)


def draw_legend(figure: Figure, entries: Iterable[tuple[str, np.ndarray]], top: float) -> None:
    """A line of coloured squares and their names, below `top`, a fraction of the figure's height."""
    patches = [
        Patch(facecolor=tuple(colour / 255), edgecolor="black", linewidth=0.5, label=name) for name, colour in entries
    ]
    figure.legend(
        handles=patches,
        loc="upper center",
        bbox_to_anchor=(0.5, top),
        ncols=len(patches),
        frameon=False,
        fontsize=FONT_SIZE,
        handlelength=1,
        handleheight=1,
        borderpad=0,
        borderaxespad=0,
    )


def legend_strip(entries: Sequence[tuple[str, np.ndarray]], width: int) -> np.ndarray:
    """A legend alone, to stand under a picture: `(h, w, 3)` uint8, as wide as it or, with long names, wider."""
    key = legend_lines(entries, width / DPI)
    width = max(width, round(entry_width(entries) * DPI))
    rows = round((len(key) * TEXT_HEIGHT + GAP) * DPI)
    figure = Figure(figsize=(width / DPI, rows / DPI), dpi=DPI)
    for number, line in enumerate(key):
        draw_legend(figure, line, 1 - (GAP + number * TEXT_HEIGHT) * DPI / rows)
    return rasterise(figure)


def rasterise(figure: Figure) -> np.ndarray:
    """A figure's pixels, `(h, w, 3)` uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
