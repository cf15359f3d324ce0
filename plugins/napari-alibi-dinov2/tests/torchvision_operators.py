# SPDX-License-Identifier: Apache-2.0
"""torchvision beside a torch of another build.

Convpaint needs torchvision. A package index may have torch for the CPU alone, but torchvision only for CUDA: then its
compiled operators do not load, and already importing it fails. Nobody here uses these; they need to be declared.
"""

import importlib.util

import torch

UNUSED = ("nms", "qnms")  # that torchvision describes to torch without looking whether they are there


def declare_unused_operators() -> None:
    """Declare the operators whose library does not load, if torchvision is there."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in UNUSED:
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
