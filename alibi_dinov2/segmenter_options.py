# SPDX-License-Identifier: Apache-2.0
"""The options of commands that learn from labelled images, and the segmenter that they ask for."""

import argparse
import os
from pathlib import Path

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.features.multi_scale_features import SCALES
from alibi_dinov2.features.position_features import POSITIONS
from alibi_dinov2.features.precision import BACKBONE_DTYPES, FLOAT32
from alibi_dinov2.features.zoo import MODELS
from alibi_dinov2.segmentation.guided_filter import RADIUS
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is learned from and how, for `new_segmenter`."""
    parser.add_argument(
        "--labels",
        nargs="+",
        type=Path,
        required=True,
        help="label images (0 unlabelled, 1, 2, … classes) or ImageJ regions whose groups are classes (.roi, .zip), "
        "and folders of them, named like the images",
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--model", help=f"Hub id or folder of the backbone, or {', '.join(MODELS)}")
    kind.add_argument("--no-deep", action="store_true", help="use classical features alone")
    add_dtype(parser)
    parser.add_argument("--no-classical", action="store_true", help="use deep features alone")
    parser.add_argument("--classifier", choices=CLASSIFIERS, default=CLASSIFIERS[0])
    parser.add_argument("--class-names", nargs="+", help="one for each class, in the order of their numbers")
    parser.add_argument(
        "--components", type=int, default=DeepFeatures.components, help="principal components of the deep features"
    )
    parser.add_argument(
        "--shifts",
        type=int,
        default=DeepFeatures.shifts,
        help="patches per patch length: 2 makes deep features twice as fine",
    )
    parser.add_argument(
        "--per-image",
        action=argparse.BooleanOptionalAction,
        default=DeepFeatures.per_image,
        help="standardise deep features in each image; --no-per-image where images show different phases",
    )
    parser.add_argument(
        "--scales",
        nargs="+",
        type=int,
        default=SCALES,
        help="deep features of the image as it is (1), of one at half its size (2), …; fewer are faster",
    )
    parser.add_argument(
        "--position",
        nargs="+",
        choices=POSITIONS,
        default=[],
        help="where a pixel is, as features of its own: only for classes that follow position, such as layers",
    )
    parser.add_argument(
        "--guided-radius",
        type=int,
        default=RADIUS,
        help="pixels, of the filter that brings the borders of classes to edges in the image; 0 for none",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """The argument that says which numbers the backbone computes with."""
    parser.add_argument(
        "--dtype",
        choices=BACKBONE_DTYPES,
        default=FLOAT32,
        help="numbers that the backbone computes with; bfloat16 is quicker where the processor has units for it",
    )


def new_segmenter(arguments: argparse.Namespace) -> TrainableSegmenter:
    """The segmenter that the options of `add_settings` ask for."""
    return TrainableSegmenter(
        load_backbone(arguments.model, own_device(arguments.device), dtype=BACKBONE_DTYPES[arguments.dtype])
        if arguments.model
        else None,
        None if arguments.no_classical else ClassicalFeatures(),
        arguments.classifier,
        components=arguments.components,
        shifts=arguments.shifts,
        per_image=arguments.per_image,
        scales=arguments.scales,
        position=arguments.position,
        guided_radius=arguments.guided_radius,
        cache=FeatureCache(arguments.cache),
        class_names=arguments.class_names,
        contrast=arguments.contrast,
        channel=arguments.channel,
        series=arguments.series,
        seed=arguments.seed,
        progress=True,
    )


def own_device(device: str) -> str:
    """The device of this process among those that `accelerate launch` started on this machine."""
    rank = os.environ.get("LOCAL_RANK")
    return f"{device}:{rank}" if rank and device == "cuda" else device
