# SPDX-License-Identifier: Apache-2.0
"""What is compared: ways to bring the bias into a ViT/14 with registers, all with the same random weights."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, PreTrainedModel

from modeling_alibi_dinov2 import Dinov2AlibiConfig, Dinov2AlibiModel
from modeling_alibi_dinov2.alibi_bias import GridSize, pad_prefix, patch_distances
from modeling_alibi_dinov2.attention_alibi_dinov2 import BLOCK_BYTES, BLOCKWISE
from modeling_alibi_dinov2.modeling_alibi_dinov2 import Dinov2AlibiAttention

CASES = ("stock", "sdpa", BLOCKWISE, "eager", "reference")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PATCH, HEAD_DIM, REGISTERS = 14, 64, 4


@dataclass(frozen=True)
class Setting:
    """What all cases of one comparison share."""

    size: int
    batch: int = 1
    dtype: str = "float32"
    layers: int = 12
    width: int = 384

    def pixels(self) -> torch.Tensor:
        """The same random images for every case, `(batch, 3, size, size)`."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, 3, self.size, self.size, generator=generator).to(DTYPES[self.dtype])


def build_model(case: str, setting: Setting, **bias: Any) -> PreTrainedModel:
    """The model of a case, in evaluation mode; all cases of a setting have the same random weights.

    `bias` are fields of `Dinov2AlibiConfig` for the cases that are an attention path of ours.
    """
    # Wider than usual, so that attention prefers some tokens to others and a wrong bias shows in the features.
    fields: dict[str, Any] = {
        "initializer_range": 0.1,
        "hidden_size": setting.width,
        "num_hidden_layers": setting.layers,
        "num_attention_heads": setting.width // HEAD_DIM,
        "num_register_tokens": REGISTERS,
        "patch_size": PATCH,
        "image_size": 518,
    }
    torch.manual_seed(0)
    if case == "reference":
        model = ReferenceModel(Dinov2AlibiConfig(**fields, position_encoding="none", attn_implementation="eager"))
    elif case == "stock":
        ours = Dinov2AlibiModel(Dinov2AlibiConfig(**fields))
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**fields, attn_implementation="sdpa"))
        torch.nn.init.zeros_(model.embeddings.position_embeddings)
        positions = {"embeddings.position_embeddings": model.embeddings.position_embeddings}
        model.load_state_dict(ours.state_dict() | positions, strict=True)
    else:
        model = Dinov2AlibiModel(Dinov2AlibiConfig(**fields, **bias, attn_implementation=case))
    return model.to(DTYPES[setting.dtype]).eval()


def attention_bytes(case: str, setting: Setting) -> int:
    """Memory for logits, masks and biases that are alive at the same time, by their shapes.

    Stock SDPA forms none of them. Ours with SDPA has one mask per grid, `(tokens, tokens)`, for all heads, layers and
    images; in blocks it has one block's bias and two steps on the way to it. Eager attention has two tensors of
    `(B, heads, tokens, tokens)` at once, such as the logits and their sum with the mask; the reference way has a bias
    per head, `(heads, tokens, tokens)`, besides.
    """
    heads = setting.width // HEAD_DIM
    square = ((setting.size // PATCH) ** 2 + 1 + REGISTERS) ** 2 * DTYPES[setting.dtype].itemsize
    logits = 2 * setting.batch * heads * square
    return {
        "stock": 0,
        "sdpa": square,
        BLOCKWISE: 3 * min(BLOCK_BYTES, square),
        "eager": logits + square,
        "reference": logits + (heads + 1) * square,
    }[case]


class ReferenceAttention(Dinov2AlibiAttention):
    """Attention with slope 1; `offsets`, minus the distances, `(tokens, tokens)`, are one tensor for all layers."""

    offsets: torch.Tensor

    def forward(self, hidden_states: torch.Tensor, *args, **kwargs) -> tuple[torch.Tensor, None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            project(hidden_states).view(shape).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        slopes = torch.ones(query.shape[1], 1, 1, dtype=query.dtype)
        bias = slopes * self.offsets
        logits = (query * self.scaling) @ key.transpose(-2, -1)
        logits = logits + bias[None]
        output = logits.softmax(dim=-1) @ value
        return self.o_proj(output.transpose(1, 2).reshape(hidden_states.shape)), None


class ReferenceModel(Dinov2AlibiModel):
    """`Dinov2AlibiModel` with `ReferenceAttention`, whose offsets are made once per grid.

    Args:
        config: with `position_encoding="none"`, because the bias comes from the attention and not from the encoder.
    """

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        super().__init__(config)
        for layer in self.encoder.layer:
            attention = ReferenceAttention(config)
            attention.load_state_dict(layer.get_submodule("attention").state_dict())
            layer.attention = attention
        self.grid: GridSize | None = None

    def forward(self, pixel_values: torch.Tensor, *args, **kwargs) -> Any:
        grid = self.embeddings.patch_embeddings.grid_size(pixel_values)
        if grid != self.grid:
            self.grid = grid
            offsets = -pad_prefix(patch_distances(grid), self.config.num_prefix_tokens).to(pixel_values.dtype)
            for layer in self.encoder.layer:
                layer.get_submodule("attention").offsets = offsets
        return super().forward(pixel_values, *args, **kwargs)
