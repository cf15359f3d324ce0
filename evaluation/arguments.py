# SPDX-License-Identifier: Apache-2.0
"""What the evaluation commands have in common: options, errors and the writing of records."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils import logging

from common.files import write_json


def common_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every evaluation that makes a record."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hub id or folder of the backbone to measure")
    parser.add_argument("--name", help="what the record calls the model; its Hub id or folder name if not given")
    parser.add_argument("--size", type=int, default=518, help="shortest side in pixels at which the model sees images")
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--output", type=Path, required=True, help="file for the result record (JSON)")
    return parser


def run_command(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], dict[str, Any]]) -> None:
    """Run a command, write its record and print its figures; wrong input ends with a message, not a traceback."""
    logging.disable_progress_bar()
    arguments = parser.parse_args()
    try:
        record = command(arguments)
        write_json(arguments.output, record)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{record['model']['name']} on {record['dataset']['name']} ({record['dataset']['images']} images)")
    for name, value in record["metrics"].items():
        print(f"  {name:<24}{value:8.4f}")
