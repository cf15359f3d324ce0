# SPDX-License-Identifier: Apache-2.0
"""How much of a patch's place its features tell: the paper's joint x/y ridge probe (arXiv 2603.16840, section 3).

    python -m evaluation.position.positional_probe --model teacher --images data/micrographs \\
        --output results/micrographs.json
    python -m evaluation.position.positional_probe --model teacher --noise 4 --output results/noise.json

Two R² are reported: over all patches, those the probe was fitted on included, as published; and over the others only.
A model without semantics has a low R² too: read it beside a semantic score.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_folder
from evaluation.command import measured_backbone, record_parser, run_record
from evaluation.position.joint_probes import predict, r_squared
from evaluation.position.noise import noise_images
from evaluation.position.patch_sampling import TRAIN_FRACTION, sample_patches
from evaluation.position.position_targets import position_targets
from evaluation.report.records import DatasetFacts, Stopwatch, data_name, describe_images, make_record, mean_and_std

REPEATS = 6


@dataclass(frozen=True)
class ProbeScore:
    """R² of one fit: over all patches, those it was fitted on included (as published), and over the others only."""

    all_patches: float
    held_out: float


def probe_position(features: np.ndarray, train: np.ndarray) -> ProbeScore:
    """Fit ridge regression (alpha 1) from standardised features to x and y on some patches, and score it.

    Args:
        features: `(h, w, D)`.
        train: `(h·w,)` boolean, the patches to fit on. Standardisation is fitted on them too.

    Returns:
        R² averaged over x and y; 1 is perfect, 0 as good as the mean, and there is no lower limit.
    """
    rows, columns, width = features.shape
    targets = position_targets(rows, columns)
    predictions = predict("ridge", features.reshape(-1, width), targets, train)
    scores = (r_squared(predictions, targets, patches).mean() for patches in (np.s_[:], ~train))
    return ProbeScore(*map(float, scores))


def probe_images(
    features: Sequence[np.ndarray], repeats: int = REPEATS, fraction: float = TRAIN_FRACTION, seed: int = 0
) -> list[list[ProbeScore]]:
    """Scores of every image, `repeats` draws of patches each.

    Args:
        features: one `(h, w, D)` array per image.
    """
    random = np.random.default_rng(seed)
    return [
        [
            probe_position(image, sample_patches(image.shape[0] * image.shape[1], fraction, random))
            for _ in range(repeats)
        ]
        for image in features
    ]


def summarise(scores: Sequence[Sequence[ProbeScore]]) -> dict[str, float]:
    """Mean and standard deviation over images and repeats of both R², under the names that records use."""
    flat = [score for image in scores for score in image]
    return mean_and_std({f"r2_{name}": [vars(score)[name] for score in flat] for name in ("all_patches", "held_out")})


def measure(
    backbone: Backbone,
    images: Sequence[Image.Image],
    dataset: DatasetFacts,
    size: int,
    repeats: int = REPEATS,
    fraction: float = TRAIN_FRACTION,
    seed: int = 0,
) -> dict[str, Any]:
    """Images -> features -> probe -> result record."""
    stopwatch = Stopwatch()
    features = list(dense_features(backbone, images, size, progress=True))
    metrics = summarise(probe_images(features, repeats, fraction, seed))
    parameters = {"size": size, "repeats": repeats, "train_fraction": fraction, "target": "x/y", "probe": "ridge"}
    return make_record("positional_probe", metrics, dataset, backbone, parameters, seed, stopwatch)


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which images a positional probe is to see: a folder, or noise."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", help="folder of images")
    source.add_argument("--noise", type=int, help="number of images of uniform noise")


def read_images(arguments: argparse.Namespace) -> tuple[list[Image.Image], DatasetFacts]:
    """The images that the options of `add_image_options` ask for.

    Raises:
        ValueError: there is less than one image to make, or `read_folder` raises it.
        FileNotFoundError: as `read_folder`.
    """
    if arguments.images:
        images, name = read_folder(arguments.images), data_name(arguments.images)
    elif arguments.noise < 1:
        raise ValueError(f"{arguments.noise} images of noise were asked for; give 1 or more.")
    else:
        images, name = noise_images(arguments.noise, arguments.size, arguments.seed), "uniform noise"
    return images, describe_images(name, images)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = record_parser(__doc__)
    add_image_options(parser)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="draws of patches per image")
    return parser


def command(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record that the options ask for."""
    images, dataset = read_images(arguments)
    backbone = measured_backbone(arguments)
    return measure(backbone, images, dataset, arguments.size, arguments.repeats, seed=arguments.seed)


def main(argv: Sequence[str] | None = None) -> None:
    run_record(make_parser(), command, argv)


if __name__ == "__main__":
    main()
