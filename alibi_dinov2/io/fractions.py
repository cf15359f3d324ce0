# SPDX-License-Identifier: Apache-2.0
"""The table of the share that each class has of each slice, which grows as more images are segmented."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from scipy.stats import t

from alibi_dinov2.io.files import new_file

TABLE = "fractions.csv"
COLUMNS = ("file", "slice", "class", "name", "pixels", "fraction")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Fraction:
    """The pixels of a class in a slice of a file, and which share of the slice's they are."""

    file: str
    slice: int
    number: int
    name: str
    pixels: int
    fraction: float


def fractions_of(name: Path, description: dict[str, Any]) -> list[Fraction]:
    """A row for each slice and class, from the description of a class map."""
    return [
        Fraction(name.as_posix(), index, number, class_name, pixels, pixels / sum(counts))
        for index, counts in enumerate(description["pixels"])
        for number, class_name, pixels in zip(description["classes"], description["class_names"], counts, strict=True)
    ]


def read_fractions(path: Path) -> list[Fraction]:
    """A table that was written, or none if there is no file.

    Raises:
        ValueError: the file is another table, or damaged.
    """
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            columns, *rows = csv.reader(file)
        if tuple(columns) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(columns)}, not {', '.join(COLUMNS)}")
        return [
            Fraction(name, int(index), int(number), class_name, int(pixels), float(fraction))
            for name, index, number, class_name, pixels, fraction in rows
        ]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no table of this command ({error}); move it, or choose another folder.") from error


def add_fractions(path: Path, added: Sequence[Fraction]) -> None:
    """Put rows into the table, whole or not at all, in place of those of the same files; all others stay.

    Several processes may do so at once.

    Raises:
        ValueError: the file is another table, or damaged.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        files = {row.file for row in added}
        kept = [row for row in read_fractions(path) if row.file not in files]
        rows = sorted((*kept, *added), key=lambda row: (row.file, row.slice, row.number))
        try:
            with new_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(
                    (row.file, row.slice, row.number, row.name, row.pixels, f"{row.fraction:.6f}") for row in rows
                )
        except OSError as error:
            raise OSError(
                f"{path} cannot be written ({error}). Make room on the disk, and allow writing there, and run the same "
                "again."
            ) from error
        lock.unlink(missing_ok=True)


@dataclass(frozen=True)
class Summary:
    """The share of a class over all slices of a file.

    Attributes:
        file, number, name: of the class in the file.
        slices: how many there are.
        mean: share of all pixels.
        low, high: ends of the 95 % interval of the mean share of such slices, by Student's t; NaN for a single slice.
            It takes slices for independent: neighbouring ones that show the same grains are not, and the true interval
            is then wider.
    """

    file: str
    number: int
    name: str
    slices: int
    mean: float
    low: float
    high: float


def summarise(rows: Iterable[Fraction]) -> list[Summary]:
    """Rows of slices -> a summary for each file and class, in the order of the rows."""
    groups: dict[tuple[str, int, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row.file, row.number, row.name), []).append(row.fraction)
    found = []
    for (file, number, name), values in groups.items():
        mean, half = float(np.mean(values)), float("nan")
        if len(values) > 1:
            error = float(np.std(values, ddof=1)) / len(values) ** 0.5
            half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
        found.append(Summary(file, number, name, len(values), mean, max(mean - half, 0), min(mean + half, 1)))
    return found


def fractions_text(rows: Sequence[Fraction]) -> str:
    """The share of each class in each file as lines of text, of stacks with the interval of the mean over slices."""
    summaries = summarise(rows)
    width = max((len(row.file) for row in summaries), default=0)
    lines = []
    for row in summaries:
        line = f"{row.file:<{width}}  {row.name:<20}{row.mean:8.4f}"
        lines.append(line + (f"  [{row.low:.4f}, {row.high:.4f}] over {row.slices} slices" if row.slices > 1 else ""))
    return "\n".join(lines)
