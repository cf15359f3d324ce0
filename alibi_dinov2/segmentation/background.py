# SPDX-License-Identifier: Apache-2.0
"""Long work in a thread of its own, a step at a time, so that it can be stopped between any two of them."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Condition, Thread
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[tuple[int, int], None, T]  # how many of how many steps are done; returns the result
Progress: TypeAlias = Callable[[int, int], None]


class Background:
    """Tasks that one thread works on, step by step; what was asked for last comes first.

    A task is a generator that gives, after every step, how many of how many are done, and returns the result.
    """

    def __init__(self, name: str) -> None:
        self.changed = Condition()
        self.tasks: list[tuple[Future, Steps[Any], Progress | None]] = []
        self.closed, self.pauses = False, 0
        # A daemon, so that a program that forgets to close can end.
        self.thread = Thread(target=self.work, name=name, daemon=True)
        self.thread.start()

    def submit(self, steps: Steps[T], progress: Progress | None = None) -> "Future[T]":
        """Begin a task. Its future can be cancelled as long as it is not done, also when it has begun.

        Args:
            steps: the task.
            progress: called in the thread with how many of how many steps are done. What it raises ends the task.

        Raises:
            ValueError: there is no thread any more.
        """
        future: Future[T] = Future()
        with self.changed:
            if self.closed:
                raise ValueError("The session is closed; open another one.")
            self.tasks.append((future, steps, progress))
            self.changed.notify_all()
        return future

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Begin no step as long as something more urgent is done."""
        with self.changed:
            self.pauses += 1
        try:
            yield
        finally:
            with self.changed:
                self.pauses -= 1
                self.changed.notify_all()

    def cancel(self) -> None:
        """Cancel all tasks; the step that is being done is the last."""
        with self.changed:
            futures = [future for future, _, _ in self.tasks]
        for future in futures:
            future.cancel()

    def close(self) -> None:
        """Cancel all tasks and wait until the thread has ended."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.cancel()
        self.thread.join()

    def work(self) -> None:
        """What the thread does."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: (self.tasks and not self.pauses) or self.closed)
                if not self.tasks:
                    return
                task = self.tasks[-1]
            if self.has_ended(*task):
                with self.changed:
                    self.tasks.remove(task)

    @staticmethod
    def has_ended(future: Future, steps: Steps[Any], progress: Progress | None) -> bool:
        """Do a step; whether it was the last, for the task is done, has failed or was cancelled."""
        # A future that does not know that it is running can be cancelled.
        try:
            if future.cancelled():
                steps.close()
                return True
            counts = next(steps)
            if progress:
                progress(*counts)
            return False
        except StopIteration as end:
            if future.set_running_or_notify_cancel():
                future.set_result(end.value)
        except BaseException as error:  # whoever waits for the result gets it
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        return True
