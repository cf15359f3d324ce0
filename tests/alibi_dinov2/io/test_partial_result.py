# SPDX-License-Identifier: Apache-2.0
"""A result that is written in blocks comes out whole, whatever happens on the way and however many are at it."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from alibi_dinov2.io import partial_result
from alibi_dinov2.io.partial_result import Layer, PartialResult
from alibi_dinov2.io.tiles import blocks

SHAPE, BLOCK = (300, 410), 128
NUMBERS = len(blocks(SHAPE, BLOCK))
LAYERS = [Layer("classes", "uint8"), Layer("shares", "float32", 3)]
RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.integers(1, 4, (2, *SHAPE), dtype=np.uint8)
SHARES = RANDOM.random((2, 3, *SHAPE), dtype=np.float32)


def begin(path, slices=2, shape=SHAPE, layers=LAYERS, identity="first") -> PartialResult:
    return PartialResult(path, slices, shape, layers, identity)


def write_blocks(partial: PartialResult, limit: int = 1000) -> int:
    """Write at most `limit` of the blocks that are not done; return how many."""
    written = 0
    for index in range(partial.slices):
        for number, (rows, columns) in enumerate(blocks(partial.shape, BLOCK)):
            if written < limit and number not in partial.done(index):
                parts = {"classes": CLASSES[index, rows, columns], "shares": SHARES[index, :, rows, columns]}
                partial.write(index, number, rows, columns, parts)
                written += 1
    return written


def test_layers_come_out_as_they_went_in(tmp_path):
    partial = begin(tmp_path / "new" / "map.tif")
    assert not partial.complete(NUMBERS)
    assert write_blocks(partial) == 2 * NUMBERS
    assert partial.complete(NUMBERS)
    np.testing.assert_array_equal(partial.mapped("classes"), CLASSES)
    np.testing.assert_array_equal(partial.mapped("shares"), SHARES)
    partial.remove()
    assert list((tmp_path / "new").iterdir()) == []


def test_stopped_work_is_gone_on_from(tmp_path):
    assert write_blocks(begin(tmp_path / "map.tif"), limit=NUMBERS + 5) == NUMBERS + 5
    resumed = begin(tmp_path / "map.tif")
    assert (len(resumed.done(0)), len(resumed.done(1))) == (NUMBERS, 5)
    assert write_blocks(resumed) == NUMBERS - 5
    np.testing.assert_array_equal(resumed.mapped("classes"), CLASSES)


@pytest.mark.parametrize(
    "change", ["identity", "shape", "slices", "layers", "facts", "raw", "torn facts", "torn journal"]
)
def test_what_was_begun_otherwise_counts_for_nothing(tmp_path, change):
    begun = begin(tmp_path / "map.tif")
    write_blocks(begun, limit=5)
    if change == "facts":
        (begun.folder / partial_result.FACTS).unlink()
    if change == "torn facts":
        os.truncate(begun.folder / partial_result.FACTS, 40)
    if change == "torn journal":
        os.truncate(begun.journal(0), 3)
    if change == "raw":
        os.truncate(begun.file(LAYERS[0]), 1000)
    changes = {"identity": "second", "shape": SHAPE[::-1], "slices": 1, "layers": LAYERS[:1]}
    partial = begin(tmp_path / "map.tif", **{change: changes[change]} if change in changes else {})
    assert partial.done(0) == set()
    assert change == "torn journal" or not partial.mapped("classes").any()


def test_parts_that_do_not_fit_are_refused(tmp_path):
    partial = begin(tmp_path / "map.tif", layers=LAYERS[:1])
    for classes in (CLASSES[0, :5, :6].astype(np.int64), CLASSES[0, :4, :6]):
        with pytest.raises(ValueError, match="do not fit"):
            partial.write(0, 0, slice(0, 5), slice(0, 6), {"classes": classes})
    assert partial.done(0) == set()


@pytest.mark.parametrize("when", ["block", "journal", "beginning"])
def test_full_disk_says_what_to_do_and_is_gone_on_from(tmp_path, monkeypatch, when):
    path = tmp_path / "map.tif"
    if when != "beginning":
        write_blocks(begin(path), limit=3)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((partial_result.os, "fsync") if when == "block" else (partial_result, "write_json")), full)
        with pytest.raises(OSError, match=r"map\.tif cannot be written .*No space left.*goes on from"):
            write_blocks(begin(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ([".map.tif.partial"] if when != "beginning" else [])
    resumed = begin(path)
    assert len(resumed.done(0)) == (3 if when != "beginning" else 0)
    write_blocks(resumed)
    np.testing.assert_array_equal(resumed.mapped("classes"), CLASSES)


HOLDER = """
import sys
from alibi_dinov2.io.partial_result import Layer, PartialResult
partial = PartialResult(sys.argv[1], 2, (300, 410), [Layer("classes", "uint8"), Layer("shares", "float32", 3)], "first")
with partial.claim(0) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds slice 0."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "map.tif")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_slice_is_claimed_once_until_its_process_is_killed(tmp_path, holder):
    partial = begin(tmp_path / "map.tif")
    with partial.claim(0) as first, partial.claim(1) as second:
        assert (first, second) == (False, True)
    with pytest.raises(ValueError, match="Another process is making"):
        begin(tmp_path / "map.tif", identity="second")
    assert partial.begun(), "the other's work was thrown away"
    holder.kill()
    holder.wait()
    with partial.claim(0) as ours:
        assert ours
    assert not begin(tmp_path / "map.tif", identity="second").done(0)


def test_what_was_finished_is_claimed_no_more_and_leaves_nothing(tmp_path):
    one, other = begin(tmp_path / "map.tif"), begin(tmp_path / "map.tif")
    one.remove()
    with other.claim(1) as ours:
        assert not ours
    assert list(tmp_path.iterdir()) == []
