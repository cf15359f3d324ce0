# SPDX-License-Identifier: Apache-2.0
"""What a run writes down as it goes: metrics as JSON lines, and the images that were passed over."""

import json
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from alibi_dinov2.io.files import new_file

UNREADABLE, HELD_OUT = "unreadable.txt", "held_out.txt"


class Journal:
    """Metrics of a run, and the images that it passed over.

    Args:
        run: the run's folder; `metrics.jsonl`, `unreadable.txt` and `held_out.txt` are in it.
        writes: whether this process writes (the main one).
    """

    def __init__(self, run: Path, writes: bool = True) -> None:
        self.run, self.writes = run, writes
        self.best_validation_loss = float("inf")
        self.unreadable: set[str] = set()
        self.held_out: set[str] = set()
        self.enlarged, self.enlarging_said = 0, False

    @property
    def metrics(self) -> Path:
        """File with one JSON object a line."""
        return self.run / "metrics.jsonl"

    def open(self, step: int) -> None:
        """Go on from a step: drop what was written after it, and a line cut off by a kill; know the images again."""
        entries = [entry for entry in read_metrics(self.metrics) if entry["step"] <= step] if step else []
        losses = [entry["validation_loss"] for entry in entries if entry["step"] and "validation_loss" in entry]
        self.best_validation_loss = min(losses, default=float("inf"))
        self.unreadable |= read_lines(self.run / UNREADABLE)
        self.held_out |= read_lines(self.run / HELD_OUT)
        if self.writes:
            with new_file(self.metrics) as temporary:
                temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        """Append an entry to the metrics."""
        if entry["step"] and "validation_loss" in entry:
            self.best_validation_loss = min(self.best_validation_loss, entry["validation_loss"])
        if self.enlarged:
            entry["enlarged"], self.enlarged = self.enlarged, 0
        if self.writes:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def note_enlarged(self, count: int) -> None:
        """Count images that are smaller than the crop; said once, for they may be a mistake."""
        if count and self.writes and not self.enlarging_said:
            self.enlarging_said = True
            tqdm.write("Some images are smaller than the crops and are enlarged; metrics.jsonl counts them.")
        self.enlarged += count

    def note_unreadable(self, messages: list[str], images: int, allowed_share: float) -> None:
        """List images that could not be read.

        Raises:
            ValueError: their share of all images is larger than allowed.
        """
        new = self.add(messages, self.unreadable, UNREADABLE)
        if new and len(self.unreadable) > allowed_share * images:
            raise ValueError(
                f"{len(self.unreadable)} of {images} images cannot be read, more than the share of {allowed_share:g} "
                f"that max_unreadable allows; see {self.run / UNREADABLE}. The first: {new[0]}"
            )

    def note_held_out(self, messages: list[str]) -> None:
        """List images that are kept for validation and came up in training; said once, for it may be a mistake."""
        first = not self.held_out
        new = self.add(messages, self.held_out, HELD_OUT)
        if new and first and self.writes:
            tqdm.write(f"{new[0]} It and others like it are not trained on; {self.run / HELD_OUT} lists them.")

    def add(self, messages: list[str], known: set[str], name: str) -> list[str]:
        """Append those messages to a file of the run that are new, one a line; returns them."""
        new = sorted({" ".join(message.split()) for message in messages} - known)
        known.update(new)
        if new and self.writes:
            with open(self.run / name, "a", encoding="utf-8") as file:
                file.writelines(message + "\n" for message in new)
        return new


def read_lines(path: Path) -> set[str]:
    """The lines of a file, if there is one."""
    return set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Entries of a metrics file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
