# SPDX-License-Identifier: Apache-2.0
"""Single particles, grains or pores: connected regions of a class, and their measurements."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import binary_fill_holes
from skimage.measure import label, regionprops_table

CONNECTIVITY = 1  # pixels that share a side
# Column -> property of scikit-image, in pixels; `orientation` becomes degrees.
PROPERTIES = {
    "area": "area",
    "equivalent_diameter": "equivalent_diameter_area",
    "centroid_row": "centroid-0",
    "centroid_column": "centroid-1",
    "eccentricity": "eccentricity",
    "orientation": "orientation",
}


def instances(
    classes: np.ndarray, numbers: Sequence[int], min_size: int = 1, fill_holes: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The connected regions of each class in a slice.

    Args:
        classes: `(H, W)` integers.
        numbers: of the classes whose regions are wanted.
        min_size: pixels that a region has at least, holes included if they are filled; smaller ones are left out.
        fill_holes: whether what lies inside a region belongs to it, but for regions of the other classes.

    Returns:
        Labels `(H, W)` int32, 0 where there is no region, 1, 2, … the regions by class and then by their first pixel in
        reading order; and the class of each region, `(n,)`.

    Raises:
        ValueError: the minimum size is below 1, or the classes are not `(H, W)`.
    """
    if min_size < 1 or classes.ndim != 2:
        raise ValueError(
            f"Classes of shape {classes.shape} with a minimum size of {min_size}; give (H, W), and 1 or more."
        )
    labels = np.zeros(classes.shape, dtype=np.int32)
    owners: list[int] = []
    for number in numbers:
        mask = classes == number
        own = label(binary_fill_holes(mask) if fill_holes else mask, connectivity=CONNECTIVITY)
        sizes = np.bincount(own.ravel())
        kept = np.flatnonzero(sizes >= min_size)
        kept = kept[kept > 0]
        new = np.zeros(len(sizes), dtype=np.int32)
        new[kept] = np.arange(len(owners) + 1, len(owners) + 1 + len(kept))
        found = new[own]
        # A filled hole gives way to what is of its own class there.
        where = (found > 0) & (mask | (labels == 0))
        labels[where] = found[where]
        owners += [number] * len(kept)
    return labels, np.array(owners, dtype=np.int64)


def measure(
    labels: np.ndarray,
    owners: np.ndarray,
    names: dict[int, str],
    pixel_size: tuple[float, float, str] | None = None,
) -> dict[str, list[Any]]:
    """Measurements of regions, a column each, a row for each region.

    Args:
        labels, owners: from `instances`.
        names: of the classes, by number.
        pixel_size: height, width and unit of a pixel, if known.

    Returns:
        `label`, `class`, `name`; in pixels `area`, `equivalent_diameter` (of the circle of that area), `centroid_row`
        and `centroid_column` (counted from 0); `eccentricity` of the ellipse with the region's second moments, 0 for a
        circle to 1 for a line, and `orientation`, the angle in degrees between the rows' direction (downwards) and its
        longer axis, −90 to 90, counter-clockwise, both on the grid of pixels. With a pixel size also `area_<unit>2` and
        `equivalent_diameter_<unit>`, `centroid_y_<unit>` and `centroid_x_<unit>`, from the outer edge of the image.
    """
    properties = ("label", "area", "equivalent_diameter_area", "centroid", "eccentricity", "orientation")
    found = regionprops_table(labels, properties=properties)
    classes = owners[found["label"] - 1]
    table: dict[str, list[Any]] = {
        "label": found["label"].tolist(),
        "class": classes.tolist(),
        "name": [names[number] for number in classes.tolist()],
    }
    table |= {column: np.asarray(found[name], dtype=float).tolist() for column, name in PROPERTIES.items()}
    table["area"] = [round(area) for area in table["area"]]
    table["orientation"] = [math.degrees(angle) for angle in table["orientation"]]
    if pixel_size:
        height, width, unit = pixel_size
        areas = [area * height * width for area in table["area"]]
        table[f"area_{unit}2"] = areas
        table[f"equivalent_diameter_{unit}"] = [math.sqrt(4 * area / math.pi) for area in areas]
        table[f"centroid_y_{unit}"] = [(row + 0.5) * height for row in table["centroid_row"]]
        table[f"centroid_x_{unit}"] = [(column + 0.5) * width for column in table["centroid_column"]]
    return table
