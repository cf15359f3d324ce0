# SPDX-License-Identifier: Apache-2.0
"""Recognising a picture whatever its file's name, size and compression.

Two files show the same picture if small grey copies of both are alike: the difference is less than `TOLERANCE` of the
picture's own contrast. Copies at another size or of another compression differ by 0.04 to 0.25, different photographs
and different micrographs by more than 0.3.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 32  # pixels of the small copies
TOLERANCE = 0.25


def small_copy(image: Image.Image) -> np.ndarray:
    """Mean grey values of an image in `SIDE` × `SIDE` fields, `(SIDE²,)` float32."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2)
    return np.asarray(small, dtype=np.float32).ravel()


class KnownImages:
    """Tells whether an image shows what one of some others shows.

    Args:
        copies: `(N, SIDE²)`, from `small_copy`.
        names: of the `N` images.
    """

    def __init__(self, copies: np.ndarray, names: Sequence[str]) -> None:
        self.copies, self.names = copies, names
        self.tolerances = TOLERANCE * np.linalg.norm(copies - copies.mean(axis=1, keepdims=True), axis=1)

    def find(self, image: Image.Image) -> str | None:
        """The name of the image that shows the same, or nothing."""
        distances = np.linalg.norm(self.copies - small_copy(image), axis=1)
        alike = np.flatnonzero(distances <= self.tolerances)
        return self.names[alike[0]] if len(alike) else None
