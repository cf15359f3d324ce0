# SPDX-License-Identifier: Apache-2.0
"""Streams: every row once a pass, in an order of its own, and nothing read again by a run that goes on."""

import itertools

import datasets
import pytest

from training.stream import Place, Stream, StreamedRows


def rows_of(shards: list[list[int]], read: list[int]) -> Stream:
    """A stream of shards of numbers that notes what is read of it."""

    def generate(shards):
        for shard in shards:
            for number in shard:
                read.append(number)
                yield {"image": number}

    return Stream(datasets.IterableDataset.from_generator(generate, gen_kwargs={"shards": shards}))


SHARDS = [list(range(0, 7)), list(range(10, 12)), list(range(20, 29)), [30]]
ALL = list(itertools.chain(*SHARDS))


def numbers(stream, start, stop, places=None, block=4):
    found = list(StreamedRows(stream, start, stop, seed=0, block=block, places=places))
    assert [sample for sample, _ in found] == list(range(start, stop))
    return [row["image"] for _, row in found]


@pytest.mark.parametrize("block", [1, 4, 100])
def test_each_pass_sees_every_row_once_in_an_order_of_its_own(block):
    found = numbers(rows_of(SHARDS, []), 0, 4 * len(ALL), block=block)
    passes = [found[first : first + len(ALL)] for first in range(0, len(found), len(ALL))]
    assert all(sorted(each) == ALL for each in passes)
    assert len({tuple(each) for each in passes}) == 4
    assert ALL not in passes


def test_shards_come_in_another_order_in_each_pass():
    found = numbers(rows_of(SHARDS, []), 0, 4 * len(ALL), block=1)
    firsts = {tuple(found[first : first + len(ALL)].index(shard[0]) for shard in SHARDS) for first in range(0, 76, 19)}
    assert len(firsts) > 1


@pytest.mark.parametrize("start", [0, 1, 7, 18, 19, 20, 37, 45, 57])
def test_run_that_goes_on_reads_nothing_before_its_block(start):
    whole = numbers(rows_of(SHARDS, []), 0, 70)
    places = [Place()]
    numbers(rows_of(SHARDS, []), 0, start + 1, places)
    (place,) = [Place(**vars(place)) for place in places if place.row <= start][-1:]
    read: list[int] = []
    assert numbers(rows_of(SHARDS, read), start, 70, [place]) == whole[start:]
    assert start - place.row < 4
    # What is read is what is used, the block's beginning, and of its shard what lies before it.
    assert len(read) <= 70 - place.row + place.offset + 4


def test_later_stage_goes_on_where_the_one_before_has_stopped():
    whole = numbers(rows_of(SHARDS, []), 0, 60)
    read: list[int] = []
    stream, places = rows_of(SHARDS, read), [Place()]
    first = numbers(stream, 0, 30, places)
    before = len(read)
    second = numbers(stream, 30, 60, places)
    assert first + second == whole
    assert len(read) - before <= 30 + 4 + 9


@pytest.mark.parametrize("count", [1, 7, 8, 9, 12])
def test_kept_rows_are_the_first_whatever_shards_they_are_in(count):
    stream = rows_of(SHARDS, [])
    assert stream.first(count)["image"] == ALL[:count]
    rest = stream.without_first(count)
    assert [row["image"] for row in rest] == ALL[count:]
    assert sorted(numbers(rest, 0, len(ALL) - count)) == ALL[count:]


def test_stream_without_rows_is_an_error():
    with pytest.raises(ValueError, match="The stream has no rows"):
        numbers(rows_of([[], []], []), 0, 3)
