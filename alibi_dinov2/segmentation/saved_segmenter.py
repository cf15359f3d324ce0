# SPDX-License-Identifier: Apache-2.0
"""The folder of a saved segmenter: settings as JSON, arrays as safetensors, the classifier in its own format.

The settings hold checksums of everything, their own included: what is damaged or was edited by hand is refused before
anything is made of it. There is no pickle and no absolute path in it. Other files in the folder do not count.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.features.deep_features import Reduction
from alibi_dinov2.features.precision import FLOAT32
from alibi_dinov2.io.files import new_folder, sha256_of, write_json
from alibi_dinov2.segmentation.pixel_classifiers import PixelClassifier, load_classifier
from modeling_alibi_dinov2.contrast import Contrast

FORMAT = 1  # raised when what is saved changes its meaning
SETTINGS = "segmenter.json"
LIBRARIES = ("numpy", "scikit-image", "scikit-learn", "torch", "transformers", "xgboost")
# What was done before there were parameters for it: a segmenter that was saved then goes on predicting the same.
ONCE: dict[str, Any] = {"guided_radius": 0, "scales": [1], "position": [], "series": None}
WAY_OUT = "Take an intact copy, or fit and save the segmenter again."


@dataclass(frozen=True)
class SavedBackbone:
    """Which backbone a segmenter was fitted with.

    Attributes:
        name: its Hub id, or the name of its folder.
        on_hub: whether it came from the Hub.
        folder: where its folder is as seen from that of the segmenter, in POSIX form; none for one from the Hub, and
            where the two have nothing but the root in common.
        fingerprint: SHA-256 of its weights, configuration, dtype and normalisation.
        dtype: that it computed with, as PyTorch calls it.
    """

    name: str
    on_hub: bool
    folder: str | None
    fingerprint: str
    dtype: str = FLOAT32

    @classmethod
    def of(cls, backbone: Backbone, fingerprint: str, folder: Path) -> Self:
        """What is noted of a backbone by a segmenter that is saved in `folder`."""
        source, dtype = Path(backbone.source), str(backbone.model.dtype).removeprefix("torch.")
        if not source.is_dir():
            return cls(backbone.source, True, None, fingerprint, dtype)
        here, there = folder.resolve(), source.resolve()
        related = here.anchor == there.anchor and os.path.commonpath([here, there]) != here.anchor
        relative = Path(os.path.relpath(there, here)).as_posix() if related else None
        return cls(there.name, False, relative, fingerprint, dtype)

    def load(self, folder: Path, device: str, source: str | None = None) -> Backbone:
        """The backbone: from the Hub, from where it was as seen from the segmenter in `folder`, or from beside that.

        Args:
            folder: of the segmenter.
            device: where it is to run.
            source: where it is now, if that is known: a Hub id or a folder.

        Raises:
            ValueError: it is not there.
        """
        try:
            found = source or (self.name if self.on_hub else self.find(folder.resolve()))
            return load_backbone(found, device, dtype=getattr(torch, self.dtype))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.name}, the backbone of {folder}, cannot be loaded ({error}). Give where it is now."
            ) from error

    def find(self, folder: Path) -> Path:
        """The folder of one that did not come from the Hub; raises a `FileNotFoundError` if there is none."""
        places = [folder / self.folder] if self.folder else []
        places.append(folder.parent / self.name)
        for place in places:
            if place.is_dir():
                return place.resolve()
        raise FileNotFoundError(f"there is no folder {' or '.join(map(str, places))}")


@dataclass(frozen=True)
class SavedSettings:
    """What `segmenter.json` says.

    Attributes:
        parameters: of the `TrainableSegmenter`, but for backbone, classical features and cache, as JSON values.
        classical: the fields of its `ClassicalFeatures`, if it has some.
        backbone: which one it was fitted with, if any.
        classes: numbers of the classes, ascending.
        colour: whether images are seen in colour.
        contrast: how values become grey levels, see `Contrast`.
        files: SHA-256 of the other files, by name.
        versions: of the libraries.
    """

    parameters: dict[str, Any]
    classical: dict[str, Any] | None
    backbone: SavedBackbone | None
    classes: list[int]
    colour: bool
    contrast: dict[str, Any]
    files: dict[str, str]
    versions: dict[str, str]

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The parameters, and those that there were not yet when it was saved."""
        return ONCE | self.parameters

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON values. Float32 is not mentioned: it was not, either, when there was no choice."""
        facts = asdict(self)
        if self.backbone and self.backbone.dtype == FLOAT32:
            del facts["backbone"]["dtype"]
        return facts

    @property
    def checksum(self) -> str:
        """SHA-256 of all of it, and so of all that predictions depend on."""
        text = json.dumps([FORMAT, self.facts], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class SavedSegmenter:
    """A saved segmenter: its settings, its reductions of deep features, one for each scale, and its classifier."""

    settings: SavedSettings
    reductions: tuple[Reduction, ...]
    classifier: PixelClassifier


def library_versions() -> dict[str, str]:
    """Versions of what a segmenter depends on."""
    return {name: version(name) for name in LIBRARIES}


def reduction_file(number: int) -> str:
    """Name of the file with the reduction at a scale, by its number; there was but one once."""
    return f"reduction-{number}.safetensors" if number else "reduction.safetensors"


def as_json(value: Any) -> Any:
    """A parameter of a segmenter as what JSON gives back: sequences as lists, a contrast as its facts."""
    if isinstance(value, Contrast):
        return value.to_dict()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def write_segmenter(
    folder: Path, facts: Mapping[str, Any], reductions: Sequence[Reduction], classifier: PixelClassifier
) -> SavedSettings:
    """Write a segmenter into a new folder, whole or not at all.

    Args:
        folder: must not exist, or be empty.
        facts: the fields of `SavedSettings` but for `files` and `versions`.
        reductions, classifier: of the segmenter.

    Raises:
        ValueError: the classifier cannot be saved.
        FileExistsError: the folder exists and is not empty.
        OSError: it cannot be written to, or the disk is full.
    """
    with new_folder(folder) as temporary:
        for number, reduction in enumerate(reductions):
            save_file(vars(reduction), temporary / reduction_file(number))
        classifier.save(temporary)
        files = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        settings = SavedSettings(**facts, files=files, versions=library_versions())
        write_json(temporary / SETTINGS, {"format": FORMAT, **settings.facts, "checksum": settings.checksum})
    return settings


def read_settings(folder: Path) -> SavedSettings:
    """The settings of a saved segmenter.

    Raises:
        FileNotFoundError: it is no folder of a segmenter.
        ValueError: they are damaged, were edited, or were saved by another version of this package.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no segmenter: {SETTINGS} is missing. Give a folder that `save` wrote.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, checksum = content.pop("format"), content.pop("checksum")
        if found != FORMAT:
            raise ValueError(f"its format is {found!r}, this version of the package reads {FORMAT}")
        backbone = content.pop("backbone")
        settings = SavedSettings(**content, backbone=backbone and SavedBackbone(**backbone))
        if settings.checksum != checksum:
            raise ValueError("it is not what was written")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, incomplete or edited ({error}). {WAY_OUT}") from error
    return settings


def read_segmenter(folder: Path) -> SavedSegmenter:
    """A saved segmenter.

    Raises:
        FileNotFoundError: it is no folder of a segmenter.
        ValueError: a file in it is missing, damaged or edited; the message names it.
    """
    settings = read_settings(folder)
    for name, checksum in settings.files.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != checksum:
            raise ValueError(f"{path} is missing, damaged or edited. {WAY_OUT}")
    try:
        names = takewhile(settings.files.__contains__, map(reduction_file, count()))
        reductions = tuple(Reduction(**load_file(folder / name)) for name in names)
        classifier = load_classifier(settings.parameters["classifier"], folder)
    except (SafetensorError, TypeError, LookupError, FileNotFoundError) as error:
        raise ValueError(f"{folder} holds what does not fit together ({error}). {WAY_OUT}") from error
    return SavedSegmenter(settings, reductions, classifier)
