# SPDX-License-Identifier: Apache-2.0
"""The denoising head of Denoising Vision Transformers (Yang et al., ECCV 2024; `Jiawei-Yang/Denoising-ViT`).

One transformer block, trained by its authors to map a model's output to features without its positional artefacts, with
a position embedding of its own. Each released file (`voc_denoised`, `imgnet_denoised`) belongs to one backbone.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from common.checkpoints import read_pth
from common.models import HEAD_DIM

# The released names of the block's tensors (timm's) and PyTorch's for the same, both before `weight` and `bias`.
BLOCK_NAMES = {
    "norm1.": "norm1.",
    "attn.qkv.": "self_attn.in_proj_",
    "attn.proj.": "self_attn.out_proj.",
    "norm2.": "norm2.",
    "mlp.fc1.": "linear1.",
    "mlp.fc2.": "linear2.",
}
NAMES = {"pos_embed": "pos_embed"} | {
    f"denoiser.{released}{kind}": f"denoiser.{own}{kind}"
    for released, own in BLOCK_NAMES.items()
    for kind in ("weight", "bias")
}


class DenoisingHead(nn.Module):
    """A position embedding on a square grid and one pre-norm transformer block.

    Args:
        width: of the features, a multiple of 64.
        side: of the grid of the position embedding; 37 for patches of 14 pixels, 32 for patches of 16.
    """

    def __init__(self, width: int, side: int):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, width))
        self.denoiser = nn.TransformerEncoderLayer(
            width,
            width // HEAD_DIM,
            4 * width,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `(B, h, w, D)` -> denoised features of that shape."""
        grid = (features.shape[1], features.shape[2])
        return self.denoiser(features.flatten(1, 2) + self.positions(grid)).unflatten(1, grid)

    def positions(self, grid: tuple[int, int]) -> torch.Tensor:
        """The position embedding of a grid, `(1, h·w, D)`; resized as the head's authors do, by timm's rule."""
        side = math.isqrt(self.pos_embed.shape[1])
        if grid == (side, side):
            return self.pos_embed
        channels_first = self.pos_embed.unflatten(1, (side, side)).movedim(-1, 1)
        return nn.functional.interpolate(channels_first, grid, mode="bicubic", antialias=True).flatten(2).mT


def load_denoising_head(path: str | Path, width: int) -> DenoisingHead:
    """A head from a released file: a dictionary whose `denoiser` holds the position embedding and the block.

    Args:
        path: the `.pth` file.
        width: of the features of the backbone that it is for.

    Raises:
        ValueError: the file is damaged or of another layout, or is for features of another width; names that are
            missing, unexpected or of another shape are listed.
        FileNotFoundError: there is no such file.
    """
    content = read_pth(path)
    tensors = content.get("denoiser") if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"{path} holds {found}; a denoising head is a dictionary with the entry 'denoiser'. Distilled models of "
            "the same release are complete vision transformers: they need no head."
        )
    if width % HEAD_DIM:
        raise ValueError(f"Features of width {width} have no denoising head: its heads are {HEAD_DIM} channels wide.")
    patches = getattr(tensors.get("pos_embed"), "shape", (1, 0))[1]
    head = DenoisingHead(width, math.isqrt(patches))
    shapes = {name: head.state_dict()[own].shape for name, own in NAMES.items()}
    wrong = sorted(shapes.keys() ^ tensors.keys()) + [
        f"{name} {tuple(getattr(tensors[name], 'shape', ()))} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in tensors and getattr(tensors[name], "shape", None) != shape
    ]
    if wrong:
        raise ValueError(
            f"{path} is no denoising head for features of width {width}; missing, unexpected or of another shape: "
            f"{', '.join(wrong)}. Give the file that belongs to this backbone."
        )
    head.load_state_dict({NAMES[name]: tensor for name, tensor in tensors.items()}, strict=True)
    return head.eval()
