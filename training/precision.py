# SPDX-License-Identifier: Apache-2.0
"""Numbers of which precision a run computes with."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

PRECISIONS = ("auto", "no", "bf16", "fp16")
CPU_UNITS = ("avx512_bf16", "amx_bf16")


def computes_in_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether a device computes in bfloat16 by itself, and how that is known.

    Elsewhere bfloat16 is emulated: on a processor without such units a backward pass takes forty times as long as in
    float32.
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


def choose_precision(asked: str | None) -> tuple[str | None, str]:
    """What to give Accelerate, the same for all processes, and why.

    Args:
        asked: one of `PRECISIONS`, or `None` for what `accelerate launch` was told.
    """
    if asked != "auto":
        return asked, "as asked for" if asked else "the choice of accelerate launch"
    found = gather_object([computes_in_bf16(PartialState().device)])
    lacking = [reason for able, reason in found if not able]
    return ("no", lacking[0]) if lacking else ("bf16", found[0][1])
