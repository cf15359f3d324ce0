# SPDX-License-Identifier: Apache-2.0
"""Result records: one JSON file per result, with all that is needed to check it or to make it again."""

import hashlib
import json
import math
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alibi_dinov2.features.backbone import Backbone

LIBRARIES = ("numpy", "scikit-learn", "torch", "transformers")
# A record's fields, and for those that are objects what they hold at least.
FIELDS: dict[str, tuple[str, ...] | None] = {
    "task": None,
    "metrics": (),
    "dataset": ("name", "split", "images", "fingerprint"),
    "model": ("name", "weights_sha256", "config"),
    "parameters": (),
    "seed": None,
    "versions": ("python", *LIBRARIES),
    "device": None,
    "dtype": None,
    "seconds": None,
    "command": None,
}


@dataclass(frozen=True)
class DatasetFacts:
    """What a result was measured on: `fingerprint` is the SHA-256 of all pixels in order."""

    name: str
    split: str
    images: int
    fingerprint: str


@dataclass
class Stopwatch:
    """Seconds since it was made."""

    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return round(time.perf_counter() - self.started, 3)


def data_name(folder: str | Path) -> str:
    """What records call the images of a folder: its name, or where that says no more than `images`, its parent's."""
    path = Path(folder).absolute()
    return path.parent.name if path.name == "images" else path.name


def describe_images(name: str, images: Sequence[Image.Image], split: str = "all") -> DatasetFacts:
    """Facts of a set of decoded images; order counts."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.mode} {image.size} ".encode())
        digest.update(image.tobytes())
    return DatasetFacts(name, split, len(images), digest.hexdigest())


def model_facts(backbone: Backbone) -> dict[str, Any]:
    """Name, configuration and SHA-256 of the weights of a backbone, and what is done to its features, if so."""
    config = backbone.model.config.to_dict()
    config.pop("_name_or_path", None)
    facts = {"name": backbone.name, "weights_sha256": backbone.weights_sha256, "config": config}
    return facts | ({"removal": backbone.removal.facts} if backbone.removal else {})


def mean_and_std(values: Mapping[str, Sequence[float] | np.ndarray]) -> dict[str, float]:
    """Figures of all images and draws under the names that records use: the mean as `name`, and as `name_std` the
    standard deviation."""
    return {
        f"{name}{suffix}": float(reduce(found))
        for name, found in values.items()
        for suffix, reduce in (("", np.mean), ("_std", np.std))
    }


def mean_and_spread(values: Mapping[str, Sequence[float] | np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of several seeds: the means, a record's `metrics`; and its `spread`, the standard deviations estimated
    from this sample of seeds. There is none of a single seed."""
    means = {name: float(np.mean(found)) for name, found in values.items()}
    return means, {name: float(np.std(found, ddof=1)) for name, found in values.items() if len(found) > 1}


def make_record(
    task: str,
    metrics: dict[str, float],
    dataset: DatasetFacts,
    backbone: Backbone,
    parameters: dict[str, Any],
    seed: int,
    stopwatch: Stopwatch,
) -> dict[str, Any]:
    """A result record.

    Args:
        task: what was measured, such as `"positional_probe"`.
        metrics: the figures, by name.
        dataset: from `describe_images`.
        backbone: the model that was measured.
        parameters: every setting of the measurement but the seed.
        seed: of everything random in it.
        stopwatch: made when the measurement began.

    Returns:
        All `FIELDS` but `command`, which `evaluation.command` adds.
    """
    return {
        "task": task,
        "metrics": metrics,
        "dataset": vars(dataset),
        "model": model_facts(backbone),
        "parameters": parameters,
        "seed": seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "device": str(backbone.model.device),
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "seconds": stopwatch.seconds,
    }


def read_records(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Result records by their paths: of files, and of folders (their `*.json`, by name).

    Raises:
        FileNotFoundError: a path does not exist, or is a folder without a record.
        ValueError: a file is no complete result record; the message names it and what is wrong.
    """
    records: dict[Path, dict[str, Any]] = {}
    for path in paths:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise FileNotFoundError(
                f"{path} contains no result record (*.json); run an evaluation with --output there."
            )
        records |= {file: read_record(file) for file in files}
    return records


def read_record(path: Path) -> dict[str, Any]:
    """One complete result record: all fields that `make_record` and the commands write, and figures that are finite.

    Raises:
        ValueError: it is not; the message names the file and what is wrong.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Measure it again.") from error
    if missing := missing_fields(record):
        raise ValueError(f"{path} is no complete result record: it lacks {', '.join(missing)}. Measure it again.")
    wrong = [name for name, value in record["metrics"].items() if not is_finite(value)]
    if wrong or not record["metrics"]:
        what = f"{', '.join(wrong)}, which must be finite numbers" if wrong else "no metrics"
        raise ValueError(f"{path} is no complete result record: it has {what}. Measure it again.")
    return record


def missing_fields(record: Any) -> list[str]:
    """What a record lacks, such as `["seed", "dataset.fingerprint"]`."""
    if not isinstance(record, dict):
        return list(FIELDS)
    objects = {name: parts for name, parts in FIELDS.items() if parts is not None}
    missing = [
        name for name in FIELDS if name not in record or (name in objects and not isinstance(record[name], dict))
    ]
    return missing + [
        f"{name}.{part}"
        for name, parts in objects.items()
        for part in parts
        if name not in missing and part not in record[name]
    ]


def is_finite(value: Any) -> bool:
    """Whether a value is a number, and neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
