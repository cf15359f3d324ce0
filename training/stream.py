# SPDX-License-Identifier: Apache-2.0
"""Images read as they are needed: shards in an order of their own for each pass, and rows shuffled in blocks.

A block is `shuffle_buffer` rows that follow each other. Since nothing is carried from one block to the next, a run goes
on from the beginning of a block: what came before it is never read again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Stream:
    """A streamed data set without the rows that are kept for validation.

    Args:
        images: the data set.
        kept: how many rows at the beginning of a shard are kept, by the shard's number.
    """

    images: datasets.IterableDataset
    kept: Mapping[int, int] = field(default_factory=dict)

    def shard(self, number: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """The rows of a shard from one on."""
        shard = self.images.shard(self.images.num_shards, number) if self.images.num_shards > 1 else self.images
        return iter(shard.skip(self.kept.get(number, 0) + start))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.images.num_shards):
            yield from self.shard(number)

    def first(self, count: int) -> datasets.Dataset:
        """The first rows, or all if there are fewer, as a list."""
        return datasets.Dataset.from_list(list(islice(self, count)), features=self.images.features)

    def without_first(self, count: int) -> "Stream":
        """The stream without its first rows."""
        kept = dict(self.kept)
        for number in range(self.images.num_shards):
            taken = sum(1 for _ in islice(self.shard(number), count))
            kept[number] = kept.get(number, 0) + taken
            count -= taken
            if not count:
                break
        return Stream(self.images, kept)


@dataclass(frozen=True)
class Place:
    """Where a block of a stream begins.

    Args:
        row: number of its first row, counted from the beginning of the first pass.
        epoch: the pass.
        shard: the place of the shard in the order of the pass.
        offset: row of the shard.
    """

    row: int = 0
    epoch: int = 0
    shard: int = 0
    offset: int = 0


class StreamedRows(Sampler[tuple[int, dict[str, Any]]]):
    """Numbered rows of a stream, passed over again and again, each time in another order.

    A sampler: the stream is read in one place, and whoever it gives a row to decodes it.

    Args:
        stream: from `load_images`.
        start, stop: numbers of the first row, and of the one after the last.
        seed: of the order.
        block: how many rows are shuffled among themselves.
        places: known beginnings of blocks in ascending order; new ones are added as they are reached. The rows are read
            from the last one that is not after `start`.
        sample: the run's sample number of row `start`.
    """

    def __init__(
        self,
        stream: Stream,
        start: int,
        stop: int,
        seed: int,
        block: int,
        places: list[Place] | None = None,
        sample: int | None = None,
    ) -> None:
        self.stream, self.start, self.stop, self.seed, self.block = stream, start, stop, seed, block
        self.places = [Place()] if places is None else places
        self.sample = start if sample is None else sample

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        place = place_before(self.places, self.start)
        for begin, rows in self.blocks(place):
            if begin.row > self.places[-1].row:
                self.places.append(begin)
            for number, row in enumerate(rows, begin.row):
                if number >= self.start:
                    yield self.sample + number - self.start, row
                if number + 1 == self.stop:
                    return

    def blocks(self, place: Place) -> Iterator[tuple[Place, list[dict[str, Any]]]]:
        """Blocks with their beginnings, without end.

        Raises:
            ValueError: the stream has no rows.
        """
        while True:
            first = place
            rows: list[dict[str, Any]] = []
            order = np.random.default_rng((self.seed, place.epoch)).permutation(self.stream.images.num_shards)
            for shard in range(place.shard, len(order)):
                begin = first.offset if shard == first.shard else 0
                for offset, row in enumerate(self.stream.shard(int(order[shard]), begin), begin + 1):
                    rows.append(row)
                    if len(rows) == self.block:
                        yield place, self.shuffled(place, rows)
                        place, rows = Place(place.row + self.block, place.epoch, shard, offset), []
            if rows:
                yield place, self.shuffled(place, rows)
            elif place == Place():
                raise ValueError("The stream has no rows.")
            place = Place(place.row + len(rows), place.epoch + 1)

    def shuffled(self, place: Place, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of a block in the order in which they come."""
        order = np.random.default_rng((self.seed, place.epoch, place.row)).permutation(len(rows))
        return [rows[number] for number in order]


def place_before(places: list[Place], row: int) -> Place:
    """The last place that is not after a row."""
    return max((place for place in places if place.row <= row), key=lambda place: place.row)
