# SPDX-License-Identifier: Apache-2.0
"""The shape that an image's patch tokens make in space: their first three principal components, coloured by position.

    python -m evaluation.position.token_geometry --models teacher student --images photograph.jpg --output geometry.png

Tokens with positional bias lie on a sheet in the order of the image, and so do their colours; without it colours mix
(figure 4 of arXiv 2603.16840).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.colours import position_colours
from alibi_dinov2.pictures.feature_colours import COMPONENTS, project
from alibi_dinov2.pictures.panels import Tile, image_tile, panel
from evaluation.command import figure_columns, figure_parser, image_paths, run_figure

KEY = 64  # places along each side of the key of colours


def token_cloud(features: np.ndarray, standardise: bool = False) -> np.ndarray:
    """Patches on their first three principal components, which keep their variances: `(h, w, D)` -> `(h, w, 3)`.

    Args:
        standardise: whether to bring every channel to mean 0 and variance 1 first.
    """
    rows, columns, width = features.shape
    cloud = project(features.reshape(-1, width), COMPONENTS, standardise, whiten=False)
    return cloud.reshape(rows, columns, COMPONENTS)


@dataclass(frozen=True)
class Cloud(Tile):
    """Tokens in space as a tile: `pixels` are their colours `(h, w, 3)`, `points` their places `(h, w, 3)`."""

    projection: ClassVar[str | None] = "3d"

    points: np.ndarray | None = None

    def draw(self, axes: Any) -> None:
        """Draw it on axes of three dimensions, which have one scale."""
        assert self.points is not None
        points = self.points.reshape(-1, COMPONENTS)
        axes.scatter(*points.T, c=self.pixels.reshape(-1, 3) / 255, s=6, depthshade=False)
        axes.set_box_aspect(np.maximum(np.ptp(points, axis=0), np.finfo(float).tiny), zoom=0.82)
        for number, axis in enumerate((axes.xaxis, axes.yaxis, axes.zaxis), start=1):
            axis.set_ticklabels([])
            axis.set_label_text(f"PC {number}", fontsize=8)
            axis.labelpad = -14


def cloud_tile(cloud: np.ndarray) -> Cloud:
    """Tokens `(h, w, 3)` in space, coloured by position."""
    return Cloud(position_colours(*cloud.shape[:2]), (1, 1), points=cloud)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = figure_parser(__doc__)
    parser.add_argument("--standardise", action="store_true", help="bring every channel to variance 1 first")
    return parser


def command(arguments: argparse.Namespace) -> Figure:
    """The picture that the options ask for."""
    images = [read_image(path) for path in image_paths(arguments)]
    headings = ["image", "colour of a place"]
    rows = [[image_tile(np.asarray(image)), Tile(position_colours(KEY, KEY), image.size)] for image in images]
    for column in figure_columns(arguments):
        headings.append(column.label)
        features = dense_features(column.backbone, images, column.size, progress=True)
        for row, array in zip(rows, features, strict=True):
            row.append(cloud_tile(token_cloud(array, arguments.standardise)))
    return panel(rows, headings)


def main(argv: Sequence[str] | None = None) -> None:
    run_figure(make_parser(), command, argv)


if __name__ == "__main__":
    main()
