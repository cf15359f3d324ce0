# SPDX-License-Identifier: Apache-2.0
"""Pixels to tokens."""

import torch
from torch import nn

from .alibi_bias import GridSize
from .configuration_alibi_dinov2 import Dinov2AlibiConfig


class Dinov2AlibiEmbeddings(nn.Module):
    """[CLS], the registers, then one token per patch in row-major order; no position embedding."""

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.mask_token = nn.Parameter(torch.zeros(1, config.hidden_size))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, config.hidden_size))
        self.patch_embeddings = Dinov2AlibiPatchEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, 3, H, W)` -> `(B, prefix + h·w, hidden_size)`; `bool_masked_pos`, `(B, h·w)`, marks hidden patches."""
        patches = self.patch_embeddings(pixel_values)
        if bool_masked_pos is not None:
            patches = torch.where(bool_masked_pos.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)
        batch_size = patches.shape[0]
        prefix = torch.cat([self.cls_token, self.register_tokens], dim=1).expand(batch_size, -1, -1)
        return self.dropout(torch.cat([prefix.to(patches.dtype), patches], dim=1))


class Dinov2AlibiPatchEmbeddings(nn.Module):
    """Patches of `patch_size` pixels, `patch_stride` pixels apart, projected to tokens."""

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.patch_shape, self.stride_shape = config.patch_shape, config.stride_shape
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_shape, stride=config.stride_shape
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(B, 3, H, W)`, of any floating dtype, -> `(B, h·w, hidden_size)` in the dtype of the weights.

        Raises:
            ValueError: the pixels are on another device than the weights.
        """
        weight = self.projection.weight
        # Weights that Accelerate has offloaded are on "meta" until the projection runs; its hooks move the pixels.
        if pixel_values.device != weight.device and weight.device.type != "meta":
            raise ValueError(
                f"`pixel_values` is on {pixel_values.device}, the model on {weight.device}. Move one of them: "
                "`pixel_values.to(model.device)`."
            )
        return self.projection(pixel_values.to(weight.dtype)).flatten(2).transpose(1, 2)

    def grid_size(self, pixel_values: torch.Tensor) -> GridSize:
        """Rows and columns of patches, from shapes alone: the weights may be elsewhere, or in pieces, at this moment.

        Raises:
            ValueError: the pixels are not `(B, num_channels, H, W)`, floating, with sides that are multiples of the
                patch size.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)}; it must be (batch, {self.num_channels} "
                "channels, height, width). The image processor converts greyscale, RGBA and palette images."
            )
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"`pixel_values` has dtype {pixel_values.dtype}; it must be floating and normalised. Pass images "
                "through the image processor, which rescales and normalises them."
            )
        grid = []
        for name, side, patch, stride in zip(
            ("height", "width"), pixel_values.shape[-2:], self.patch_shape, self.stride_shape, strict=True
        ):
            if side < patch or side % patch:
                smaller = max(side // patch, 1) * patch
                raise ValueError(
                    f"`pixel_values` has {name} {side}; it must be a multiple of the patch size, {patch} pixels. "
                    f"Resize, crop or pad it to {smaller} or {smaller + patch}, or use the model's image processor, "
                    "which does."
                )
            grid.append((side - patch) // stride + 1)
        return grid[0], grid[1]
