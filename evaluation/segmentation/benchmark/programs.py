# SPDX-License-Identifier: Apache-2.0
"""Peers that are programs of their own: strokes go out through a folder, predictions of the tested pixels come back."""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parent / "peers" / "convpaint.py"
NO_WEIGHTS = 3  # what the script ends with where the weights of a model cannot be had


class WeightsMissing(Exception):
    """A peer's model needs weights that cannot be downloaded here; the message says which."""


@dataclass(frozen=True)
class Convpaint:
    """Convpaint in an environment of its own.

    Attributes:
        python: the interpreter of that environment.
        model: one of its models: `gaussian`, `vgg` or `dinov2`.
        script: that is run there.
    """

    python: Path
    model: str
    script: Path = SCRIPT

    @property
    def name(self) -> str:
        """What records and figures call it."""
        return f"Convpaint ({self.model})"

    def __call__(
        self, images: Sequence[np.ndarray], labels: Mapping[str, Sequence[np.ndarray]], places: Sequence[np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Predictions of the tested pixels for each way of drawing, and the versions of the peer's libraries.

        Args:
            images: `(H, W, 3)` uint8: those drawn on, then those to test on.
            labels: `(H, W)` uint8 of each image drawn on, by the name of the way: 0 unlabelled, classes from 1.
            places: rows and columns `(n, 2)` of the tested pixels of each image to test on.

        Raises:
            WeightsMissing: weights of the model cannot be had.
            ValueError: the program failed; the message holds the end of what it said.
            OSError: there is no such interpreter.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.savez(folder / "images.npz", *images)
            np.savez(folder / "places.npz", *places)
            maps = {f"{way}/{index}": drawn for way, found in labels.items() for index, drawn in enumerate(found)}
            np.savez(folder / "labels.npz", **maps)  # type: ignore[arg-type]
            words = [str(self.python), str(self.script), self.model, str(folder)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode == NO_WEIGHTS:
                raise WeightsMissing(done.stderr.strip().splitlines()[-1])
            if done.returncode:
                raise ValueError(f"Convpaint ({self.model}) failed: {done.stderr.strip()[-500:]}")
            predictions = np.load(folder / "predictions.npz")
            versions = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
            return {way: predictions[way] for way in labels}, versions
