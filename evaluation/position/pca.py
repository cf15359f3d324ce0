# SPDX-License-Identifier: Apache-2.0
"""Pictures of dense features: the first three principal components as red, green and blue.

    python -m evaluation.position.pca --models teacher student --images data/micrographs --output panel.png

Each image has components of its own, turned so that like colours mean like things in all models (figure 5 of arXiv
2603.16840). The paper's other figures of components are this command with other models, sizes and options:

    --shared --foreground                  images of one kind in common components, background black (S13)
    --standardise                          every channel at equal variance first (S12)
    --models nope alibi                    the bias beside none (S9)
    --models constant learned              constant beside learned slopes (S7)
    --models before after                  without and with the high-resolution stage (S8)
    --size 224 518 1022                    growing inputs (S11)
"""

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.feature_colours import feature_colours
from alibi_dinov2.pictures.panels import Tile, image_tile, panel
from evaluation.command import figure_columns, figure_parser, image_paths, run_figure


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = figure_parser(__doc__)
    parser.add_argument("--shared", action="store_true", help="one basis for all images of a model, not one for each")
    parser.add_argument("--foreground", action="store_true", help="components of the foreground; background is black")
    parser.add_argument("--standardise", action="store_true", help="bring every channel to variance 1 first")
    return parser


def command(arguments: argparse.Namespace) -> Figure:
    """The picture that the options ask for."""
    images = [read_image(path) for path in image_paths(arguments)]
    headings, features = ["image"], []
    for column in figure_columns(arguments):
        headings.append(column.label)
        features.append(list(dense_features(column.backbone, images, column.size, progress=True)))
    by_image = list(zip(*features, strict=True))
    groups = [features] if arguments.shared else [[[array] for array in maps] for maps in by_image]
    pictures: list[tuple[np.ndarray, ...]] = []
    for models in groups:
        pictures += zip(*feature_colours(models, arguments.standardise, arguments.foreground), strict=True)
    rows = [
        [image_tile(np.asarray(image)), *(Tile(picture, image.size) for picture in row)]
        for image, row in zip(images, pictures, strict=True)
    ]
    return panel(rows, headings)


def main(argv: Sequence[str] | None = None) -> None:
    run_figure(make_parser(), command, argv)


if __name__ == "__main__":
    main()
