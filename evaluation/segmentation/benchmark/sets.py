# SPDX-License-Identifier: Apache-2.0
"""The data sets of the benchmark as `prepare.py` writes them: their one form, and how they are read and written."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from alibi_dinov2.io.files import new_folder, write_json
from evaluation.segmentation.benchmark.sources import Candidate
from evaluation.semantics.segmentation_data import Labels, SegmentationData, open_data

FACTS = "facts.json"


@dataclass(frozen=True)
class Facts:
    """What `facts.json` says of a data set: see `Source` and `Recipe`."""

    classes: tuple[str, ...]
    origin: str
    licence: str
    by_position: bool


@dataclass(frozen=True)
class DataSet:
    """Images to draw on, and others to test on."""

    name: str
    facts: Facts
    train: SegmentationData
    test: SegmentationData


def write_set(folder: Path, train: Sequence[Candidate], test: Sequence[Candidate], facts: Facts) -> None:
    """Write a data set into a folder, which it replaces, whole or not at all."""
    with new_folder(folder, replace=True) as temporary:
        for split, candidates in {"train": train, "test": test}.items():
            for part in ("images", "masks"):
                (temporary / split / part).mkdir(parents=True)
            for one in candidates:
                Image.fromarray(one.image).save(temporary / split / "images" / f"{one.name}.png")
                Image.fromarray(one.mask).save(temporary / split / "masks" / f"{one.name}.png")
        write_json(temporary / FACTS, asdict(facts))


def open_set(folder: Path) -> DataSet:
    """A data set that `write_set` wrote; its images are read when they are asked for.

    Raises:
        FileNotFoundError: it is no such folder.
        ValueError: `facts.json` is not what was written, or images and masks do not fit each other.
    """
    path = folder / FACTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no data set of the benchmark: {FACTS} is missing. Make it with "
            "evaluation.segmentation.benchmark.prepare."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = Facts(**content | {"classes": tuple(content["classes"])})
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{path} is damaged or was edited ({error}). Prepare the data set again.") from error
    train, test = open_data(folder, Labels(tuple(range(len(facts.classes))), facts.classes))
    return DataSet(folder.name, facts, train, test)


def open_sets(folder: Path, names: Sequence[str] = ()) -> list[DataSet]:
    """The data sets in a folder, by name; all of them, or those that are asked for in their order.

    Raises:
        FileNotFoundError: there is none, or not one that was asked for.
        ValueError: as `open_set`.
    """
    found = names or sorted(path.parent.name for path in folder.glob(f"*/{FACTS}"))
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no data set of the benchmark. Make some with evaluation.segmentation.benchmark.prepare."
        )
    return [open_set(folder / name) for name in found]
