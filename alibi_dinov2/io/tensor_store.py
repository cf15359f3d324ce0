# SPDX-License-Identifier: Apache-2.0
"""Tensors on disk under the checksum of what they were computed from, so that nothing is computed twice."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from alibi_dinov2.io.files import new_file


class TensorStore:
    """A folder of safetensors files, one per key. Several processes may read and write it at the same time.

    Args:
        folder: made when something is first written. It may be removed at any time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(content: torch.Tensor, identity: str) -> str:
        """SHA-256 of a tensor's dtype, shape and values and of a text that says what was done with it."""
        digest = hashlib.sha256(f"{identity}\n{content.dtype} {tuple(content.shape)}\n".encode())
        digest.update(content.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def path(self, key: str) -> Path:
        """File of a key."""
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def read(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors of a key, or nothing if there are none or their file is damaged."""
        try:
            return load_file(self.path(key))
        except (FileNotFoundError, SafetensorError):
            return None

    def write(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors under a key, whole or not at all."""
        path = self.path(key)
        # What a power cut takes of a store can be computed again.
        with new_file(path, durable=False) as temporary:
            temporary.write_bytes(save(dict(tensors)))
