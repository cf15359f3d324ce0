# SPDX-License-Identifier: Apache-2.0
"""Images of any kind -> dense features -> segmenter -> masks: what a user installs beside the model.

The public names are imported when they are first asked for: importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alibi_dinov2.features.backbone import load_backbone
    from alibi_dinov2.features.dense_features import dense_features
    from alibi_dinov2.io.image_files import open_image
    from alibi_dinov2.io.images import read_image
    from alibi_dinov2.io.labels import read_labels
    from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

__all__ = ["TrainableSegmenter", "dense_features", "load_backbone", "open_image", "read_image", "read_labels"]

HOMES = {
    "TrainableSegmenter": "segmentation.segmenter",
    "dense_features": "features.dense_features",
    "load_backbone": "features.backbone",
    "open_image": "io.image_files",
    "read_image": "io.images",
    "read_labels": "io.labels",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
