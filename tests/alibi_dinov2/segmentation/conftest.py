# SPDX-License-Identifier: Apache-2.0
"""Segmenters on a tiny random backbone."""

import pytest

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from tests.alibi_dinov2.segmentation.materials import CLASSICAL, WINDOWS


@pytest.fixture
def backbone_folder(tmp_path, tiny_model):
    """`backbone_folder(name, **overrides)`: a saved tiny model."""

    def make(name="backbone", **overrides):
        tiny_model(**overrides).save_pretrained(tmp_path / name)
        Dinov2AlibiImageProcessor().save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def hybrid(backbone_folder):
    """`hybrid(**overrides)`: a segmenter with both kinds of features."""

    def make(**overrides):
        return TrainableSegmenter(load_backbone(backbone_folder()), **({"classical": CLASSICAL} | WINDOWS | overrides))

    return make
