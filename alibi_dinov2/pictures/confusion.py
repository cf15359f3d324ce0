# SPDX-License-Identifier: Apache-2.0
"""A confusion table as a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

CELL, MARGIN = 0.9, 2.2  # inches of a cell, and of what stands beside and below the cells


def confusion_figure(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Shares of each true class, a row each, that were predicted as each class; of a class without pixels all are 0.

    Args:
        confusion: pixels by true (row) and predicted (column) class, `(K, K)`.
        names: of the K classes.
    """
    total = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    side = CELL * len(names) + MARGIN
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    drawn = ConfusionMatrixDisplay(shares, display_labels=list(names))
    drawn.plot(
        ax=axes, cmap="Blues", values_format=".2f", colorbar=False, xticks_rotation=45, im_kw={"vmin": 0, "vmax": 1}
    )
    axes.set(xlabel="predicted", ylabel="true")
    return figure
