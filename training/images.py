# SPDX-License-Identifier: Apache-2.0
"""Where images come from: folders, parquet files and Hub data sets, whole or as a stream."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import fsspec
from datasets.data_files import SPLIT_KEYWORDS, DataFilesDict, get_data_patterns
from PIL import Image

from alibi_dinov2.io.images import find_images, is_hidden, read_image
from training.stream import Stream

Images: TypeAlias = datasets.Dataset | Stream
EVERYTHING = "all"  # the name that `datasets` has for all splits together


def load_images(source: str, split: str | None = "train", column: str = "image", streaming: bool = False) -> Images:
    """A data set with a column `image` of undecoded images.

    Args:
        source: folder of images, parquet file or folder of parquet files, or Hub id.
        split: which split of it. Files and folders are told apart as `datasets` does it: a parquet file by its name or
            folder, images by the folder `train`, `validation` or `test` at the top; what has no such names is `train`.
            `None` is for a data set that has one split only.
        column: the column with the images.
        streaming: whether rows are read, or downloaded, as they are needed.

    Raises:
        FileNotFoundError: a folder holds neither images nor parquet files.
        ValueError: the data set has no such split or column, or is empty.
    """
    path = Path(source)
    tables = find_tables(path)
    if tables:
        split = split or only_split(source, list(tables))
        images = datasets.load_dataset("parquet", data_files=tables, split=split, streaming=streaming)
    elif path.is_dir():
        files = [str(file) for folder in split_folders(path, split) for file in find_images(folder)]
        images = datasets.Dataset.from_dict({column: files})
        images = images.to_iterable_dataset() if streaming else images
    else:
        split = split or only_split(source, datasets.get_dataset_split_names(source))
        images = datasets.load_dataset(source, split=split, streaming=streaming)
    first = next(iter(images.take(1).with_format("arrow")), None)
    if first is None or column not in first.column_names:
        raise ValueError(
            f"{source} has {'no rows' if first is None else f'columns {first.column_names}'}; it needs images in the "
            f"column {column!r}."
        )
    images = images.select_columns(column).rename_columns({column: "image"} if column != "image" else {})
    images = images.cast_column("image", datasets.Image(decode=False))
    return Stream(images) if streaming else images


def find_tables(path: Path) -> dict[str, list[str]]:
    """Parquet files by split: a single one, or those of a folder; hidden ones are none."""
    if path.suffix == ".parquet":
        return {"train": [str(path)]}
    if not path.is_dir() or all(is_hidden(table.relative_to(path)) for table in path.rglob("*.parquet")):
        return {}
    patterns = get_data_patterns(str(path))
    found = DataFilesDict.from_patterns(patterns, base_path=str(path), allowed_extensions=[".parquet"])
    return {str(split): list(files) for split, files in found.items() if files}


def split_folders(folder: Path, split: str | None) -> list[Path]:
    """The folders that hold the images of a split; see `load_images`.

    Raises:
        ValueError: there is no such split.
    """
    names = {keyword: str(name) for name, keywords in SPLIT_KEYWORDS.items() for keyword in keywords}
    found: dict[str, list[Path]] = {}
    for child in sorted(folder.iterdir()):
        if child.is_dir() and child.name in names:
            found.setdefault(names[child.name], []).append(child)
    found = found or {"train": [folder]}
    split = split or only_split(str(folder), list(found))
    if split == EVERYTHING:
        return [folder]
    if split not in found:
        raise ValueError(
            f"{folder} has no split {split!r}; it has {', '.join(found)}, and {EVERYTHING!r} is all of it together."
        )
    return found[split]


def only_split(source: str, splits: list[str]) -> str:
    """The only one of some splits; a `ValueError` if there are several."""
    if len(splits) > 1:
        raise ValueError(f"{source} has the splits {', '.join(splits)}; say which one, as in --validation_split.")
    return splits[0]


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
        return images, held_out.first(count) if isinstance(held_out, Stream) else first_of(held_out, count)
    if isinstance(images, Stream):
        images, kept = images.without_first(count), images.first(count)
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


def first_of(images: datasets.Dataset, count: int) -> datasets.Dataset:
    """The first `count` images, or all if there are fewer."""
    return images.take(min(count, len(images)))


def name_of(entry: dict[str, Any] | None, row: str) -> str:
    """What to call an undecoded image in a message: its path, or its row, since names in a table need not be unique."""
    path = entry["path"] if entry else None
    if entry and path and entry["bytes"] is None:
        return path
    return f"{row} ({path})" if path else row


def decode(entry: dict[str, Any] | None, row: str = "an image of the data set") -> Image.Image:
    """An undecoded entry of a `datasets` image column as 8-bit RGB.

    Args:
        entry: `bytes`, or the `path` of a file or of a member of an archive (`zip://…`), which may be far away.
        row: what to call it if it has no path.

    Raises:
        ValueError: there is no image, or it cannot be read; the message names it.
    """
    name = name_of(entry, row)
    if entry is None or (entry["bytes"] is None and not entry["path"]):
        raise ValueError(f"{name} has no image.")
    try:
        return read_image(entry["path"] if entry["bytes"] is None and is_local(entry["path"]) else content(entry), name)
    except FileNotFoundError as error:
        raise ValueError(f"{name} is not there any more.") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{name} cannot be taken out of its archive ({error}).") from error


def is_local(path: str) -> bool:
    """Whether a path is that of a file, and no address."""
    return "://" not in path


def content(entry: dict[str, Any]) -> bytes:
    """The bytes of an entry, fetched if they are elsewhere."""
    if entry["bytes"] is not None:
        return entry["bytes"]
    with fsspec.open(entry["path"], "rb") as file:
        return file.read()
