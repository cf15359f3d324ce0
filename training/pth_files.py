# SPDX-License-Identifier: Apache-2.0
"""Reading other people's `.pth` files without running code in them."""

import pickle
import struct
from pathlib import Path
from typing import Any

import torch

# What the reader of a pickle raises, found by truncating and corrupting checkpoints of both formats.
DAMAGE = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_pth(path: str | Path) -> Any:
    """The content of a `.pth` file, on the CPU; only tensors and plain containers are loaded.

    Raises:
        ValueError: the file is damaged, or holds other Python objects.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give a checkpoint (.pth).")
    with open(path, "rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            raise ValueError(
                f"{path} cannot be read as tensors ({type(error).__name__}). It is truncated, no checkpoint, or holds "
                "Python objects, which are never loaded: download it again, or save the bare state dict."
            ) from error
