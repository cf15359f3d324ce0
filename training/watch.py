# SPDX-License-Identifier: Apache-2.0
"""A look at the student while it is trained: the positional probe, and a picture of principal components."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.pictures.feature_colours import feature_colours
from alibi_dinov2.pictures.panels import Tile, image_tile, panel, save_figure
from evaluation.position.positional_probe import probe_images, summarise
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel

PICTURED = 4  # images in a picture


def watcher(
    images: list[Image.Image], size: int, processor: Dinov2AlibiImageProcessor, run: Path, writes: bool
) -> Callable[[int, Dinov2AlibiModel], dict[str, Any]]:
    """A function of step and student, called after each validation.

    Args:
        images: to look at.
        size: their shortest side in pixels.
        processor: of the student.
        run: the run's folder; pictures go into `pictures/`.
        writes: whether this process writes them.

    Returns:
        The function; it gives the positional R² of the images under the names of the result records.
    """

    def look(step: int, student: Dinov2AlibiModel) -> dict[str, Any]:
        training = student.training
        # Weights that change with every step need no checksum, and those of a sharded student have none.
        backbone = Backbone(student.eval(), processor, str(run), "student", weights_sha256=f"step {step}")
        maps = list(dense_features(backbone, images, size))
        student.train(training)
        if writes:
            pairs = list(zip(images, maps, strict=True))[:PICTURED]
            rows = [
                [image_tile(np.asarray(image)), Tile(feature_colours([[array]])[0][0], image.size)]
                for image, array in pairs
            ]
            save_figure(panel(rows, ["image", f"step {step}"]), run / "pictures" / f"step-{step:08d}.png")
        return summarise(probe_images(maps))

    return look
