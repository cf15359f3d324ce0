# SPDX-License-Identifier: Apache-2.0
"""Where in an image the features are like those at one point of it: cosine similarity to a query patch.

    python -m evaluation.position.query_similarity --models teacher student --images photograph.jpg --query 0.3 0.6 \\
        --output similarity.png

Features with positional bias find likeness near the query, others wherever the same thing is (figure 6a of arXiv
2603.16840).
"""

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.colours import value_colours
from alibi_dinov2.pictures.panels import Tile, image_tile, panel
from evaluation.command import figure_columns, figure_parser, image_paths, run_figure

LEAST_RANGE = 1e-3  # rounding errors are not drawn in full contrast


def patch_at(query: tuple[float, float], rows: int, columns: int) -> tuple[int, int]:
    """Row and column of the patch at a point.

    Args:
        query: x and y, from 0 at the left and top to 1 at the right and bottom.

    Raises:
        ValueError: the point is outside the image.
    """
    if not all(0 <= value <= 1 for value in query):
        raise ValueError(f"The query point {query} is outside the image; x and y go from 0 to 1.")
    return min(int(query[1] * rows), rows - 1), min(int(query[0] * columns), columns - 1)


def similarity_map(features: np.ndarray, row: int, column: int) -> np.ndarray:
    """Cosine similarity of all patches to one of them: `(h, w, D)` -> `(h, w)` in -1 to 1; 0 for a feature of zeros."""
    values = features.astype(np.float64)
    norms = np.linalg.norm(values, axis=-1)
    return values @ values[row, column] / np.maximum(norms * norms[row, column], np.finfo(float).tiny)


def similarity_colours(similarity: np.ndarray) -> np.ndarray:
    """A map `(h, w)` as uint8 colours `(h, w, 3)`, dark at its least value and bright at 1."""
    low = min(similarity.min(), 1 - LEAST_RANGE)
    return value_colours((similarity - low) / (1 - low))


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = figure_parser(__doc__)
    parser.add_argument(
        "--query",
        nargs=2,
        type=float,
        default=(0.5, 0.5),
        metavar=("X", "Y"),
        help="the point to compare with, from 0 at the left and top to 1 at the right and bottom",
    )
    return parser


def command(arguments: argparse.Namespace) -> Figure:
    """The picture that the options ask for."""
    query = tuple(arguments.query)
    patch_at(query, 1, 1)  # a wrong point fails before the long work
    images = [read_image(path) for path in image_paths(arguments)]
    headings, rows = ["image"], [[image_tile(np.asarray(image), mark=query)] for image in images]
    for column in figure_columns(arguments):
        headings.append(column.label)
        features = dense_features(column.backbone, images, column.size, progress=True)
        for row, image, array in zip(rows, images, features, strict=True):
            similarity = similarity_map(array, *patch_at(query, *array.shape[:2]))
            text = f"dark {similarity.min():.2f}, bright 1"
            row.append(Tile(similarity_colours(similarity), image.size, text, query))
    return panel(rows, headings)


def main(argv: Sequence[str] | None = None) -> None:
    run_figure(make_parser(), command, argv)


if __name__ == "__main__":
    main()
