# SPDX-License-Identifier: Apache-2.0
"""What the commands that draw figures have in common: options, columns of models at sizes, errors, the PNG file."""

import argparse
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from transformers.utils import logging

from alibi_dinov2.features.columns import Column, columns, named_backbones
from alibi_dinov2.io.files import new_file
from alibi_dinov2.io.images import find_images


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
    """The columns that were asked for; raises what `columns` and `named_backbones` raise."""
    return columns(named_backbones(arguments.models, arguments.names, arguments.device), arguments.size)


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
