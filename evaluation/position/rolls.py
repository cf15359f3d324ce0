# SPDX-License-Identifier: Apache-2.0
"""Maps of patches, rolled as their images are."""

import numpy as np

from alibi_dinov2.features.backbone import Backbone, patch_shape, patch_step


def roll_map(values: np.ndarray, shift: tuple[int, int], backbone: Backbone) -> np.ndarray:
    """What a map of patches becomes if the image is rolled by whole steps of patches: `(h, w, ...)` -> same shape.

    If patches overlap, their grid has fewer rows and columns than the image has steps: those that would lie across the
    border of the image are missing. In the places that a missing patch comes to is its neighbour.

    Args:
        values: one for each patch.
        shift: by how many patches the content moves down and to the right.
        backbone: whose patches they are.
    """
    for axis, (steps, patch, step) in enumerate(zip(shift, patch_shape(backbone), patch_step(backbone), strict=True)):
        count = values.shape[axis]
        period = count + patch // step - 1
        values = values.take(np.minimum((np.arange(count) - steps) % period, count - 1), axis)
    return values
