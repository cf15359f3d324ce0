# SPDX-License-Identifier: Apache-2.0
"""What arrays of any type look like in 8 bits by the default contrast, said a second time and slowly."""

import numpy as np


def expected_levels(array: np.ndarray, series: np.ndarray | None = None) -> np.ndarray:
    """Grey levels of `array`, whose contrast is found on `series`, or on itself; one range for all its values."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    values = sorted((array if series is None else series).ravel().tolist())
    cut = int(len(values) * 0.001)
    low, high = values[cut], values[-1 - cut]
    shares = [(min(max(value, low), high) - low) / (high - low) for value in array.ravel().tolist()]
    return np.array([round(255 * share) for share in shares], np.uint8).reshape(array.shape)


def expected_rgb(array: np.ndarray, series: np.ndarray | None = None) -> np.ndarray:
    """`(H, W)` or `(H, W, C)` as `(H, W, 3)` uint8; a fourth channel is opacity, over white."""
    if array.ndim == 2:
        return np.repeat(expected_levels(array, series)[..., None], 3, axis=-1)
    levels = expected_levels(array[..., :3], series)
    if array.shape[-1] == 3:
        return levels
    opacity = array[..., 3:] / (np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1)
    return np.round(opacity * levels + (1 - opacity) * 255).astype(np.uint8)
