# SPDX-License-Identifier: Apache-2.0
"""Ending a run from outside: SIGINT (Ctrl-C) and SIGTERM (a scheduler, a container) let it save what it has."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2


class Stopped(KeyboardInterrupt):
    """A signal has ended the run.

    Args:
        number: the signal.
        step: the step whose checkpoint was saved because of it, if one was.
    """

    def __init__(self, number: int, step: int | None = None) -> None:
        self.number, self.step = number, step
        saved = "" if step is None else f" after step {step}, whose checkpoint is saved"
        super().__init__(
            f"stopped by {signal.Signals(number).name}{saved}; --resume goes on from the newest checkpoint."
        )


class Stop:
    """Whether a signal has asked for the end.

    A signal ends the program at once, as `Stopped`, except where it is put off: there it is remembered.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.putting_off = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.putting_off:
            raise Stopped(number)
        if self.number is None:
            self.number = number
            # A handler may interrupt a print, so it cannot print.
            os.write(STDERR, f"\n{signal.Signals(number).name}: a checkpoint is saved after this step …\n".encode())

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Remember signals until the end of the block."""
        self.putting_off = True
        try:
            yield
        finally:
            self.putting_off = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle the signals within the block."""
    stop = Stop()
    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_signals(worker: int) -> None:
    """Have a process that decodes images leave the signals, which go to a whole group of processes, to the main one."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
