# SPDX-License-Identifier: Apache-2.0
"""What the evaluation commands have in common: options, errors and the writing of records."""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils import logging

from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.features.zoo import MODELS
from alibi_dinov2.io.files import write_json
from alibi_dinov2.io.images import read_folder
from evaluation.removals.removals.removals.removals import COUNTS, REMOVALS, fit_removal, require_options, with_removal


def common_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every evaluation that makes a record."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help=f"Hub id or folder of the backbone, or {', '.join(MODELS)}")
    parser.add_argument("--name", help="what the record calls the model; its Hub id or folder name if not given")
    parser.add_argument("--size", type=int, default=518, help="shortest side in pixels at which the model sees images")
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    removal = parser.add_argument_group(
        "removal", "what else could be done: evaluation.removals.removals.removals.removals"
    )
    removal.add_argument("--removal", choices=REMOVALS, help="what is done to the features of the model")
    removal.add_argument(
        "--removal-images", type=Path, help="folder of images that blank-channels or rasa is fitted on"
    )
    removal.add_argument("--removal-count", type=int, help=f"of channels, rounds or directions; if not given, {COUNTS}")
    removal.add_argument(
        "--removal-channels", type=int, nargs="+", help="what blank-channels zeroes, instead of fitting"
    )
    parser.add_argument("--output", type=Path, required=True, help="file for the result record (JSON)")
    return parser


def measured_backbone(arguments: argparse.Namespace) -> Backbone:
    """The backbone that the options of `common_parser` ask for, with a removal if they ask for one.

    Raises:
        ValueError: options of a removal are given without one, or do not fit it.
        OSError: there is no such model, folder or file.
    """
    options = {
        "images": arguments.removal_images,
        "count": arguments.removal_count,
        "channels": arguments.removal_channels,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.removal is None and given:
        raise ValueError(f"--removal-{next(iter(given))} needs --removal, one of {', '.join(REMOVALS)}.")
    if arguments.removal is not None:
        require_options(arguments.removal, set(given))
    if "images" in given:
        given["images"] = read_folder(given["images"])
    backbone = load_backbone(arguments.model, arguments.device, arguments.name)
    if arguments.removal is None:
        return backbone
    removal = fit_removal(arguments.removal, backbone, arguments.size, **given)
    name = arguments.name or f"{backbone.name} + {removal.name}"
    return with_removal(replace(backbone, name=name), removal, arguments.size)


def run_command(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], dict[str, Any]]) -> None:
    """Run a command, write its record and print its figures; wrong input ends with a message, not a traceback."""
    logging.disable_progress_bar()
    arguments = parser.parse_args()
    try:
        record = command(arguments) | {"command": command_line(command, parser, arguments)}
        write_json(arguments.output, record)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{record['model']['name']} on {record['dataset']['name']} ({record['dataset']['images']} images)")
    for name, value in record["metrics"].items():
        print(f"  {name:<24}{value:8.4f}")


def command_line(
    command: Callable[..., Any], parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> list[str]:
    """The command that makes a record again, as a list of words: the options that differ from their defaults.

    Absolute paths, and those that lead out of the working directory, appear by their last part only: a record tells
    nothing of the machine.

    Args:
        command: any function of the module that was run.
        parser: whose options are named like what they set.
        arguments: what it parsed.
    """
    words = ["python", "-m", f"evaluation.{Path(inspect.getfile(command)).stem}"]
    for name, value in vars(arguments).items():
        if value == parser.get_default(name):
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(without_path, value if isinstance(value, list | tuple) else [value])]
    return words


def without_path(value: object) -> str:
    """An option's value as a word; of a path that is absolute or leads upwards the last part only."""
    path = Path(str(value))
    return path.resolve().name if path.is_absolute() or ".." in path.parts else str(value)
