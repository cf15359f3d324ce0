# SPDX-License-Identifier: Apache-2.0
"""Micrographs for File > Open Sample; their source and licence are in `sample_data/LICENSE.md`."""

from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

LayerData = tuple[np.ndarray, dict[str, Any], str]
SUPERALLOY = ("superalloy_spot3_0d_3.png", "superalloy_spot4_180d_2.png")


def read(name: str) -> np.ndarray:
    """A shipped micrograph, `(H, W)` uint8."""
    with (files("napari_alibi_dinov2") / "sample_data" / name).open("rb") as file:
        return np.asarray(Image.open(file).convert("L"))


def nickel_on_substrate() -> list[LayerData]:
    """An image layer, `(896, 1008)` uint8."""
    return [(read("nickel_on_substrate.png"), {"name": "nickel on a substrate"}, "image")]


def superalloy_stack() -> list[LayerData]:
    """An image layer of two slices, `(2, 512, 512)` uint8: two micrographs of one alloy."""
    return [(np.stack([read(name) for name in SUPERALLOY]), {"name": "nickel superalloy"}, "image")]
