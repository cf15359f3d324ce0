# SPDX-License-Identifier: Apache-2.0
"""Images beside the first three principal components of their features, a column for each model.

Figures 5, S7 to S9 and S11 to S13 of arXiv 2603.16840 are of this kind.
"""

from collections.abc import Sequence

from PIL import Image

from alibi_dinov2.features.columns import Column
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.pictures.feature_colours import feature_colours
from alibi_dinov2.pictures.panels import image_tile, map_tile, panel


def feature_panel(
    images: Sequence[Image.Image],
    columns: Sequence[Column],
    shared: bool = False,
    standardise: bool = False,
    foreground: bool = False,
) -> Image.Image:
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
    rows = [row for models in groups for row in zip(*feature_colours(models, standardise, foreground), strict=True)]
    tiles = [
        [image_tile(image), *(map_tile(picture, image) for picture in row)]
        for image, row in zip(images, rows, strict=True)
    ]
    return panel(tiles, ["image", *(column.label for column in columns)])
