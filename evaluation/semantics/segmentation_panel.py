# SPDX-License-Identifier: Apache-2.0
"""Pictures of predictions beside the truth (figure S14 of arXiv 2603.16840): image, ground truth and prediction."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.panels import LINE_HEIGHT, heading, image_tile, map_tile, panel, stack
from evaluation.semantics.miou import VOID

COLUMNS = ("image", "ground truth", "prediction")
LEGEND_COLUMNS, LEGEND_WIDTH = 7, 110  # the width, in pixels, is that of a name


def panel_row(image: Image.Image, truth: np.ndarray, prediction: np.ndarray) -> list[Image.Image]:
    """Tiles of an image and of two class maps `(H, W)` uint8; what is void in the truth is void in both."""
    counted = np.where(truth == VOID, VOID, prediction)
    return [image_tile(image), *(map_tile(class_colours()[classes], image) for classes in (truth, counted))]


def legend(names: Sequence[str], classes: Sequence[int]) -> Image.Image:
    """The colours of some classes and their names."""
    squares = [
        Image.new("RGB", (LINE_HEIGHT, LINE_HEIGHT), tuple(class_colours()[index].tolist())) for index in classes
    ]
    texts = [heading([names[index]], LEGEND_WIDTH) for index in classes]
    entries = [stack(entry, horizontal=True) for entry in zip(squares, texts, strict=True)]
    starts = range(0, len(entries), LEGEND_COLUMNS)
    rows = [stack(entries[start : start + LEGEND_COLUMNS], horizontal=True) for start in starts]
    return stack(rows, horizontal=False)


def segmentation_panel(
    images: Sequence[Image.Image], truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray], names: Sequence[str]
) -> Image.Image:
    """One row per image under headings, and below them a legend of the classes that are to be seen.

    Args:
        images: RGB.
        truths, predictions: `(H, W)` uint8 classes of each; `VOID` in the truth where nothing counts.
        names: of all classes.
    """
    rows = [panel_row(*row) for row in zip(images, truths, predictions, strict=True)]
    shown = np.unique(np.concatenate([array.ravel() for array in (*truths, *predictions)]))
    return stack([panel(rows, COLUMNS), legend(names, shown[shown != VOID].tolist())], horizontal=False)
