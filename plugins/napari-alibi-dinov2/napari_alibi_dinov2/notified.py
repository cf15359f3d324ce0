# SPDX-License-Identifier: Apache-2.0
"""Errors of what a user does as napari's notifications."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from napari.utils.notifications import show_error

EXPECTED = (ValueError, OSError, ImportError)  # whose message says what to do


def notified(action: Callable[[Any], None]) -> Callable[..., None]:
    """A method, to be connected to a signal, that shows what is wrong and does nothing else then."""

    @wraps(action)
    def wrapped(self: Any, *_: Any) -> None:
        try:
            action(self)
        except EXPECTED as error:
            show_error(str(error))

    return wrapped
