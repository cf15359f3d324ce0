# SPDX-License-Identifier: Apache-2.0
"""What is called differently in the oldest and in the newest supported Transformers."""

from transformers import PreTrainedModel


def enable_checkpointing(model: PreTrainedModel, **kwargs) -> None:
    """Gradient checkpointing, which 5.24 calls activation checkpointing."""
    name = "activation_checkpointing_enable"
    getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")(**kwargs)
