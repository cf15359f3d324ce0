# SPDX-License-Identifier: Apache-2.0
"""Dense features as colours: the first three principal components as red, green and blue.

Components are turned so that like colours mean like things in all models (figure 5 of arXiv 2603.16840).
"""

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

COMPONENTS = 3
CONSTANT = 1e-4  # features that spread less are the same in all patches: rounding makes them differ by about 1e-6
TRIMMED = 1.0  # percent at either end: a few outlying patches would else take all the contrast


def principal_components(
    maps: Sequence[np.ndarray], standardise: bool = False, foreground: bool = False
) -> list[np.ndarray]:
    """Standard scores of the first three principal components that feature maps have in common.

    Args:
        maps: `(h, w, D)` each; grids may differ.
        standardise: whether to bring every channel to mean 0 and variance 1 first.
        foreground: whether to look at the foreground alone, see `foreground_patches`.

    Returns:
        `(h, w, 3)` for each map; NaN in the background.

    Raises:
        ValueError: there are fewer than 3 patches, or foreground patches, or channels.
    """
    patches = np.concatenate([array.reshape(-1, array.shape[-1]) for array in maps])
    kept = foreground_patches(maps, standardise) if foreground else np.ones(len(patches), dtype=bool)
    components = np.full((len(patches), COMPONENTS), np.nan)
    components[kept] = project(patches[kept], COMPONENTS, standardise)
    if relative_spread(patches[kept]) < CONSTANT:
        components[kept] = 0  # and not rounding errors in full contrast
    pieces = np.split(components, np.cumsum([array.shape[0] * array.shape[1] for array in maps])[:-1])
    return [piece.reshape(*array.shape[:2], COMPONENTS) for piece, array in zip(pieces, maps, strict=True)]


def relative_spread(patches: np.ndarray) -> float:
    """How far patches `(n, D)` lie from their mean, as a fraction of their length (root mean squares), 0 to 1."""
    patches = patches.astype(np.float64)
    deviation = patches - patches.mean(axis=0)
    return float(np.linalg.norm(deviation) / max(np.linalg.norm(patches), np.finfo(float).tiny))


def project(patches: np.ndarray, count: int, standardise: bool = False, whiten: bool = True) -> np.ndarray:
    """Patches `(n, D)` on their first principal components, `(n, count)`; of variance 1 each if `whiten`.

    Raises:
        ValueError: there are fewer than 3 patches or channels.
    """
    if min(patches.shape) < COMPONENTS:
        raise ValueError(f"{len(patches)} patches of {patches.shape[1]} channels have no {COMPONENTS} components.")
    pca = PCA(count, whiten=whiten, svd_solver="full")
    return (make_pipeline(StandardScaler(), pca) if standardise else pca).fit_transform(patches)


def foreground_patches(maps: Sequence[np.ndarray], standardise: bool = False) -> np.ndarray:
    """Which patches are foreground: those on one side of Otsu's threshold of the first principal component.

    The first component of photographs separates object and background (DINOv2, arXiv 2304.07193). Its
    sign means nothing: the foreground is the side that is rarer along the borders than inside.

    Args:
        maps: `(h, w, D)` each; all of them have the component and the threshold in common.

    Returns:
        Boolean, for the patches of all maps one after the other.
    """
    border = []
    for array in maps:
        inside = np.zeros(array.shape[:2], dtype=bool)
        inside[1:-1, 1:-1] = True
        border.append(~inside.ravel())
    first = project(np.concatenate([array.reshape(-1, array.shape[-1]) for array in maps]), 1, standardise)[:, 0]
    above = first > otsu_threshold(first)
    return above if above[np.concatenate(border)].mean() <= above.mean() else ~above


def otsu_threshold(values: np.ndarray) -> float:
    """Otsu's threshold, without a histogram: the value that splits `values` into `<=` and `>` with the largest variance
    between the two; the only value if all are equal."""
    values = np.sort(values, axis=None).astype(np.float64)
    below = np.arange(1, len(values))
    sums = np.cumsum(values - values.mean())[:-1]
    # n² / n₁n₂ · (sum below)² is the variance between the classes up to a factor, as the sum of all is 0.
    variance = sums**2 / (below * (len(values) - below))
    variance[values[1:] == values[:-1]] = 0  # equal values stay together
    return float(values[np.argmax(variance)])


def align_components(maps: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Order and turn components to be like those of another model, so that like colours mean like things.

    Args:
        maps, reference: `(h, w, 3)` of the same images; grids may differ, and patches that are NaN do not count.

    Returns:
        `maps` with their components reordered, some with the sign changed: each reference component in turn takes the
        free one that correlates with it most.
    """
    found = np.concatenate([array.reshape(-1, COMPONENTS) for array in maps])
    wanted = np.concatenate(
        [
            resample(other, *array.shape[:2]).reshape(-1, COMPONENTS)
            for array, other in zip(maps, reference, strict=True)
        ]
    )
    both = np.isfinite(found[:, 0]) & np.isfinite(wanted[:, 0])
    if both.sum() < 2:
        return list(maps)
    with np.errstate(invalid="ignore"):  # components that do not vary
        correlation = np.nan_to_num(np.corrcoef(found[both], wanted[both], rowvar=False)[:COMPONENTS, COMPONENTS:])
    free, order, signs = list(range(COMPONENTS)), [], []
    for column in correlation.T:
        best = max(free, key=lambda index: abs(column[index]))
        free.remove(best)
        order.append(best)
        signs.append(-1 if column[best] < 0 else 1)
    return [array[..., order] * signs for array in maps]


def colours(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Components `(h, w, 3)` as uint8 colours, each component stretched over the full range.

    What does not vary is grey, NaN is black.
    """
    values = np.concatenate([array.reshape(-1, COMPONENTS) for array in maps])
    low, high = np.nanpercentile(values, (TRIMMED, 100 - TRIMMED), axis=0)
    flat = high == low
    scaled = [np.where(flat, array - low + 0.5, (array - low) / np.where(flat, 1, high - low)) for array in maps]
    return [(np.nan_to_num(array.clip(0, 1)) * 255).round().astype(np.uint8) for array in scaled]


def feature_colours(
    models: Sequence[Sequence[np.ndarray]], standardise: bool = False, foreground: bool = False
) -> list[list[np.ndarray]]:
    """Feature maps as pictures: one basis for the images of a model, colours matched to the first model's.

    Args:
        models: of each model, `(h, w, D)` for each image.
        standardise, foreground: as in `principal_components`.

    Returns:
        Of each model, `(h, w, 3)` uint8 for each image.
    """
    first, *others = [principal_components(maps, standardise, foreground) for maps in models]
    return [colours(first), *(colours(align_components(other, first)) for other in others)]


def resample(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The nearest values on a grid of another size: `(h, w, ...)` -> `(rows, columns, ...)`."""
    height, width = values.shape[:2]
    row = (2 * np.arange(rows) + 1) * height // (2 * rows)
    column = (2 * np.arange(columns) + 1) * width // (2 * columns)
    return values[row[:, None], column]
