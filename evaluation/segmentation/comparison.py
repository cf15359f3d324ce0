# SPDX-License-Identifier: Apache-2.0
"""What the comparisons of backbones in trainable segmentation have in common: options, feature sets and versions."""

import argparse
from pathlib import Path
from typing import Any

from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS
from alibi_dinov2.segmentation.saved_segmenter import library_versions
from evaluation.command import add_cache_options, models_parser

CLASSICAL = "classical"


def comparison_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every comparison; for `run_records`."""
    parser = models_parser(description)
    parser.add_argument("--classifier", choices=CLASSIFIERS, default=CLASSIFIERS[0])
    parser.add_argument(
        "--components", type=int, default=DeepFeatures.components, help="principal components of the deep features"
    )
    parser.add_argument(
        "--window", type=int, default=DeepFeatures.window, help="side in pixels of what a model sees at once"
    )
    parser.add_argument("--overlap", type=int, default=DeepFeatures.overlap, help="of neighbouring windows in pixels")
    parser.add_argument("--scales", nargs="+", type=int, default=[1], help="see images at 1, 2, … of their pixels")
    add_cache_options(parser)
    parser.add_argument("--output-folder", type=Path, required=True, help="for a result record (JSON) of each model")
    parser.add_argument("--figure", type=Path, required=True, help="file for the picture (PNG)")
    return parser


def labelled_image_parser(description: str | None) -> argparse.ArgumentParser:
    """`comparison_parser` for comparisons on one image and its labels."""
    parser = comparison_parser(description)
    parser.add_argument("--image", type=Path, required=True, help="micrograph of a homogeneous material")
    parser.add_argument(
        "--labels", type=Path, required=True, help="image of its size: 0 unlabelled, classes 1, 2, …, in 8 bits"
    )
    return parser


def segmenter_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of a `TrainableSegmenter` by the options of `comparison_parser`, unfiltered as in the paper."""
    found = {name: getattr(arguments, name) for name in ("classifier", "components", "window", "overlap", "scales")}
    return found | {"guided_radius": 0}


def with_versions(record: dict[str, Any]) -> dict[str, Any]:
    """A record that names the versions of what a segmenter depends on as well."""
    return record | {"versions": record["versions"] | library_versions()}
