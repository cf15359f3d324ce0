# SPDX-License-Identifier: Apache-2.0
"""Long work in a thread, step by step: a bar with a total, an end at any step, errors as notifications."""

import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple

from napari.utils import progress
from napari.utils.notifications import notification_manager, show_error
from qtpy.QtCore import QObject, QTimer, Signal

from napari_alibi_dinov2.notified import EXPECTED

INTERVAL = 20  # milliseconds between looks at what a job has given
PATIENCE = 2  # seconds after which napari shows a bar for a job
POLL = 0.02  # seconds between looks at work that goes on in a thread of somebody else


class Step(NamedTuple):
    """What a job gives after each step.

    Attributes:
        done, total: steps; a total of 0 if it is not known.
        title: what is being done.
        result: something to show already.
    """

    done: int
    total: int
    title: str
    result: Any = None


Steps = Generator[Step, None, Any]


@dataclass(frozen=True)
class Job:
    """Work for a thread.

    Attributes:
        steps: makes the generator; it and what it calls run in the thread.
        on_result: called in the window's thread with each result of a step.
        on_done: called there with what the generator returns, if it came to its end.
    """

    steps: Callable[[], Steps]
    on_result: Callable[[Any], None] = lambda result: None
    on_done: Callable[[Any], None] = lambda value: None


class End(NamedTuple):
    """How a job ended: what it returned, or what was raised."""

    value: Any = None
    error: BaseException | None = None


class Run:
    """A job in a thread, which ends at the next step once `stop` is set; what it gives lies in `messages`."""

    def __init__(self, job: Job) -> None:
        self.job, self.stop, self.began = job, Event(), time.monotonic()
        self.messages: SimpleQueue[Step | End] = SimpleQueue()
        self.thread = Thread(target=self.work, name="napari-alibi-dinov2", daemon=True)
        self.thread.start()

    def work(self) -> None:
        """What the thread does."""
        end, steps = End(), self.job.steps()
        try:
            while not self.stop.is_set():
                self.messages.put(next(steps))
        except StopIteration as stop:
            end = End(stop.value)
        except CancelledError:
            self.stop.set()
        except BaseException as error:  # told in the window's thread, whatever it is
            end = End(error=error)
        finally:
            steps.close()  # what it had begun elsewhere is cancelled
        self.messages.put(end)


class Jobs(QObject):
    """One job at a time; a new one takes the place of the one that runs.

    napari's own workers run in a pool that is shared with others, and whose threads cannot be waited for alone.

    Signals:
        advanced: title, done and total of the job that runs.
        ended: there is no job any more.
    """

    advanced = Signal(str, int, int)
    ended = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.current: Run | None = None
        self.waiting: Job | None = None
        self.bar: progress | None = None
        self.reading = False
        self.timer = QTimer(self)
        self.timer.setInterval(INTERVAL)
        self.timer.timeout.connect(self.read)

    @property
    def busy(self) -> bool:
        """Whether there is a job."""
        return self.current is not None

    def run(self, job: Job) -> None:
        """Begin a job; one that runs ends at its next step."""
        if self.current:
            self.waiting = job
            self.current.stop.set()
        else:
            self.current = Run(job)
            self.timer.start()

    def read(self) -> None:
        """Take what the job has given."""
        # napari lets the window work while it draws a bar, and so comes here again.
        if self.reading or self.current is None:
            return
        self.reading = True
        try:
            self.take(self.current)
        finally:
            self.reading = False

    def take(self, run: Run) -> None:
        """Hand results on, show the last step, and see to the end."""
        last = None
        while not run.messages.empty():
            message = run.messages.get()
            if isinstance(message, End):
                self.finish(run, message)
                return
            last = message
            if message.result is not None and not run.stop.is_set():
                run.job.on_result(message.result)
        if last and not run.stop.is_set():
            self.show(run, last)

    def show(self, run: Run, step: Step) -> None:
        """Show how far the job has come: in napari's own bar once it takes long, and its length is known.

        As long as there is a bar, napari draws a small animation, and with it, many times a second, the whole window.
        """
        self.advanced.emit(step.title, step.done, step.total)
        if self.bar is not None and (self.bar.total, self.bar.desc.rstrip(": ")) != (step.total, step.title):
            self.close_bar()
        if step.total and time.monotonic() - run.began > PATIENCE:
            self.bar = self.bar or progress(total=step.total, desc=step.title)
            self.bar.update(step.done - self.bar.n)

    def finish(self, run: Run, end: End) -> None:
        """A job has ended, in whatever way."""
        run.thread.join()
        self.close_bar()
        if run is not self.current:  # closed meanwhile
            return
        self.current, job, self.waiting = None, self.waiting, None
        if isinstance(end.error, EXPECTED):
            show_error(str(end.error))
        elif end.error is not None:
            notification_manager.receive_error(type(end.error), end.error, end.error.__traceback__)
        elif not run.stop.is_set():
            run.job.on_done(end.value)
        if job:
            self.run(job)
        elif not self.busy:  # what was to be done at the end may have begun another
            self.timer.stop()
            self.ended.emit()

    def cancel(self) -> None:
        """End the job at its next step."""
        self.waiting = None
        if self.current:
            self.current.stop.set()

    def close(self) -> None:
        """End the job and wait for that; no thread is left."""
        self.cancel()
        self.timer.stop()
        run, self.current = self.current, None
        if run:
            run.thread.join()
        self.close_bar()

    def close_bar(self) -> None:
        """Take the bar away."""
        bar, self.bar = self.bar, None
        if bar is not None:
            bar.close()


def following(begin: Callable[[Callable[[int, int], None]], Future], title: str) -> Steps:
    """Steps of work that goes on in another thread; if they are not gone on with, that work is cancelled.

    Args:
        begin: starts it, with a function to be called with how many of how many steps are done.
        title: what is being done.

    Returns:
        What the future holds.
    """
    counts = [0, 0]

    def advance(done: int, total: int) -> None:
        counts[:] = done, total

    future = begin(advance)
    try:
        while not future.done():
            yield Step(counts[0], counts[1], title)
            time.sleep(POLL)
    finally:
        future.cancel()
    return future.result()
