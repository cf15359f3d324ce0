# SPDX-License-Identifier: Apache-2.0
"""Libraries that only some files need."""

from importlib import import_module
from typing import Any


def library(module: str, extra: str) -> Any:
    """An optional library.

    Args:
        module: its name.
        extra: of this project, which installs it.

    Raises:
        NotImplementedError: it is not there; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise NotImplementedError(
            f"{module.partition('.')[0]} is needed for it ({error}); pip install 'alibi-dinov2[{extra}]'"
        ) from error
