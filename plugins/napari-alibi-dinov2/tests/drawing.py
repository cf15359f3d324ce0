# SPDX-License-Identifier: Apache-2.0
"""Images of two materials, strokes on them, and waiting for what a panel does."""

import numpy as np
from napari_alibi_dinov2.widget import SegmentWidget
from scipy.ndimage import gaussian_filter

WAIT = 60_000  # milliseconds after which what a test waits for will not come any more


def settle(qtbot, panel: SegmentWidget) -> None:
    """Wait until a panel has nothing to do."""
    qtbot.waitUntil(lambda: not panel.jobs.busy and not panel.timer.isActive(), timeout=WAIT)


def materials(seed: int = 0, height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """An image with smooth and rough regions, uint8, and its truth, 1 and 2."""
    random = np.random.default_rng(seed)
    rough = gaussian_filter(random.normal(size=(height, width)), 8) > 0
    noise = random.normal(size=(height, width))
    image = 128 + np.where(rough, 40 * noise, 12 * gaussian_filter(noise, 3))
    return image.clip(0, 255).astype(np.uint8), rough + np.uint8(1)


def scribbles(truth: np.ndarray, count: int = 40) -> np.ndarray:
    """A few labelled pixels of each class."""
    labels, random = np.zeros_like(truth), np.random.default_rng(0)
    for label in np.unique(truth):
        rows, columns = random.permutation(np.argwhere(truth == label))[:count].T
        labels[rows, columns] = label
    return labels


def scribble(panel: SegmentWidget, labels: np.ndarray) -> None:
    """Draw on a panel's strokes."""
    panel.strokes.data = np.array(labels, dtype=np.uint8)


IMAGE, TRUTH = materials()
LABELS = scribbles(TRUTH)
