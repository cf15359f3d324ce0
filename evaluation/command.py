# SPDX-License-Identifier: Apache-2.0
"""What the evaluation's commands have in common: options of models and removals, the records and pictures they write.

A module of `evaluation` that is a command has `make_parser`, `command`, which does what the parsed arguments ask for,
and `main`, which hands both to one of

    run_record      a model is measured; `--output` is the record
    run_records     several models are compared; a record of each goes into `--output-folder`
    run_figure      several models are drawn side by side; `--output` is the picture
"""

import argparse
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from alibi_dinov2.command import run
from alibi_dinov2.features import columns
from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.features.feature_cache import DEFAULT_FOLDER, DEFAULT_LIMIT, FeatureCache
from alibi_dinov2.features.zoo import MODELS
from alibi_dinov2.io.files import write_json
from alibi_dinov2.io.images import find_images, read_folder
from alibi_dinov2.pictures.panels import save_figure
from evaluation.removals.fitting import COUNTS, REMOVALS, fit_removal, require_options, with_removal

CLONE = Path(__file__).parents[1]
Arguments = argparse.Namespace


def plain_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser without options, whose description keeps its lines."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def record_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a command that measures one model; for `measured_backbone` and `run_record`."""
    parser = plain_parser(description)
    parser.add_argument("--model", required=True, help=f"Hub id or folder of the backbone, or {', '.join(MODELS)}")
    parser.add_argument("--name", help="what the record calls the model; its Hub id or folder name if not given")
    parser.add_argument("--size", type=int, default=518, help="shortest side in pixels at which the model sees images")
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    removal = parser.add_argument_group("removal", "what else could be done: evaluation.removals")
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


def models_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a command that compares models; for `named_backbones`."""
    parser = plain_parser(description)
    parser.add_argument("--models", nargs="+", required=True, help="Hub ids or folders of backbones")
    parser.add_argument(
        "--names", nargs="+", help="what to call the models; their Hub ids or folder names if not given"
    )
    parser.add_argument("--device", default="cpu", help="where the models run, such as cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    return parser


def figure_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a picture with a column per model; for `figure_columns` and `run_figure`."""
    parser = models_parser(description)
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
    parser.add_argument("--output", type=Path, required=True, help="file for the picture (PNG)")
    return parser


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that keep features; for `feature_cache`."""
    parser.add_argument("--cache", type=Path, default=DEFAULT_FOLDER, help="folder for what can be computed again")
    parser.add_argument(
        "--cache-limit",
        type=float,
        default=DEFAULT_LIMIT / 2**30,
        help="GiB of features that it may hold; beyond it those go that were not used for longest",
    )


def feature_cache(arguments: Arguments) -> FeatureCache:
    """The cache that the options of `add_cache_options` ask for."""
    return FeatureCache(arguments.cache, int(arguments.cache_limit * 2**30))


def measured_backbone(arguments: Arguments) -> Backbone:
    """The backbone that the options of `record_parser` ask for, with a removal if they ask for one.

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


def named_backbones(arguments: Arguments) -> list[Backbone]:
    """The backbones of `--models`, on `--device`, under their `--names`; raises what `columns.named_backbones` does."""
    return columns.named_backbones(arguments.models, arguments.names, arguments.device)


def figure_columns(arguments: Arguments) -> list[columns.Column]:
    """The columns that the options of `figure_parser` ask for; raises what `columns` and `named_backbones` raise."""
    return columns.columns(named_backbones(arguments), arguments.size)


def image_paths(arguments: Arguments) -> list[Path]:
    """The images that `figure_parser` was given: files as given, folders by `find_images`, whose errors it raises."""
    return [path for given in arguments.images for path in ([given] if given.is_file() else find_images(given))]


def print_figures(record: dict[str, Any]) -> None:
    """A record's figures as text."""
    print(f"{record['model']['name']} on {record['dataset']['name']} ({record['dataset']['images']} images)")
    for name, value in record["metrics"].items():
        print(f"  {name:<24}{value:8.4f}")


def run_record(
    parser: argparse.ArgumentParser,
    command: Callable[[Arguments], dict[str, Any]],
    argv: Sequence[str] | None = None,
    show: Callable[[dict[str, Any]], None] = print_figures,
) -> None:
    """Run a command that gives a record, write it to `--output` and show its figures; ends as `run` does."""

    def measure_and_write(arguments: Arguments) -> None:
        record = command(arguments)
        write_json(arguments.output, record | {"command": command_line(command, parser, arguments)})
        show(record)

    run(parser, measure_and_write, argv)


def run_records(
    parser: argparse.ArgumentParser,
    command: Callable[[Arguments], Iterable[dict[str, Any]]],
    argv: Sequence[str] | None = None,
) -> None:
    """Run a command that gives records and write them into `--output-folder`; ends as `run` does."""

    def measure_and_write(arguments: Arguments) -> None:
        words = command_line(command, parser, arguments)
        for record in command(arguments):
            write_json(arguments.output_folder / record_name(record), record | {"command": words})

    run(parser, measure_and_write, argv)


def run_figure(
    parser: argparse.ArgumentParser, command: Callable[[Arguments], Figure], argv: Sequence[str] | None = None
) -> None:
    """Run a command that draws and write its picture to `--output`; ends as `run` does."""

    def draw_and_write(arguments: Arguments) -> None:
        save_figure(command(arguments), arguments.output)
        print(f"{arguments.output}: written")

    run(parser, draw_and_write, argv)


def record_name(record: dict[str, Any]) -> str:
    """What the file of a record is called where there are several: task, data, model and, if there is one, size."""
    parts = [record["task"], record["dataset"]["name"], record["model"]["name"]]
    parts += [str(record["parameters"]["size"])] if "size" in record["parameters"] else []
    return re.sub(r"[/\\\0]", "--", "-".join(parts)) + ".json"


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
    file = Path(inspect.getfile(command)).resolve()  # a module that is run has the name `__main__`
    module = ".".join(file.relative_to(CLONE.resolve()).with_suffix("").parts)
    words = ["python", "-m", module.removesuffix(".__main__")]
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
