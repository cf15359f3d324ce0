# SPDX-License-Identifier: Apache-2.0
"""What the commands that draw figures have in common: options, columns of models at sizes, errors, the PNG file."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from transformers.utils import logging

from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.io.files import new_file
from alibi_dinov2.io.images import find_images


@dataclass(frozen=True)
class Column:
    """A column of a figure: a model, and the shortest side in pixels at which it sees images."""

    label: str
    backbone: Backbone
    size: int


def figure_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every figure."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="Hub ids or folders of backbones, a column each")
    parser.add_argument(
        "--names", nargs="+", help="what to call the models; their Hub ids or folder names if not given"
    )
    parser.add_argument(
        "--images", nargs="+", type=Path, required=True, help="images and folders of images, a row each"
    )
    parser.add_argument(
        "--size",
        nargs="+",
        type=int,
        default=[518],
        help="shortest side in pixels at which the models see images; of several, each gives every model a column",
    )
    parser.add_argument("--device", default="cpu", help="where the models run, such as cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--output", type=Path, required=True, help="file for the picture (PNG)")
    return parser


def image_paths(arguments: argparse.Namespace) -> list[Path]:
    """The images that were asked for: files as given, folders by `find_images`, whose errors it raises."""
    return [path for given in arguments.images for path in ([given] if given.is_file() else find_images(given))]


def figure_columns(arguments: argparse.Namespace) -> list[Column]:
    """The columns that were asked for. All models are loaded at once, so that a wrong one fails before the long work.

    Raises:
        ValueError: a size is below 1, or what `named_backbones` raises.
        OSError: there is no such model.
    """
    if min(arguments.size) < 1:
        raise ValueError(f"--size is {' '.join(map(str, arguments.size))}; it must be 1 pixel or more.")
    return [
        Column(f"{backbone.name}, {size} px" if len(arguments.size) > 1 else backbone.name, backbone, size)
        for backbone in named_backbones(arguments)
        for size in arguments.size
    ]


def named_backbones(arguments: argparse.Namespace) -> list[Backbone]:
    """The backbones of `--models`, on `--device`, under their `--names`.

    Raises:
        ValueError: there is not one name for each model, or two models have the same.
        OSError: there is no such model.
    """
    names = arguments.names or [None] * len(arguments.models)
    if len(names) != len(arguments.models):
        raise ValueError(
            f"There are {len(names)} --names for {len(arguments.models)} --models; give one each, or none."
        )
    backbones = [
        load_backbone(source, arguments.device, name) for source, name in zip(arguments.models, names, strict=True)
    ]
    if len({backbone.name for backbone in backbones}) < len(backbones):
        found = ", ".join(backbone.name for backbone in backbones)
        raise ValueError(f"Models of the same name cannot be told apart ({found}); give each its own with --names.")
    return backbones


def run_figure(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], Image.Image]) -> None:
    """Run a command and write its picture; wrong input ends with a message, not a traceback."""
    logging.disable_progress_bar()
    arguments = parser.parse_args()
    try:
        picture = command(arguments)
        with new_file(arguments.output) as temporary:
            picture.save(temporary, format="PNG")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{arguments.output}: {picture.width}×{picture.height} pixels")
