# SPDX-License-Identifier: Apache-2.0
"""What is called differently in the oldest and in the newest supported Transformers."""

from transformers import PreTrainedModel


def enable_checkpointing(model: PreTrainedModel, *options: dict) -> None:
    """Gradient checkpointing, with its options if there are any; newer releases call it activation checkpointing."""
    name = "activation_checkpointing_enable"
    getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")(*options)
