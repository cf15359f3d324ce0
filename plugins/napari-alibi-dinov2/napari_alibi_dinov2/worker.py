# SPDX-License-Identifier: Apache-2.0
"""Long work in napari's threads, step by step: a bar with a total, an end at any step, errors as notifications."""

import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils import progress
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_alibi_dinov2.notified import EXPECTED

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


class Failure(NamedTuple):
    """What a job returns if something is wrong that the user can do something about."""

    error: Exception


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


class Jobs(QObject):
    """One job at a time; a new one takes the place of the one that runs.

    Signals:
        advanced: title, done and total of the job that runs.
        ended: there is no job any more.
    """

    advanced = Signal(str, int, int)
    ended = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.worker: GeneratorWorker | None = None
        self.waiting: Job | None = None
        self.bar: progress | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a job."""
        return self.worker is not None

    def run(self, job: Job) -> None:
        """Begin a job; one that runs ends at its next step."""
        if self.worker:
            self.waiting = job
            self.worker.quit()
            return
        steps = job.steps()

        def work() -> Steps:
            try:
                return (yield from steps)
            except CancelledError:
                return None
            except EXPECTED as error:
                return Failure(error)

        worker = create_worker(work, _start_thread=False)
        worker.yielded.connect(lambda step: self.show(worker, job, step))
        worker.returned.connect(lambda value: self.end(worker, job, value))
        worker.finished.connect(lambda: self.finish(steps))
        self.worker = worker
        worker.start()

    def is_current(self, worker: GeneratorWorker) -> bool:
        """Whether a job is still wanted."""
        return worker is self.worker and not worker.abort_requested

    def show(self, worker: GeneratorWorker, job: Job, step: Step) -> None:
        """A step of the job that runs was done."""
        if not self.is_current(worker):
            return
        if self.bar is None or self.bar.total != step.total or self.bar.desc.rstrip(": ") != step.title:
            self.close_bar()
            self.bar = progress(total=step.total, desc=step.title)
        self.bar.update(step.done - self.bar.n)
        self.advanced.emit(step.title, step.done, step.total)
        if step.result is not None:
            job.on_result(step.result)

    def end(self, worker: GeneratorWorker, job: Job, value: Any) -> None:
        """The job that runs has come to its end; what is wrong is told as napari does."""
        if self.is_current(worker):
            if isinstance(value, Failure):
                show_error(str(value.error))
            else:
                job.on_done(value)

    def finish(self, steps: Steps) -> None:
        """A job has ended, in whatever way; what it had begun elsewhere is cancelled."""
        steps.close()
        self.close_bar()
        self.worker, job, self.waiting = None, self.waiting, None
        if job:
            self.run(job)
        else:
            self.ended.emit()

    def cancel(self) -> None:
        """End the job at its next step."""
        self.waiting = None
        if self.worker:
            self.worker.quit()

    def close(self) -> None:
        """End the job and wait for that; no thread is left."""
        self.cancel()
        worker, self.worker = self.worker, None
        while worker and worker.is_running:
            time.sleep(POLL)
        self.close_bar()

    def close_bar(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


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
