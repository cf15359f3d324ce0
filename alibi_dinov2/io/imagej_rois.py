# SPDX-License-Identifier: Apache-2.0
"""Labels as ImageJ regions of interest: `.roi` files and the ROI manager's `.zip`.

The class of a region is its group (Image > Overlay > Properties, or the ROI manager's More > Properties), 1 to 255. Its
position is the slice; a region without position is on all slices.
"""

import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon2mask

from alibi_dinov2.io.damage import DAMAGE
from alibi_dinov2.io.files import new_file
from alibi_dinov2.io.labels import MAX_CLASS

ROI_SUFFIXES = (".roi", ".zip")
LINES = ("LINE", "POLYLINE", "FREELINE", "ANGLE")


def roifile() -> Any:
    """The library that reads and writes the files; raises an `ImportError` that says how to install it."""
    try:
        import roifile as library
    except ModuleNotFoundError as error:
        raise ImportError("roifile is missing; install it: pip install 'alibi-dinov2[microscopes]'.") from error
    return library


def read_rois(path: str | Path, slices: int, shape: tuple[int, int]) -> np.ndarray:
    """Labels `(H, W)` uint8, of a stack `(slices, H, W)`, from regions; where two overlap, the later one counts.

    Areas cover the pixels whose centres lie in them, lines those that lie within half their width, points one each.

    Args:
        path: a .roi or .zip file.
        slices, shape: of the image.

    Raises:
        ValueError: the file is damaged, a region has no group, or lies on a slice that the image does not have; or it
            is of a kind without pixels. The message names file and region.
        ImportError: roifile is not installed.
        FileNotFoundError: there is no such file.
    """
    library = roifile()
    try:
        found = library.roiread(path)
    except FileNotFoundError:
        raise
    except (*DAMAGE, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as ImageJ regions ({error}). Save them again.") from error
    labels = np.zeros((slices, *shape), dtype=np.uint8)
    for roi in found if isinstance(found, list) else [found]:
        name = f"Region {roi.name or 'without name'} of {path}"
        if not 1 <= roi.group <= MAX_CLASS:
            raise ValueError(
                f"{name} has the group {roi.group}; the group is the class, 1 to {MAX_CLASS}. Set it in its properties."
            )
        position = max(roi.position, roi.z_position, roi.t_position)
        if position > slices:
            raise ValueError(f"{name} is on slice {position}; the image has {slices}.")
        try:
            mask = region_mask(roi, shape)
        except DAMAGE as error:
            raise ValueError(f"{name} has no pixels that can be told ({error}). Convert it to a polygon.") from error
        pages = labels if position <= 0 else labels[position - 1 : position]
        pages[:, mask] = roi.group
    return labels if slices > 1 else labels[0]


def region_mask(roi: Any, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of a region, `(H, W)` bool."""
    kind = roi.roitype.name
    if roi.composite:
        mask = np.zeros(shape, dtype=bool)
        for outline in roi.coordinates(multi=True):
            add_polygon(mask, outline)
        return mask
    points = np.atleast_2d(roi.coordinates()).astype(float)
    if kind == "POINT":
        mask = np.zeros(shape, dtype=bool)
        columns, rows = np.floor(points).astype(int).T
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        mask[rows[inside], columns[inside]] = True
        return mask
    if kind in LINES:
        return line_mask(points, max(float(roi.stroke_width), 1), shape)
    if kind == "OVAL":
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        half = (roi.bottom - roi.top) / 2, (roi.right - roi.left) / 2
        down = (rows + 0.5 - roi.top - half[0]) / half[0]
        across = (columns + 0.5 - roi.left - half[1]) / half[1]
        return down**2 + across**2 <= 1
    mask = np.zeros(shape, dtype=bool)
    add_polygon(mask, points)
    return mask


def add_polygon(mask: np.ndarray, points: np.ndarray) -> None:
    """Turn over the pixels whose centres lie in a polygon of x and y `(n, 2)`: holes are outlines inside outlines.

    Pixel 0 reaches from 0 to 1.
    """
    corners = np.asarray(points, dtype=float)[:, ::-1]
    low = np.floor(corners.min(axis=0)).astype(int).clip(0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int), mask.shape)
    if (high > low).all():
        mask[low[0] : high[0], low[1] : high[1]] ^= polygon2mask(high - low, corners - low - 0.5)


def line_mask(points: np.ndarray, width: float, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie within half a width of a line through x and y `(n, 2)`."""
    mask = np.zeros(shape, dtype=bool)
    columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    for start, end in pairwise(points):
        along = end - start
        squared = max(float(along @ along), np.finfo(float).tiny)
        share = (((columns - start[0]) * along[0] + (rows - start[1]) * along[1]) / squared).clip(0, 1)
        distance = np.hypot(columns - start[0] - share * along[0], rows - start[1] - share * along[1])
        mask |= distance <= width / 2
    return mask


def write_rois(path: str | Path, labels: np.ndarray) -> None:
    """Write labels as regions, one for each class and slice, of which `read_rois` makes the same labels.

    Args:
        path: a .zip file.
        labels: `(H, W)` or `(slices, H, W)` uint8.

    Raises:
        ValueError: the path ends otherwise, or nothing is labelled.
        ImportError: roifile is not installed.
        OSError: the file cannot be written.
    """
    path, library = Path(path), roifile()
    if path.suffix.lower() != ".zip":
        raise ValueError(f"{path}: regions are written as .zip.")
    pages = labels[None] if labels.ndim == 2 else labels
    rois = [
        composite(library, page == number, int(number), 0 if len(pages) == 1 else index)
        for index, page in enumerate(pages, 1)
        for number in np.unique(page[page > 0])
    ]
    if not rois:
        raise ValueError(f"Nothing is labelled; {path} would have no region.")
    with new_file(path) as temporary:
        temporary.unlink()  # roifile adds to a file that is there
        library.roiwrite(temporary, rois)


def composite(library: Any, mask: np.ndarray, number: int, position: int) -> Any:
    """A region of exactly the pixels of a mask: rectangles, as ImageJ composes regions."""
    moves: list[float] = []
    for top, bottom, left, right in rectangles(mask):
        moves += [0, left, top, 1, right, top, 1, right, bottom, 1, left, bottom, 4]
    rows, columns = np.nonzero(mask)
    return library.ImagejRoi(
        roitype=library.ROI_TYPE.RECT,
        name=f"{number}-{position}" if position else str(number),
        group=number,
        position=position,
        top=int(rows.min()),
        bottom=int(rows.max()) + 1,
        left=int(columns.min()),
        right=int(columns.max()) + 1,
        shape_roi_size=len(moves),
        multi_coordinates=np.array(moves, dtype=np.float32),
        version=228,
    )


def rectangles(mask: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Top, bottom, left and right of rectangles that make up a mask: runs of rows, put together where they repeat."""
    open_runs: dict[tuple[int, int], int] = {}
    padded = np.pad(mask.astype(np.int8), ((0, 1), (1, 1)))
    for row, line in enumerate(padded):
        steps = np.diff(line)
        runs = set(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))
        for run in sorted(open_runs.keys() - runs):
            yield open_runs.pop(run), row, *run
        for run in runs - open_runs.keys():
            open_runs[run] = row
