# SPDX-License-Identifier: Apache-2.0
"""All colours of pictures: of classes, lines, places and values."""

import matplotlib
import numpy as np

# Of Okabe and Ito: they can be told apart with any kind of colour vision.
OKABE_ITO = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (240, 228, 66))
VALUES = "viridis"  # matplotlib's map for values that grow from dark to bright
# Red, green and blue at the corners of an image: top left and right, bottom left and right.
CORNERS = (((0.15, 0.30, 0.80), (0.05, 0.70, 0.55)), ((0.80, 0.10, 0.45), (0.98, 0.80, 0.10)))


def class_colours() -> np.ndarray:
    """Colours of all classes, `(256, 3)` uint8: black for 0, Okabe and Ito's for 1 to 7, VOC's for those above."""
    colours = voc_colours()
    colours[1 : 1 + len(OKABE_ITO)] = OKABE_ITO
    return colours


def voc_colours() -> np.ndarray:
    """VOC's colours of all labels, `(256, 3)` uint8: black for 0, and for `VOID` a light grey.

    The bits of a label go to red, green and blue in turn, the lowest ones to the highest places.
    """
    bits = (np.arange(256)[:, None] >> np.arange(9)) & 1
    places = np.array([128, 64, 32])
    return (bits.reshape(256, 3, 3) * places[:, None]).sum(axis=1).astype(np.uint8)


def line_colours() -> list[str]:
    """Colours of lines on white as matplotlib reads them: black, and those of the classes 1 to 6. Yellow is faint."""
    return ["#000000", *("#{:02X}{:02X}{:02X}".format(*colour) for colour in OKABE_ITO[:-1])]


def value_colours(values: np.ndarray) -> np.ndarray:
    """Values `(h, w)` from 0 to 1 as colours from dark to bright, `(h, w, 3)` uint8."""
    return matplotlib.colormaps[VALUES](values, bytes=True)[..., :3]


def position_colours(rows: int, columns: int) -> np.ndarray:
    """A colour for each place of a grid, `(rows, columns, 3)` uint8, blended between the colours of the corners."""
    down, right = np.linspace(0, 1, rows), np.linspace(0, 1, columns)
    blended = np.einsum("ri,cj,ijk->rck", np.stack([1 - down, down], 1), np.stack([1 - right, right], 1), CORNERS)
    return (blended * 255).round().astype(np.uint8)
