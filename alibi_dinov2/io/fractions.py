# SPDX-License-Identifier: Apache-2.0
"""The table of how much of each slice is of each class: `fractions.csv`, which grows with every image."""

import csv
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alibi_dinov2.io.files import new_file

TABLE = "fractions.csv"
COLUMNS = ("file", "slice", "class", "name", "pixels", "fraction")
PATIENCE, STALE = 0.05, 30.0  # seconds between looks at another's lock, and after which its owner is taken for dead
Row = tuple[str, int, int, str, int, float]


def fraction_rows(name: Path, description: Mapping[str, Any]) -> list[Row]:
    """A row of the table for each slice and class of an image.

    Args:
        name: what the image is called.
        description: with `classes`, `class_names` and, for each slice, the `pixels` of each class.
    """
    return [
        (name.as_posix(), index, number, class_name, pixels, pixels / sum(counts))
        for index, counts in enumerate(description["pixels"])
        for number, class_name, pixels in zip(description["classes"], description["class_names"], counts, strict=True)
    ]


def update_table(folder: Path, rows: Sequence[Row]) -> None:
    """Put rows into a folder's table: those of the same files are replaced, those of others stay. Several processes may
    do this at the same time.

    Raises:
        ValueError: the file that is there is another table.
        OSError: it cannot be written.
    """
    path, files = folder / TABLE, {row[0] for row in rows}
    folder.mkdir(parents=True, exist_ok=True)
    with locked(path):
        lines = [line for line in read_table(path) if line[0] not in files]
        lines += [[*map(str, row[:-1]), f"{row[-1]:.6f}"] for row in rows]
        lines.sort(key=lambda line: (line[0], int(line[1]), int(line[2])))
        with new_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(lines)


def read_table(path: Path) -> list[list[str]]:
    """The lines of a table but for its heading, nothing if there is no such file.

    Raises:
        ValueError: it is another table.
    """
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        heading, *lines = list(csv.reader(file)) or [[]]
    if tuple(heading) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines):
        raise ValueError(f"{path} is not the table of this command; move it, or choose another folder.")
    return lines


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that changes a file; one that was killed meanwhile holds others up for half a minute."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            try:
                if time.time() - lock.stat().st_mtime > STALE:
                    lock.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
            time.sleep(PATIENCE)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def print_table(rows: Sequence[Row]) -> None:
    """Print the share of each class in each file, over all its slices."""
    totals: dict[tuple[str, str], int] = Counter()
    for file, _, _, name, pixels, _ in rows:
        totals[file, name] += pixels
    of_file: dict[str, int] = Counter()
    for (file, _), pixels in totals.items():
        of_file[file] += pixels
    width = max((len(file) for file in of_file), default=0)
    for (file, name), pixels in totals.items():
        print(f"{file:<{width}}  {name:<20}{pixels / of_file[file]:8.4f}")
