# SPDX-License-Identifier: Apache-2.0
"""Complete result records without a measurement, and a model's folder for them."""

import hashlib
import json
from pathlib import Path

from alibi_dinov2.io.files import write_json
from evaluation.report.records import LIBRARIES

WEIGHTS = b"weights of the model"
WEIGHTS_SHA256 = hashlib.sha256(WEIGHTS).hexdigest()

MODULES = {  # that make the records which a test reads the command of
    "positional_probe": "evaluation.position.positional_probe",
    "linear_segmentation": "evaluation.semantics.linear_segmentation",
}


def example_record(
    task="positional_probe", model="best", weights=WEIGHTS_SHA256, data="micrographs", size=518, **metrics
):
    """A record of 15 images; of the positional probe if nothing else is said."""
    return {
        "task": task,
        "metrics": metrics or {"r2_all_patches": -0.25, "r2_held_out": -0.5},
        "dataset": {
            "name": data,
            "split": "all",
            "images": 15,
            "fingerprint": hashlib.sha256(data.encode()).hexdigest(),
        },
        "model": {"name": model, "weights_sha256": weights, "config": {}},
        "parameters": {"size": size} if size else {},
        "seed": 0,
        "versions": dict.fromkeys(("python", *LIBRARIES), "1.0"),
        "device": "cpu",
        "dtype": "float32",
        "seconds": 1.5,
        "command": ["python", "-m", MODULES.get(task, f"evaluation.{task}"), "--model", "runs/best", "--images", data],
    }


def write_records(folder: Path, **records) -> Path:
    """Write records as `folder/<name>.json` and return the folder."""
    for name, record in records.items():
        write_json(folder / f"{name}.json", record)
    return folder


def model_folder(folder: Path, **config) -> Path:
    """A model's folder as far as a card needs it: weights that are only bytes, configuration and provenance."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    write_json(folder / "config.json", {"model_type": "dinov2", "architectures": ["Dinov2Model"]} | config)
    facts = {"summary": "A model for tests.", "weights": "Made up.", "license": "mit", "base_model": "org/teacher"}
    write_json(folder / "provenance.json", facts)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without(record: dict, *names: str) -> dict:
    """A copy of a record that lacks fields, such as `"seed"` or `"dataset.name"`."""
    copy = json.loads(json.dumps(record))
    for name in names:
        *parents, last = name.split(".")
        holder = copy
        for parent in parents:
            holder = holder[parent]
        del holder[last]
    return copy
