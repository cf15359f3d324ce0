# SPDX-License-Identifier: Apache-2.0
"""Another way than bilinear interpolation from features of patches to features of pixels."""

import numpy as np

REACH = 2  # patches on each side that joint bilateral upsampling looks at


def joint_bilateral(guide: np.ndarray, grid: np.ndarray, patch: tuple[int, int], scale: float) -> np.ndarray:
    """Joint bilateral upsampling (Kopf et al., 2007): near patches count, most those of the pixel's grey level.

    Args:
        guide: grey image `(H, W)` float32 from 0 to 1.
        grid: features of patches, `(h, w, n)`, at least as many as cover the image.
        patch: height and width of a patch in pixels.
        scale: standard deviation of the Gaussian of differences in the guide; that of distances is half a patch.

    Returns:
        `(H, W, n)` float32.
    """
    shape = [-(-pixels // side) for pixels, side in zip(guide.shape, patch, strict=True)]
    missing = [(0, count * side - pixels) for count, side, pixels in zip(shape, patch, guide.shape, strict=True)]
    levels = np.pad(guide, missing, mode="symmetric").reshape(shape[0], patch[0], shape[1], patch[1]).mean(axis=(1, 3))
    places = [(np.arange(pixels) + 0.5) / side - 0.5 for pixels, side in zip(guide.shape, patch, strict=True)]
    nearest = [place.round().astype(int) for place in places]
    total, weights = np.zeros((*guide.shape, grid.shape[-1]), dtype=np.float32), np.zeros(guide.shape, dtype=np.float32)
    for down in range(-REACH, REACH + 1):
        for right in range(-REACH, REACH + 1):
            rows, columns = (
                (near + step).clip(0, count - 1)
                for near, step, count in zip(nearest, (down, right), shape, strict=True)
            )
            distance = ((places[0] - nearest[0] - down) ** 2)[:, None] + (places[1] - nearest[1] - right) ** 2
            difference = (guide - levels[rows[:, None], columns]) / scale
            weight = np.exp(-2 * distance - difference**2 / 2).astype(np.float32)
            total += weight[..., None] * grid[rows[:, None], columns]
            weights += weight
    # Where the grey level is that of no patch around, all weights may have become 0 by rounding.
    return total / np.maximum(weights, np.finfo(np.float32).tiny)[..., None]
