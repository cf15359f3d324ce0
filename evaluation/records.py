# SPDX-License-Identifier: Apache-2.0
"""Result records: one JSON file per result, with all that is needed to check it or to make it again."""

import hashlib
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from PIL import Image
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from common.files import sha256_of
from evaluation.features import Backbone

LIBRARIES = ("numpy", "scikit-learn", "torch", "transformers")


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


def describe_images(name: str, images: Sequence[Image.Image], split: str = "all") -> DatasetFacts:
    """Facts of a set of decoded images; order counts."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.mode} {image.size} ".encode())
        digest.update(image.tobytes())
    return DatasetFacts(name, split, len(images), digest.hexdigest())


def model_facts(backbone: Backbone) -> dict[str, Any]:
    """Name, configuration and SHA-256 of the weights file of a backbone."""
    weights = cached_file(backbone.source, SAFE_WEIGHTS_NAME)
    config = backbone.model.config.to_dict()
    config.pop("_name_or_path", None)
    return {"name": backbone.name, "weights_sha256": sha256_of(str(weights)), "config": config}


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
