# SPDX-License-Identifier: Apache-2.0
"""Flips and turns: features are averaged over the 8 flips and quarter turns of the image, each turned back."""

from collections.abc import Callable

import numpy as np
import torch

FORWARDS = 8  # passes of the backbone per image


def average_flips_and_turns(
    features_of: Callable[[torch.Tensor], np.ndarray], pixel_values: torch.Tensor
) -> np.ndarray:
    """Mean of the features of an image flipped and turned in all 8 ways, each turned and flipped back."""
    parts = []
    for turns in range(4):
        turned = torch.rot90(pixel_values, turns, (-2, -1))
        features = features_of(turned) + features_of(turned.flip(-1))[:, :, ::-1]
        parts.append(np.rot90(features, -turns, (1, 2)))
    return np.sum(parts, axis=0) / FORWARDS
