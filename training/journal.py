# SPDX-License-Identifier: Apache-2.0
"""What a run writes down as it goes: metrics as JSON lines, and the images that could not be read."""

import json
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from alibi_dinov2.io.files import new_file


class Journal:
    """Metrics and unreadable images of a run.

    Args:
        run: the run's folder; `metrics.jsonl` and `unreadable.txt` are in it.
        writes: whether this process writes (the main one).
    """

    def __init__(self, run: Path, writes: bool = True) -> None:
        self.run, self.writes = run, writes
        self.best_validation_loss = float("inf")
        self.unreadable: set[str] = set()
        self.enlarged, self.enlarging_said = 0, False

    @property
    def metrics(self) -> Path:
        """File with one JSON object a line."""
        return self.run / "metrics.jsonl"

    def open(self, step: int) -> None:
        """Drop what was written after a step, which is about to be done again, and a line cut off by a kill."""
        entries = [entry for entry in read_metrics(self.metrics) if entry["step"] <= step] if step else []
        losses = [entry["validation_loss"] for entry in entries if entry["step"] and "validation_loss" in entry]
        self.best_validation_loss = min(losses, default=float("inf"))
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
        """List images that were passed over.

        Raises:
            ValueError: their share of all images is larger than allowed.
        """
        new = sorted(set(messages) - self.unreadable)
        if not new:
            return
        self.unreadable.update(new)
        if self.writes:
            with open(self.run / "unreadable.txt", "a", encoding="utf-8") as file:
                file.writelines(message + "\n" for message in new)
        if len(self.unreadable) > allowed_share * images:
            raise ValueError(
                f"{len(self.unreadable)} of {images} images cannot be read, more than the share of {allowed_share:g} "
                f"that max_unreadable allows; see {self.run / 'unreadable.txt'}. The first: {new[0]}"
            )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Entries of a metrics file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
