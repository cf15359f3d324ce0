# SPDX-License-Identifier: Apache-2.0
"""Jobs in threads."""

import threading
import time
from concurrent.futures import Future

import pytest
from drawing import WAIT
from napari_alibi_dinov2 import worker
from napari_alibi_dinov2.worker import Job, Jobs, Step, following


@pytest.fixture
def jobs(qtbot):
    made = Jobs()
    yield made
    made.close()


def counting(log, name="count", steps=3, pause=0.0):
    """A job that writes into a log what it does."""

    def work():
        try:
            for number in range(steps):
                log.append((name, number, threading.current_thread() is threading.main_thread()))
                yield Step(number, steps, name, number)
                time.sleep(pause)
            return name
        finally:
            log.append((name, "end"))

    return work


def test_a_job_runs_in_a_thread_and_tells_in_the_windows(jobs, qtbot):
    log, results, done = [], [], []
    where = lambda value: (value, threading.current_thread() is threading.main_thread())  # noqa: E731
    jobs.run(Job(counting(log), lambda result: results.append(where(result)), lambda end: done.append(where(end))))
    qtbot.waitUntil(lambda: not jobs.busy, timeout=WAIT)
    assert [entry[2] for entry in log[:-1]] == [False] * 3
    assert results == [(0, True), (1, True), (2, True)]
    assert done == [("count", True)]


def test_a_new_job_takes_the_place_of_one_that_runs(jobs, qtbot):
    log, done = [], []
    jobs.run(Job(counting(log, "old", 1000, 0.01), on_done=done.append))
    qtbot.waitUntil(lambda: len(log) > 2, timeout=WAIT)
    jobs.run(Job(counting([], "never", 1000, 0.01), on_done=done.append))
    jobs.run(Job(counting(log, "new"), on_done=done.append))
    qtbot.waitUntil(lambda: not jobs.busy, timeout=WAIT)
    assert done == ["new"]
    assert log.count(("old", "end")) == 1
    assert len(log) < 500


def test_a_job_that_was_cancelled_shows_no_more(jobs, qtbot):
    log, results = [], []
    jobs.run(Job(counting(log, steps=1000, pause=0.01), results.append))
    qtbot.waitUntil(lambda: len(results) > 2, timeout=WAIT)
    jobs.cancel()
    before = len(results)
    qtbot.waitUntil(lambda: not jobs.busy, timeout=WAIT)
    assert len(results) == before
    assert log[-1] == ("count", "end")


def test_an_error_is_told(jobs, qtbot, notes):
    def work():
        yield Step(0, 0, "failing")
        raise ValueError("This came; do that.")

    jobs.run(Job(work))
    qtbot.waitUntil(lambda: not jobs.busy, timeout=WAIT)
    assert [note.message for note in notes] == ["This came; do that."]


def test_closing_waits_for_the_step_and_leaves_nothing_behind(jobs, qtbot):
    log = []
    jobs.run(Job(counting(log, steps=1000, pause=0.2)))
    qtbot.waitUntil(lambda: bool(log), timeout=WAIT)
    thread = jobs.current.thread
    jobs.close()
    assert not jobs.busy
    assert not thread.is_alive()
    length = len(log)
    time.sleep(0.5)
    assert len(log) == length


def test_work_of_another_thread_is_followed_and_cancelled_with_the_job(jobs, qtbot):
    future: Future = Future()
    steps, seen = [], []

    def begin(progress):
        steps.append(progress)
        return future

    def work():
        yield from following(begin, "elsewhere")

    jobs.advanced.connect(lambda *counts: seen.append(counts))
    jobs.run(Job(work))
    qtbot.waitUntil(lambda: bool(steps), timeout=WAIT)
    steps[0](2, 7)
    qtbot.waitUntil(lambda: ("elsewhere", 2, 7) in seen, timeout=WAIT)
    jobs.cancel()
    qtbot.waitUntil(lambda: not jobs.busy, timeout=WAIT)
    assert future.cancelled()


@pytest.mark.parametrize(("patience", "total", "shown"), [(0.1, 40, True), (0.1, 0, False), (60, 40, False)])
def test_napari_shows_a_bar_for_what_takes_long_and_has_an_end(patience, total, shown, jobs, qtbot, monkeypatch):
    monkeypatch.setattr(worker, "PATIENCE", patience)
    bars = []

    def work():
        for number in range(40):
            yield Step(number if total else 0, total, "count")
            time.sleep(0.02)

    jobs.advanced.connect(lambda *_: bars.append(jobs.bar))
    jobs.run(Job(work))
    qtbot.waitUntil(lambda: not jobs.busy, timeout=WAIT)
    assert any(bar is not None for bar in bars) == shown
    assert bars[0] is None
    assert jobs.bar is None
