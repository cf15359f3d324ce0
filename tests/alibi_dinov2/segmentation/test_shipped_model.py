# SPDX-License-Identifier: Apache-2.0
"""The segmenter with the checkpoint that ships, on a real micrograph whose labels confound class and position."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

REPOSITORY = Path(__file__).parents[3]
DATA = REPOSITORY / "data" / "biased_labels"
# A window with all labels in it: 37×37 patches.
WINDOW = slice(230, 230 + 518), slice(350, 350 + 518)
ROLL = 18 * 14, 18 * 14


@pytest.fixture(scope="module")
def micrograph():
    """Image and labels, `(518, 518)`."""
    names = ("nickel_on_substrate.png", "nickel_on_substrate_labels.png")
    return tuple(np.asarray(Image.open(DATA / name))[WINDOW] for name in names)


def test_misleading_labels_do_not_make_it_follow_position(micrograph):
    image, labels = micrograph
    assert {label: int((labels == label).sum()) for label in (1, 2)} == {1: 5114, 2: 1177}
    backbone = load_backbone(REPOSITORY / "model_cards" / "alibi-dinov2-small")
    # A wider view sees the image mirrored, and not as on a torus.
    segmenter = TrainableSegmenter(backbone, classical=None, scales=(1,)).fit(image, labels)
    mask = segmenter.predict(image)
    # Nickel is brighter, and what filters that know nothing of places find is much the same.
    assert image[mask == 1].mean() > image[mask == 2].mean() + 20
    assert (mask == TrainableSegmenter().fit(image, labels).predict(image)).mean() > 0.85
    rolled = segmenter.predict(np.roll(image, ROLL, (0, 1)))
    # Half precision of the remembered features, and upsampling that does not reach round the borders.
    assert (np.roll(rolled, [-step for step in ROLL], (0, 1)) == mask).mean() > 0.98
