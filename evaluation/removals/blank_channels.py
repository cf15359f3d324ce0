# SPDX-License-Identifier: Apache-2.0
"""Blank channels: those that tell the place of a patch best are set to zero (arXiv 2603.16840, table 2).

`evaluation.position.channel_probes.most_positional_channels` finds them.
"""

from collections.abc import Sequence

import numpy as np

COUNT = 4  # channels that the paper zeroed


def channel_basis(channels: Sequence[int], width: int) -> np.ndarray:
    """Unit vectors of some of `width` channels, `(k, D)` float32: removing them sets the channels to zero.

    Raises:
        ValueError: there is no such channel.
    """
    if not channels or not all(0 <= channel < width for channel in channels):
        raise ValueError(f"Channels {list(channels)} cannot be blanked; the features have 0 to {width - 1}.")
    return np.eye(width, dtype=np.float32)[sorted(set(channels))]
