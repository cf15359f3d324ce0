# SPDX-License-Identifier: Apache-2.0
"""How far a student's patch features point where its teacher's do: what distillation is to bring back.

    python -m evaluation.semantics.agreement --teacher teacher --model student --images held_out --size 224 \\
        --run runs/first --output results/agreement.json
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_folder
from evaluation.command import measured_backbone, record_parser, run_record
from evaluation.report.records import DatasetFacts, Stopwatch, data_name, describe_images, make_record


def mean_cosine(features: np.ndarray, reference: np.ndarray, zero_channels: Sequence[int] = ()) -> float:
    """Mean cosine between the features of corresponding patches, some channels left out.

    Args:
        features, reference: `(h, w, D)`.

    Raises:
        ValueError: the two have different shapes.
    """
    if features.shape != reference.shape:
        raise ValueError(f"Features of shapes {features.shape} and {reference.shape} cannot be compared.")
    kept = np.setdiff1d(np.arange(features.shape[-1]), zero_channels)
    first, second = (array[..., kept].reshape(-1, len(kept)).astype(np.float64) for array in (features, reference))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean(np.sum(first * second, axis=1) / np.maximum(norms, np.finfo(float).tiny)))


def mean_cosine_of_all(
    found: Iterable[np.ndarray], expected: Iterable[np.ndarray], zero_channels: Sequence[int] = ()
) -> float:
    """The mean over images of `mean_cosine`, whose features come in the same order.

    Raises:
        ValueError: features have different shapes, or there are more of one kind.
    """
    return float(np.mean([mean_cosine(*pair, zero_channels) for pair in zip(found, expected, strict=True)]))


def measure(
    backbone: Backbone,
    teacher: Backbone,
    images: Sequence[Image.Image],
    dataset: DatasetFacts,
    size: int,
    zero_channels: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Images -> features of both -> result record.

    Its figures are `cosine`, of model and teacher, and as a yardstick `mirrored_teacher_cosine`, of the teacher and
    itself on mirrored images, mirrored back.

    Args:
        backbone: the model that is measured.
        teacher: what it is to agree with; its patches are of the same size.
        images, dataset: what both see, and facts of it.
        size: shortest side in pixels at which they see it.
        zero_channels: left out of the cosine.
        seed: for the record; nothing is random.

    Raises:
        ValueError: the two have different grids of patches or numbers of channels.
    """
    stopwatch = Stopwatch()
    mirrored = [ImageOps.mirror(image) for image in images]
    expected = list(dense_features(teacher, images, size))
    back = [features[:, ::-1] for features in dense_features(teacher, mirrored, size)]
    found = list(dense_features(backbone, images, size, progress=True))
    metrics = {
        name: mean_cosine_of_all(maps, expected, zero_channels)
        for name, maps in (("cosine", found), ("mirrored_teacher_cosine", back))
    }
    parameters = {"size": size, "zero_channels": list(zero_channels), "teacher": teacher.name}
    return make_record("teacher_agreement", metrics, dataset, backbone, parameters, seed, stopwatch)


def zeroed_channels(run: Path) -> list[int]:
    """The teacher channels that a run of distillation put to zero, from its configuration.

    Raises:
        OSError: there is no such run.
        ValueError: its configuration does not say.
    """
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    if "zeroed_channels" not in config:
        raise ValueError(f"{run / 'config.json'} has no zeroed_channels; give the folder of a run of distillation.")
    return config["zeroed_channels"]


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = record_parser(__doc__)
    parser.add_argument("--teacher", required=True, help="Hub id or folder of the teacher")
    parser.add_argument("--images", required=True, help="folder of images that the student was not trained on")
    parser.add_argument("--run", type=Path, help="run of distillation whose zeroed channels are to be left out")
    return parser


def command(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record that the options ask for."""
    images = read_folder(arguments.images)
    channels = zeroed_channels(arguments.run) if arguments.run else []
    teacher = load_backbone(arguments.teacher, arguments.device)
    backbone = measured_backbone(arguments)
    dataset = describe_images(data_name(arguments.images), images)
    return measure(backbone, teacher, images, dataset, arguments.size, channels, arguments.seed)


def main(argv: Sequence[str] | None = None) -> None:
    run_record(make_parser(), command, argv)


if __name__ == "__main__":
    main()
