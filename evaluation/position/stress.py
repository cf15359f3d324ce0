# SPDX-License-Identifier: Apache-2.0
"""Features of inputs without content, and under noise in ALiBi's distances (figure S10 of arXiv 2603.16840).

    python -m evaluation.position.stress --models teacher student --images micrograph.png --jitter 0.1 1 \\
        --output stress.png

A row each for a tensor of zeros, a grid of dots, uniform noise and every image: its principal components, and under
them the spread of the features, the root mean square distance from their mean over their root mean square length. What
spreads over a tensor of zeros can only be position: nothing does for ALiBi on a torus. `--jitter` gives every ALiBi
model a further column for each standard deviation of the noise that is added to its distances, which go from 0 to 1 if
they are normalised.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from alibi_dinov2.features.backbone import Backbone, preprocess
from alibi_dinov2.features.columns import Column
from alibi_dinov2.features.dense_features import patch_features
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.feature_colours import feature_colours, relative_spread
from alibi_dinov2.pictures.panels import Tile, image_tile, panel
from evaluation.command import figure_columns, figure_parser, image_paths, run_figure
from evaluation.position.noise import noise_images

ZEROS = "tensor of zeros"
DOT_SPACING, DOT_RADIUS = 56, 9  # pixels


def dot_grid(size: int) -> Image.Image:
    """A square image of `size` pixels a side: white dots on black, 56 pixels apart."""
    image = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image)
    for x in range(DOT_SPACING // 2, size, DOT_SPACING):
        for y in range(DOT_SPACING // 2, size, DOT_SPACING):
            draw.circle((x, y), DOT_RADIUS, fill="white")
    return image


def inputs_without_content(size: int, seed: int = 0) -> dict[str, Image.Image]:
    """The inputs by name, squares of `size` pixels; the grey one stands for a tensor of zeros."""
    grey = Image.new("RGB", (size, size), "grey")
    return {ZEROS: grey, "dot grid": dot_grid(size), "noise": noise_images(1, size, seed)[0]}


def with_jitter(backbone: Backbone, sigma: float) -> Backbone:
    """The same model with noise of standard deviation `sigma` added to its distances, drawn for every layer and pass.

    Raises:
        ValueError: `sigma` is no positive number.
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"The jitter is {sigma}; it must be a positive number.")
    model = type(backbone.model).from_pretrained(backbone.source, alibi_jitter=sigma, dtype=backbone.model.dtype)
    return replace(backbone, model=model.eval().to(backbone.model.device))


def with_jitters(columns: Sequence[Column], sigmas: Sequence[float]) -> list[Column]:
    """The columns, and after each ALiBi model the same with jitter.

    Raises:
        ValueError: there is jitter to add, but no ALiBi model; or a value is no positive number.
    """
    expanded = []
    for column in columns:
        expanded.append(column)
        if getattr(column.backbone.model.config, "position_encoding", None) == "alibi":
            expanded += [
                replace(column, label=f"{column.label}, jitter {sigma:g}", backbone=with_jitter(column.backbone, sigma))
                for sigma in sigmas
            ]
    if sigmas and len(expanded) == len(columns):
        raise ValueError("None of the models has ALiBi distances to add noise to; leave --jitter out.")
    return expanded


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = figure_parser(__doc__)
    parser.add_argument("--jitter", nargs="+", type=float, default=[], help="standard deviations for ALiBi models")
    return parser


def command(arguments: argparse.Namespace) -> Figure:
    """The picture that the options ask for."""
    torch.manual_seed(arguments.seed)  # of the jitter
    images = {path.name: read_image(path) for path in image_paths(arguments)}
    columns = with_jitters(figure_columns(arguments), arguments.jitter)
    rows = []
    for name, image in (inputs_without_content(max(arguments.size), arguments.seed) | images).items():
        features = []
        for column in columns:
            pixels = preprocess(column.backbone, [image], column.size)
            pixels = torch.zeros_like(pixels) if name == ZEROS else pixels
            features.append(list(patch_features(column.backbone, pixels)))
        row = [image_tile(np.asarray(image), name)]
        for (array,), (picture,) in zip(features, feature_colours(features), strict=True):
            spread = relative_spread(array.reshape(-1, array.shape[-1]))
            row.append(Tile(picture, image.size, f"spread {spread:.2g}"))
        rows.append(row)
    return panel(rows, ["input", *(column.label for column in columns)])


def main(argv: Sequence[str] | None = None) -> None:
    run_figure(make_parser(), command, argv)


if __name__ == "__main__":
    main()
