# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: tiny random models and images for them. Each is a function, so that a test can ask for more.

The weights are drawn ten times wider than Transformers draws them, so that attention prefers some tokens to others and
a wrong bias, mask or order of tokens shows in the output.
"""

import sys

import pytest
import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from modeling_alibi_dinov2 import Dinov2AlibiConfig, Dinov2AlibiModel

TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 56,
    "patch_size": 14,
    "initializer_range": 0.2,
}


def randomise_special_tokens(model: torch.nn.Module) -> None:
    """Give [CLS], the registers and the mask token values; a new model has zeros there."""
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "register_tokens", "mask_token")):
            torch.nn.init.normal_(parameter)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Forget after a test what Accelerate keeps for the whole process: the first precision that was asked for."""
    yield
    if "accelerate.state" in sys.modules:
        state = sys.modules["accelerate.state"]
        state.AcceleratorState._reset_state(True)
        state.GradientState._reset_state()


@pytest.fixture(scope="session")
def tiny_config():
    """`tiny_config(**overrides)`: the configuration of a student of three narrow layers."""

    def make(**overrides) -> Dinov2AlibiConfig:
        return Dinov2AlibiConfig(**(TINY | overrides))

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config):
    """`tiny_model(model_class, attn_implementation=..., seed=..., **overrides)`: a random student for evaluation."""

    def make(model_class=Dinov2AlibiModel, attn_implementation="sdpa", seed=0, **overrides):
        torch.manual_seed(seed)
        model = model_class._from_config(tiny_config(**overrides), attn_implementation=attn_implementation)
        randomise_special_tokens(model)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def tiny_teacher():
    """`tiny_teacher(model_class, config_class, ...)`: a random stock DINOv2, position embedding included."""

    def make(
        model_class=Dinov2WithRegistersModel,
        config_class=Dinov2WithRegistersConfig,
        attn_implementation="sdpa",
        **overrides,
    ):
        torch.manual_seed(1)
        config = config_class(**(TINY | overrides))
        model = model_class._from_config(config, attn_implementation=attn_implementation)
        randomise_special_tokens(model)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def random_pixels():
    """`random_pixels(batch, rows, columns, seed=...)`: normalised pixels `(batch, 3, 14·rows, 14·columns)`."""

    def make(batch: int, rows: int, columns: int, seed: int = 0, patch: int = 14) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, 3, rows * patch, columns * patch, generator=generator)

    return make
