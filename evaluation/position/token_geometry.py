# SPDX-License-Identifier: Apache-2.0
"""The shape that an image's patch tokens make in space: their first three principal components, coloured by position.

    python -m evaluation.position.token_geometry --models teacher student --images photograph.jpg --output geometry.png

Tokens with positional bias lie on a sheet in the order of the image, and so do their colours; without it colours mix
(figure 4 of arXiv 2603.16840).
"""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D
from PIL import Image

from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.feature_colours import COMPONENTS, project
from alibi_dinov2.pictures.panels import ROW_HEIGHT, image_tile, map_tile, panel
from evaluation.figures import figure_columns, figure_parser, image_paths, run_figure

DPI = 100
# Red, green and blue at the corners of the image: top left and right, bottom left and right.
CORNERS = (((0.15, 0.30, 0.80), (0.05, 0.70, 0.55)), ((0.80, 0.10, 0.45), (0.98, 0.80, 0.10)))


def token_cloud(features: np.ndarray, standardise: bool = False) -> np.ndarray:
    """Patches on their first three principal components, which keep their variances: `(h, w, D)` -> `(h, w, 3)`.

    Args:
        standardise: whether to bring every channel to mean 0 and variance 1 first.
    """
    rows, columns, width = features.shape
    cloud = project(features.reshape(-1, width), COMPONENTS, standardise, whiten=False)
    return cloud.reshape(rows, columns, COMPONENTS)


def position_colours(rows: int, columns: int) -> np.ndarray:
    """A colour for each place of a grid, `(rows, columns, 3)` uint8, blended between the colours of the corners."""
    down, right = np.linspace(0, 1, rows), np.linspace(0, 1, columns)
    blended = np.einsum("ri,cj,ijk->rck", np.stack([1 - down, down], 1), np.stack([1 - right, right], 1), CORNERS)
    return (blended * 255).round().astype(np.uint8)


def cloud_tile(cloud: np.ndarray, side: int = ROW_HEIGHT) -> Image.Image:
    """Tokens `(h, w, 3)` in space, coloured by position; the axes have one scale."""
    figure = Figure(figsize=(side / DPI, side / DPI), dpi=DPI)
    axes = Axes3D(figure, (-0.06, 0, 1, 1))
    figure.add_axes(axes)
    points = cloud.reshape(-1, COMPONENTS)
    axes.scatter(*points.T, c=position_colours(*cloud.shape[:2]).reshape(-1, 3) / 255, s=3, depthshade=False)
    axes.set_box_aspect(np.maximum(np.ptp(points, axis=0), np.finfo(float).tiny), zoom=0.85)
    for number, axis in enumerate((axes.xaxis, axes.yaxis, axes.zaxis), start=1):
        axis.set_ticklabels([])
        axis.set_label_text(f"PC {number}", fontsize=8)
        axis.labelpad = -14
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def main() -> None:
    parser = figure_parser(__doc__)
    parser.add_argument("--standardise", action="store_true", help="bring every channel to variance 1 first")

    def command(arguments) -> Image.Image:
        images = [read_image(path) for path in image_paths(arguments)]
        labels = ["image", "colour of a place"]
        rows = [[image_tile(image), map_tile(position_colours(64, 64), image)] for image in images]
        for column in figure_columns(arguments):
            labels.append(column.label)
            features = dense_features(column.backbone, images, column.size, progress=True)
            for row, array in zip(rows, features, strict=True):
                row.append(cloud_tile(token_cloud(array, arguments.standardise)))
        return panel(rows, labels)

    run_figure(parser, command)


if __name__ == "__main__":
    main()
