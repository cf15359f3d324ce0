# SPDX-License-Identifier: Apache-2.0
"""What a run records of itself at its start, and what its resumption must find unchanged."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
from accelerate.utils import broadcast_object_list

from alibi_dinov2.io.files import require_new_folder, write_json
from training.configuration import DistillationConfig, Stage, require_same
from training.images import Images
from training.listing import list_images, require_same_images

CONFIG, IMAGES = "config.json", "images.json"


def write_run(config: DistillationConfig, facts: dict[str, Any]) -> None:
    """Write the configuration of a new run, and what was found out at its start."""
    write_json(Path(str(config.output)) / CONFIG, asdict(config) | facts)


def read_run(config: DistillationConfig) -> dict[str, Any]:
    """What a run to resume has recorded of itself; of a new one nothing.

    Raises:
        FileExistsError: the folder holds a run that is not to be resumed, or something else.
        FileNotFoundError: there is no run to resume.
        ValueError: the run to resume has another configuration.
    """
    run = Path(str(config.output))
    if not config.resume:
        if (run / CONFIG).exists():
            raise FileExistsError(f"{run} holds a run. Pass --resume to go on with it, or choose another folder.")
        require_new_folder(run)
        return {}
    if not (run / CONFIG).exists():
        raise FileNotFoundError(f"{run} holds no run to resume; start one without --resume.")
    saved = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    # The stages' steps may depend on the number of images, which is not known yet.
    require_same(replace(config, stages=[Stage(**stage) for stage in saved["stages"]]), saved)
    return saved


def require_same_processes(saved: dict[str, Any], processes: int) -> None:
    """Raise a `ValueError` unless the run to resume was started with so many processes."""
    if saved["processes"] != processes:
        raise ValueError(
            f"The run was started with {saved['processes']} processes and cannot go on with {processes}: a checkpoint "
            "holds the random state of each. Pass the old number."
        )


def list_all(images: dict[str, Images], held_out: datasets.Dataset) -> dict[str, list[str]]:
    """What images there are, by where they come from; streams are not read for it."""
    sources = images | {"the validation": held_out}
    return {name: list_images(part) for name, part in sources.items() if isinstance(part, datasets.Dataset)}


def require_listed(path: Path, found: dict[str, list[str]]) -> None:
    """Raise a `ValueError` in all processes if images were added, removed or changed since the run began.

    Args:
        path: the run's list; a run of an older version has none.
        found: what there is now, in the main process; the others need not look.
    """
    problem = None
    if found and path.exists():
        try:
            require_same_images(json.loads(path.read_text(encoding="utf-8")), found)
        except ValueError as error:
            problem = str(error)
    (problem,) = broadcast_object_list([problem])
    if problem:
        raise ValueError(problem)
