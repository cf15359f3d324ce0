# SPDX-License-Identifier: Apache-2.0
"""What is known of every DINOv2; which weights a model has, and whether two models have the same."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

from alibi_dinov2.io.files import sha256_of

HEAD_DIM = 64  # of every DINOv2


def weights_files(source: str | Path) -> list[Path]:
    """The files that `from_pretrained` reads the weights of a folder or Hub id from: one, or all shards by name.

    Raises:
        FileNotFoundError: there is none.
    """
    for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME):
        try:
            path = Path(str(cached_file(str(source), name)))
        except OSError:
            continue
        if path.suffix != ".json":
            return [path]
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        return [Path(str(cached_file(str(source), shard))) for shard in shards]
    raise FileNotFoundError(f"{source} has no weights ({SAFE_WEIGHTS_NAME}, {WEIGHTS_NAME} or shards of them).")


def files_sha256(files: Sequence[Path]) -> str:
    """SHA-256 of a weights file; of shards that of what `sha256sum` prints for them."""
    if len(files) == 1:
        return sha256_of(files[0])
    return hashlib.sha256("".join(f"{sha256_of(file)}  {file.name}\n" for file in files).encode()).hexdigest()


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
