# SPDX-License-Identifier: Apache-2.0
"""Where images come from: folders, parquet files and Hub data sets, whole or as a stream."""

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeAlias

import datasets
from PIL import Image
from torch.utils.data import Sampler

from alibi_dinov2.io.images import find_images, read_image

Images: TypeAlias = datasets.Dataset | datasets.IterableDataset


def load_images(source: str, split: str = "train", column: str = "image", streaming: bool = False) -> Images:
    """A data set with a column `image` of undecoded images.

    Args:
        source: folder of images, parquet file or folder of parquet files, or Hub id.
        split: split of a Hub data set.
        column: the column with the images.
        streaming: whether rows are read, or downloaded, as they are needed.

    Raises:
        FileNotFoundError: a folder holds neither images nor parquet files.
        ValueError: the data set has no such column, or is empty.
    """
    path = Path(source)
    tables = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet"))
    if tables:
        files = [str(table) for table in tables]
        images = datasets.load_dataset("parquet", data_files=files, split="train", streaming=streaming)
    elif path.is_dir():
        images = datasets.Dataset.from_dict({column: [str(file) for file in find_images(path)]})
        images = images.to_iterable_dataset() if streaming else images
    else:
        images = datasets.load_dataset(source, split=split, streaming=streaming)
    first = next(iter(images.take(1).with_format("arrow")), None)
    if first is None or column not in first.column_names:
        raise ValueError(
            f"{source} has {'no rows' if first is None else f'columns {first.column_names}'}; it needs images in the "
            f"column {column!r}."
        )
    images = images.select_columns(column).rename_columns({column: "image"} if column != "image" else {})
    return images.cast_column("image", datasets.Image(decode=False))


def split_images(images: Images, held_out: Images | None, count: int) -> tuple[Images, datasets.Dataset]:
    """Images for training, and at most `count` for validation.

    Args:
        images: from `load_images`.
        held_out: images for validation; if there are none, the last `count` of `images`, of a stream the first.
        count: how many to validate on.

    Raises:
        ValueError: there are too few images to keep some for validation.
    """
    if held_out is not None:
        return images, collected(held_out, count)
    if isinstance(images, datasets.IterableDataset):
        images, kept = images.skip(count), collected(images, count)
        enough = next(iter(images), None) is not None
    else:
        enough = len(images) > count
        if enough:
            images, kept = images.select(range(len(images) - count)), images.skip(len(images) - count)
    if not enough:
        raise ValueError(
            f"There are no more than the {count} images that validation_count would keep for validation. Add images, "
            "lower the number, or name other images in validation_images."
        )
    return images, kept


def collected(images: Images, count: int) -> datasets.Dataset:
    """The first `count` images, or all if there are fewer."""
    if isinstance(images, datasets.Dataset):
        return images.take(min(count, len(images)))
    return datasets.Dataset.from_list(list(images.take(count)), features=images.features)


def decode(entry: dict[str, Any]) -> Image.Image:
    """An undecoded entry of a `datasets` image column as 8-bit RGB."""
    return read_image(entry["bytes"] or entry["path"], name=entry["path"] or "an image of the data set")


class StreamedRows(Sampler[tuple[int, dict[str, Any]]]):
    """Numbered rows of a stream, passed over again and again, each time shuffled in a buffer with another seed.

    A sampler: the stream is read in one place, and whoever it gives a row to decodes it. A run that goes on from a
    later row reads, without decoding, those that it skips.

    Args:
        images: a stream from `load_images`.
        start, stop: numbers of the first row, and of the one after the last.
        seed: of the order.
        buffer: how many rows are shuffled among themselves.
    """

    def __init__(self, images: datasets.IterableDataset, start: int, stop: int, seed: int, buffer: int) -> None:
        self.images, self.start, self.stop, self.seed, self.buffer = images, start, stop, seed, buffer

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return islice(enumerate(self.rows()), self.start, self.stop)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, without end."""
        shuffled = self.images.shuffle(seed=self.seed, buffer_size=self.buffer)
        for epoch in count():
            shuffled.set_epoch(epoch)
            yield from shuffled
