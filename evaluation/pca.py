# SPDX-License-Identifier: Apache-2.0
"""Pictures of dense features: the first three principal components of each image as red, green and blue.

python -m evaluation.pca --models teacher student --images data/micrographs --size 518 --output panel.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.decomposition import PCA
from transformers.utils import logging

from common.files import new_file
from common.images import find_images, read_image
from evaluation.features import dense_features, load_backbone

COMPONENTS = 3
ROW_HEIGHT, GAP = 259, 6  # pixels
TRIMMED = 1.0  # percent at either end: a few outlying patches would else take all the contrast


def principal_components(features: np.ndarray) -> np.ndarray:
    """Standard scores of the first three principal components, `(h, w, D)` -> `(h, w, 3)`.

    Raises:
        ValueError: there are fewer than 3 patches or channels.
    """
    rows, columns, width = features.shape
    if min(rows * columns, width) < COMPONENTS:
        raise ValueError(f"{rows}×{columns} patches of {width} channels have no {COMPONENTS} components.")
    pca = PCA(COMPONENTS, whiten=True, svd_solver="full")
    return pca.fit_transform(features.reshape(-1, width)).reshape(rows, columns, COMPONENTS)


def align_components(components: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Order and turn components to be like those of another model, so that like colours mean like things.

    Args:
        components, reference: `(h, w, 3)` of the same image.

    Returns:
        `components` reordered, some with the sign changed: each reference component in turn takes the free one that
        correlates with it most.
    """
    found, wanted = (array.reshape(-1, COMPONENTS) for array in (components, reference))
    correlation = np.nan_to_num(np.corrcoef(found, wanted, rowvar=False)[:COMPONENTS, COMPONENTS:])
    free, aligned = list(range(COMPONENTS)), []
    for column in correlation.T:
        best = max(free, key=lambda index: abs(column[index]))
        free.remove(best)
        aligned.append(components[..., best] * (-1 if column[best] < 0 else 1))
    return np.stack(aligned, axis=-1)


def colours(components: np.ndarray) -> np.ndarray:
    """Components `(h, w, 3)` as uint8 colours, each component stretched over the full range."""
    low, high = np.percentile(components, (TRIMMED, 100 - TRIMMED), axis=(0, 1))
    scaled = (components - low) / np.maximum(high - low, np.finfo(float).tiny)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)


def tile_width(image: Image.Image, height: int = ROW_HEIGHT) -> int:
    """Width of an image drawn `height` pixels high."""
    return round(image.width * height / image.height)


def pca_row(image: Image.Image, features: Sequence[np.ndarray], height: int = ROW_HEIGHT) -> Image.Image:
    """An image and its feature maps side by side.

    Args:
        image: as the models saw it.
        features: `(h, w, D)` for each model; colours are matched to the first one's.
        height: of the row in pixels.
    """
    components = [principal_components(array) for array in features]
    maps = [components[0], *(align_components(other, components[0]) for other in components[1:])]
    size = (tile_width(image, height), height)
    tiles = [image.convert("RGB").resize(size, Image.Resampling.LANCZOS)]
    tiles += [Image.fromarray(colours(array)).resize(size, Image.Resampling.NEAREST) for array in maps]
    return stack(tiles, horizontal=True)


def stack(tiles: Sequence[Image.Image], horizontal: bool, gap: int = GAP) -> Image.Image:
    """Pictures in a row or a column on white."""
    along = [tile.width if horizontal else tile.height for tile in tiles]
    across = max(tile.height if horizontal else tile.width for tile in tiles)
    length = sum(along) + gap * (len(tiles) - 1)
    sheet = Image.new("RGB", (length, across) if horizontal else (across, length), "white")
    offset = 0
    for tile, extent in zip(tiles, along, strict=True):
        sheet.paste(tile, (offset, 0) if horizontal else (0, offset))
        offset += extent + gap
    return sheet


def heading(labels: Sequence[str], width: int, height: int = 24, gap: int = GAP) -> Image.Image:
    """A strip with a label over the middle of each column, for columns of equal width."""
    strip = Image.new("RGB", (len(labels) * (width + gap) - gap, height), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=height * 0.7)
    for column, label in enumerate(labels):
        draw.text((column * (width + gap) + width / 2, height / 2), label, fill="black", font=font, anchor="mm")
    return strip


def pca_panel(sources: Sequence[str | Path], paths: Sequence[Path], size: int, output: str | Path, device: str) -> None:
    """One row per image: the image, then a picture for each model; written as PNG."""
    images = [read_image(path) for path in paths]
    backbones = [load_backbone(source, device) for source in sources]
    features = [list(dense_features(backbone, images, size, progress=True)) for backbone in backbones]
    rows = [pca_row(image, maps) for image, *maps in zip(images, *features, strict=True)]
    labels = heading(["image", *(backbone.name for backbone in backbones)], tile_width(images[0]))
    with new_file(output) as temporary:
        stack([labels, *rows], horizontal=False).save(temporary, format="PNG")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="Hub ids or folders, one column each")
    parser.add_argument("--images", required=True, help="folder of images, one row each")
    parser.add_argument("--size", type=int, default=518, help="shortest side in pixels at which the models see images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    try:
        pca_panel(arguments.models, find_images(arguments.images), arguments.size, arguments.output, arguments.device)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{arguments.output}: image, {', '.join(arguments.models)}")


if __name__ == "__main__":
    main()
