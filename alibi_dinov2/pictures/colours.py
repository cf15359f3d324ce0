# SPDX-License-Identifier: Apache-2.0
"""The colours of classes: one palette for masks, overlays, curves and panels."""

import numpy as np

# Of Okabe and Ito: they can be told apart with any kind of colour vision.
OKABE_ITO = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (240, 228, 66))


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
