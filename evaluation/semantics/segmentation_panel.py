# SPDX-License-Identifier: Apache-2.0
"""Pictures of predictions beside the truth (figure S14 of arXiv 2603.16840): image, ground truth and prediction."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.panels import Tile, image_tile, panel
from evaluation.semantics.miou import VOID

COLUMNS = ("image", "ground truth", "prediction")


def panel_row(image: Image.Image, truth: np.ndarray, prediction: np.ndarray) -> list[Tile]:
    """Tiles of an image and of two class maps `(H, W)` uint8; what is void in the truth is void in both."""
    counted = np.where(truth == VOID, VOID, prediction)
    return [
        image_tile(np.asarray(image)),
        *(Tile(class_colours()[classes], image.size) for classes in (truth, counted)),
    ]


def segmentation_panel(
    images: Sequence[Image.Image], truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray], names: Sequence[str]
) -> Figure:
    """One row per image under headings, and below them a legend of the classes that are to be seen.

    Args:
        images: RGB.
        truths, predictions: `(H, W)` uint8 classes of each; `VOID` in the truth where nothing counts.
        names: of all classes.
    """
    rows = [panel_row(*row) for row in zip(images, truths, predictions, strict=True)]
    shown = np.unique(np.concatenate([array.ravel() for array in (*truths, *predictions)]))
    return panel(rows, COLUMNS, legend=[(names[index], class_colours()[index]) for index in shown[shown != VOID]])
