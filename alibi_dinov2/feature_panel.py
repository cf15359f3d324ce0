# SPDX-License-Identifier: Apache-2.0
"""Images beside the first three principal components of their features, a column for each model.

Each image has components of its own, turned so that like colours mean like things in all models (figure 5 of arXiv
2603.16840). The paper's other figures of components are this panel with other models, sizes and options:

    shared, foreground        images of one kind in common components, background black (S13)
    standardise               every channel at equal variance first (S12)
    NoPE beside ALiBi         the bias beside none (S9)
    constant beside learned   slopes (S7)
    before beside after       without and with the high-resolution stage (S8)
    several sizes             growing inputs (S11)
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from alibi_dinov2.features.columns import Column
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.pictures.feature_colours import feature_colours
from alibi_dinov2.pictures.panels import Tile, image_tile, panel


def feature_panel(
    images: Sequence[Image.Image],
    columns: Sequence[Column],
    shared: bool = False,
    standardise: bool = False,
    foreground: bool = False,
) -> Figure:
    """A row for each image: the image, and its features in each column's model as colours.

    Args:
        images: of any size.
        columns: models, and the sizes at which they see the images.
        shared: whether all images of a column have their components in common; if not, each has its own.
        standardise, foreground: see `principal_components`.

    Raises:
        ValueError: there are too few patches for three components.
    """
    features = [list(dense_features(column.backbone, images, column.size, progress=True)) for column in columns]
    by_image = list(zip(*features, strict=True))
    groups = [features] if shared else [[[array] for array in maps] for maps in by_image]
    pictures: list[tuple[np.ndarray, ...]] = []
    for models in groups:
        pictures += zip(*feature_colours(models, standardise, foreground), strict=True)
    rows = [
        [image_tile(np.asarray(image)), *(Tile(picture, image.size) for picture in row)]
        for image, row in zip(images, pictures, strict=True)
    ]
    return panel(rows, ["image", *(column.label for column in columns)])
