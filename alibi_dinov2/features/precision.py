# SPDX-License-Identifier: Apache-2.0
"""Numbers of which precision a backbone computes with, and which devices compute with them by themselves."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch

FLOAT32, BFLOAT16 = "float32", "bfloat16"
BACKBONE_DTYPES = {FLOAT32: torch.float32, BFLOAT16: torch.bfloat16}  # of a segmenter's backbone, the default first
CPU_UNITS = ("avx512_bf16", "amx_bf16")


def computes_in_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether a device computes in bfloat16 by itself, and how that is known.

    Elsewhere bfloat16 is emulated: on a processor without such units a backward pass takes forty times as long as in
    float32, a forward pass six times.
    """
    if device.type == "cuda":
        known = torch.cuda.is_bf16_supported(including_emulation=False)
        return known, f"{torch.cuda.get_device_name(device)} {'computes' if known else 'does not compute'} in bfloat16"
    if device.type == "cpu":
        # Versions of torch that do not tell are treated like processors without.
        told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        units = [name for name in CPU_UNITS if told.get(name)]
        return bool(units), f"the processor has {' and '.join(units) or 'neither ' + ' nor '.join(CPU_UNITS)}"
    return False, f"of {device.type} it is not known whether it computes in bfloat16"


def warn_of_emulation(dtype: torch.dtype, device: torch.device) -> None:
    """Warn if a device will take several times as long with bfloat16 as with float32."""
    able, reason = computes_in_bf16(device) if dtype == torch.bfloat16 else (True, "")
    if not able:
        warnings.warn(f"bfloat16 may be slower than float32 here: {reason}.", stacklevel=3)
