# SPDX-License-Identifier: Apache-2.0
"""Convpaint on the strokes of a simulated user. Runs in an environment of its own (`requirements.txt`), by path:

    python convpaint.py MODEL FOLDER

MODEL is one of Convpaint's: `gaussian`, `vgg` (its default) or `dinov2`. The last two download weights when they are
first used. FOLDER holds `images.npz`, `labels.npz` and `places.npz` (see `programs.py`); predictions and versions are
written beside them. A model whose weights cannot be had ends with the exit status 3.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
NO_WEIGHTS = 3  # the exit status
LIBRARIES = ("napari-convpaint", "catboost", "scikit-image", "scikit-learn", "torch", "torchvision")


def main(model_name: str, folder: Path) -> int:
    from napari_convpaint.convpaint_model import ConvpaintModel

    images, places = (list(np.load(folder / f"{name}.npz").values()) for name in ("images", "places"))
    labels = np.load(folder / "labels.npz")
    tested = images[len(images) - len(places) :]
    try:
        ConvpaintModel(model_name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return NO_WEIGHTS
    predictions = {}
    for name in {key.rsplit("/", 1)[0]: None for key in labels}:
        drawn = [labels[f"{name}/{index}"] for index in range(len(images) - len(tested))]
        model = ConvpaintModel(model_name)
        model.set_param("channel_mode", "rgb")
        model.train([image.transpose(2, 0, 1) for image in images[: len(drawn)]], drawn)
        maps = [model.segment(image.transpose(2, 0, 1)) for image in tested]
        predictions[name] = np.concatenate(
            [found[tuple(where.T)] for found, where in zip(maps, places, strict=True)]
        ).astype(np.uint8)
    np.savez(folder / "predictions.npz", **predictions)  # type: ignore[arg-type]
    versions = {name: version(name) for name in LIBRARIES}
    (folder / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
