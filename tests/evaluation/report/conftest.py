# SPDX-License-Identifier: Apache-2.0
"""A model's folder that is ready for the Hub, and the Hub's stand-in."""

import huggingface_hub.constants
import numpy as np
import pytest
from PIL import Image

from evaluation.report.publish import publish
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from tests.evaluation.report.hub_stand_in import running_hub
from training.export import export


@pytest.fixture(scope="session")
def exported(tmp_path_factory, tiny_model):
    """A Hub folder of a tiny model, with two examples of which one has 16 bits, published."""
    folder = tmp_path_factory.mktemp("page")
    tiny_model(num_hidden_layers=1).save_pretrained(folder / "student")
    Dinov2AlibiImageProcessor().save_pretrained(folder / "student")
    export(folder / "student", folder / "tiny", "a tiny teacher", "noise")
    examples = folder / "examples"
    examples.mkdir()
    random = np.random.default_rng(0)
    grey = random.integers(0, 200, (112, 140), dtype=np.uint8)
    grey[:, 70:] //= 4
    Image.fromarray(grey).save(examples / "steel_15kx.png")
    Image.fromarray(grey.T.astype(np.uint16) * 4 + 900).save(examples / "steel_16_bits.tif")
    (examples / "LICENSE.md").write_text("Noise, CC0.\n")
    publish(folder / "tiny", examples=examples)
    return folder / "tiny"


@pytest.fixture
def hub(monkeypatch):
    # The stand-in speaks the protocol of Git LFS; large files of the public Hub may take another way in the library.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with running_hub() as hub:
        yield hub
