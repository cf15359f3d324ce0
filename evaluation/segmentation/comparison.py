# SPDX-License-Identifier: Apache-2.0
"""What the comparisons of backbones in trainable segmentation have in common: options, feature sets and records."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers.utils import logging

from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import DEFAULT_FOLDER
from alibi_dinov2.io.files import write_json
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS
from alibi_dinov2.segmentation.saved_segmenter import library_versions
from evaluation.arguments import command_line

CLASSICAL = "classical"


def comparison_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every comparison."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="Hub ids or folders of backbones")
    parser.add_argument(
        "--names", nargs="+", help="what to call the models; their Hub ids or folder names if not given"
    )
    parser.add_argument("--classifier", choices=CLASSIFIERS, default=CLASSIFIERS[0])
    parser.add_argument(
        "--components", type=int, default=DeepFeatures.components, help="principal components of the deep features"
    )
    parser.add_argument(
        "--window", type=int, default=DeepFeatures.window, help="side in pixels of what a model sees at once"
    )
    parser.add_argument("--overlap", type=int, default=DeepFeatures.overlap, help="of neighbouring windows in pixels")
    parser.add_argument("--device", default="cpu", help="where the models run, such as cpu or cuda")
    parser.add_argument("--cache", type=Path, default=DEFAULT_FOLDER, help="folder for what can be computed again")
    parser.add_argument("--output-folder", type=Path, required=True, help="for a result record (JSON) of each model")
    parser.add_argument("--figure", type=Path, required=True, help="file for the picture (PNG)")
    return parser


def segmenter_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of a `TrainableSegmenter` among the options of `comparison_parser`."""
    return {name: getattr(arguments, name) for name in ("classifier", "components", "window", "overlap")}


def with_versions(record: dict[str, Any]) -> dict[str, Any]:
    """A record that names the versions of what a segmenter depends on as well."""
    return record | {"versions": record["versions"] | library_versions()}


def run_comparison(
    parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], Iterable[dict[str, Any]]]
) -> None:
    """Run a command and write its records; wrong input ends with a message, not a traceback."""
    logging.disable_progress_bar()
    arguments = parser.parse_args()
    try:
        for record in command(arguments):
            name = f"{record['task']}-{record['dataset']['name']}-{record['model']['name']}.json".replace("/", "--")
            write_json(arguments.output_folder / name, record | {"command": command_line(command, parser, arguments)})
    except (ValueError, OSError) as error:
        parser.error(str(error))
