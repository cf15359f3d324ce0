# SPDX-License-Identifier: Apache-2.0
"""Pictures laid out so that people can read them: a labelled grid, a row per image and a column per model."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROW_HEIGHT, GAP, LINE_HEIGHT = 259, 6, 24  # pixels


def tile_width(image: Image.Image, height: int = ROW_HEIGHT) -> int:
    """Width of an image drawn `height` pixels high."""
    return round(image.width * height / image.height)


def image_tile(image: Image.Image, height: int = ROW_HEIGHT) -> Image.Image:
    """An image at the height of a row."""
    return image.convert("RGB").resize((tile_width(image, height), height), Image.Resampling.LANCZOS)


def map_tile(colours: np.ndarray, image: Image.Image, height: int = ROW_HEIGHT) -> Image.Image:
    """A map drawn over the extent of its image, every patch a sharp rectangle.

    Args:
        colours: `(h, w, 3)` uint8.
        image: what the map belongs to; the tile gets its proportions.
        height: of the tile in pixels.
    """
    return Image.fromarray(colours).resize((tile_width(image, height), height), Image.Resampling.NEAREST)


def resample(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The nearest values on a grid of another size: `(h, w, ...)` -> `(rows, columns, ...)`."""
    height, width = values.shape[:2]
    row = (2 * np.arange(rows) + 1) * height // (2 * rows)
    column = (2 * np.arange(columns) + 1) * width // (2 * columns)
    return values[row[:, None], column]


def stack(tiles: Sequence[Image.Image], horizontal: bool, gap: int = GAP) -> Image.Image:
    """Pictures in a row or a column on white."""
    along = [tile.width if horizontal else tile.height for tile in tiles]
    across = max(tile.height if horizontal else tile.width for tile in tiles)
    length = sum(along) + gap * (len(tiles) - 1)
    sheet = Image.new("RGB", (length, across) if horizontal else (across, length), "white")
    offset = 0
    for tile, extent in zip(tiles, along, strict=True):
        sheet.paste(tile, (offset, 0) if horizontal else (0, offset))
        offset += extent + gap
    return sheet


def heading(labels: Sequence[str], width: int, height: int = LINE_HEIGHT, gap: int = GAP) -> Image.Image:
    """A strip with a label over the middle of each column, for columns of equal width; long labels shrink to fit."""
    strip = Image.new("RGB", (len(labels) * (width + gap) - gap, height), "white")
    draw = ImageDraw.Draw(strip)
    for column, label in enumerate(labels):
        font = ImageFont.load_default(size=height * 0.7)
        if (length := font.getlength(label)) > width:
            font = ImageFont.load_default(size=height * 0.7 * width / length)
        draw.text((column * (width + gap) + width / 2, height / 2), label, fill="black", font=font, anchor="mm")
    return strip


def caption(tile: Image.Image, text: str) -> Image.Image:
    """A picture with a line of text under it."""
    return stack([tile, heading([text], tile.width)], horizontal=False, gap=0)


def centred(tile: Image.Image, width: int) -> Image.Image:
    """A picture in the middle of a white strip."""
    strip = Image.new("RGB", (width, tile.height), "white")
    strip.paste(tile, ((width - tile.width) // 2, 0))
    return strip


def panel(rows: Sequence[Sequence[Image.Image]], labels: Sequence[str]) -> Image.Image:
    """Rows of tiles under their labels, in columns of equal width.

    Args:
        rows: a tile for each label in every row.
        labels: of the columns.
    """
    width = max(tile.width for row in rows for tile in row)
    lines = [stack([centred(tile, width) for tile in row], horizontal=True) for row in rows]
    return stack([heading(labels, width), *lines], horizontal=False)
