# SPDX-License-Identifier: Apache-2.0
"""How a segmenter is made: what is hidden under "advanced", with the package's own defaults."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSettings

import alibi_dinov2

HUB_ID = "alibi-dinov2-small"
CLONE = Path("model_cards") / HUB_ID  # where a clone of the repository has it
NAME = "napari-alibi-dinov2"  # under which Qt remembers the model


@dataclass(frozen=True)
class Settings:
    """Of a segmenter; those that are not explained here are `alibi_dinov2.TrainableSegmenter`'s.

    Attributes:
        model: folder or Hub id of the backbone, empty for classical features alone.
        device: where the backbone runs.
        classical: whether there are classical features, too.
        keep: whether the backbone's features are kept on the disk, so that no image is computed again another day.
    """

    model: str
    device: str
    classical: bool
    keep: bool
    classifier: str
    components: int
    window: int
    overlap: int
    shifts: int
    per_image: bool
    scales: Sequence[int]
    max_pixels: int

    def parameters(self) -> dict[str, Any]:
        """Those that are the segmenter's, too."""
        return {name: value for name, value in asdict(self).items() if name not in OWN}


OWN = ("model", "device", "classical", "keep")


def default_settings() -> Settings:
    """The segmenter's own defaults, and the model that was used last. The first call imports PyTorch."""
    from alibi_dinov2 import TrainableSegmenter

    parameters = signature(TrainableSegmenter).parameters
    names = [name for name in Settings.__dataclass_fields__ if name not in OWN]
    own: dict[str, Any] = {"model": default_model(), "device": "cpu", "classical": True, "keep": True}
    return Settings(**own, **{name: parameters[name].default for name in names})


def default_model() -> str:
    """The model that was used last, otherwise that of the clone that is installed, otherwise that on the Hub."""
    if remembered := QSettings(NAME, NAME).value("model", ""):
        return str(remembered)
    clone = Path(alibi_dinov2.__file__).parents[1] / CLONE
    return str(clone) if clone.is_dir() else HUB_ID


def remember_model(model: str) -> None:
    """Use a model the next time, too."""
    QSettings(NAME, NAME).setValue("model", model)
