# SPDX-License-Identifier: Apache-2.0
"""Numbers of which precision a run computes with."""

from accelerate import PartialState
from accelerate.utils import gather_object

from alibi_dinov2.features.precision import computes_in_bf16

PRECISIONS = ("auto", "no", "bf16", "fp16")


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
