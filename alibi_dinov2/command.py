# SPDX-License-Identifier: Apache-2.0
"""How every command of the project runs: arguments are parsed, wrong input ends with a message and an exit status."""

import argparse
import sys
from collections.abc import Callable, Sequence

from transformers.utils import logging

FAILED, INTERRUPTED = 2, 130  # exit statuses: argparse's own for wrong arguments, and a shell's for Ctrl-C


def run(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse arguments, run a command and end the process.

    Transformers' own progress bars are off: a command shows its own, if it does long work.

    Args:
        parser: of the arguments.
        command: what is to be done with them; it returns the exit status, `None` for success. A `ValueError` or an
            `OSError` that it raises says what was wrong with the input, an `ImportError` which package is missing.
        argv: the arguments, those of the process if not given.

    Raises:
        SystemExit: always. The status is the command's, 2 after wrong input, 130 after Ctrl-C.
    """
    arguments = parser.parse_args(argv)
    logging.disable_progress_bar()
    try:
        status = command(arguments)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(FAILED, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, f"{parser.prog}: interrupted\n")
    sys.exit(status or 0)
