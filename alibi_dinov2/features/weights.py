# SPDX-License-Identifier: Apache-2.0
"""What is known of every DINOv2, and checking models against each other."""

import hashlib

import torch
from torch import nn

HEAD_DIM = 64  # of every DINOv2


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of a model's tensors: names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_same_tensors(found: nn.Module, expected: nn.Module, what: str) -> None:
    """Raise a `ValueError` unless two models have the same tensors: names, dtypes and every bit.

    Args:
        what: what `found` is, for the message.
    """
    tensors, wanted = found.state_dict(), expected.state_dict()
    differing = sorted(tensors.keys() ^ wanted.keys()) + [
        name
        for name in sorted(tensors.keys() & wanted.keys())
        if tensors[name].dtype != wanted[name].dtype or not torch.equal(tensors[name], wanted[name])
    ]
    if differing:
        raise ValueError(f"{what} differs from what was to be saved in {', '.join(differing)}; nothing was kept.")
