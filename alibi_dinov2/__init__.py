# SPDX-License-Identifier: Apache-2.0
"""Dense features and trainable segmentation of any image, with a backbone that does not say where a patch is.

The public names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alibi_dinov2.features.backbone import load_backbone
    from alibi_dinov2.features.classical_features import ClassicalFeatures
    from alibi_dinov2.features.dense_features import dense_features
    from alibi_dinov2.features.feature_cache import FeatureCache
    from alibi_dinov2.io.images import read_image
    from alibi_dinov2.io.labels import read_labels, write_labels
    from alibi_dinov2.io.open_image import open_image
    from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
    from alibi_dinov2.segmentation.session import Session
    from alibi_dinov2.segmentation.validation import validate

HOMES = {
    "ClassicalFeatures": "features.classical_features",
    "FeatureCache": "features.feature_cache",
    "Session": "segmentation.session",
    "TrainableSegmenter": "segmentation.segmenter",
    "dense_features": "features.dense_features",
    "load_backbone": "features.backbone",
    "open_image": "io.open_image",
    "read_image": "io.images",
    "read_labels": "io.labels",
    "validate": "segmentation.validation",
    "write_labels": "io.labels",
}
__all__ = [
    "ClassicalFeatures",
    "FeatureCache",
    "Session",
    "TrainableSegmenter",
    "dense_features",
    "load_backbone",
    "open_image",
    "read_image",
    "read_labels",
    "validate",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
