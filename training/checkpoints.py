# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: whole or not there, the newest few kept."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from alibi_dinov2.io.files import remove_folder, seal_folder, write_json

NAME = re.compile(r"step-(\d{8})")
STREAMS = "streams.json"


def find_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Steps and folders of a run's checkpoints, oldest first; unfinished ones have other names and do not count."""
    folders = (run / "checkpoints").glob("step-*")
    return sorted((int(match[1]), path) for path in folders if (match := NAME.fullmatch(path.name)))


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn what torch and safetensors raise when a disk is full into an `OSError` that says what to do."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(
            f"{what} could not be written: {error}. Make room or allow writing there, then go on with --resume; the "
            "last checkpoint is intact."
        ) from error


def save_checkpoint(accelerator: Accelerator, run: Path, step: int, keep: int, streams: dict[str, Any]) -> Path:
    """Save model, optimiser and random states of all processes, then remove all but the newest `keep` checkpoints.

    Args:
        streams: where the run is in its streams, for `read_streams`.
    """
    final = run / "checkpoints" / f"step-{step:08d}"
    temporary = final.with_name(f".{final.name}")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        with writing(f"The checkpoint of step {step}"):
            temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with writing(f"The checkpoint of step {step}"):
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not final.exists():
        with writing(f"The checkpoint of step {step}"):
            write_json(temporary / STREAMS, streams)
        seal_folder(temporary)
        temporary.rename(final)
        for _, old in find_checkpoints(run)[:-keep]:
            remove_folder(old)
    accelerator.wait_for_everyone()
    return final


def read_streams(checkpoint: Path) -> dict[str, Any]:
    """Where the run was in its streams; nothing in a checkpoint of an older version."""
    path = checkpoint / STREAMS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
