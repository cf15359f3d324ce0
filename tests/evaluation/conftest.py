# SPDX-License-Identifier: Apache-2.0
"""A tiny model in a folder, as commands take it."""

import pytest

from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor


@pytest.fixture
def model_folder(tmp_path, tiny_model):
    tiny_model().save_pretrained(tmp_path / "model")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"
