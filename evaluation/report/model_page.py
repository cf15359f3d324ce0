# SPDX-License-Identifier: Apache-2.0
"""What a model's page on the Hub shows beside its card: the features of its example images, and a notebook.

Both are made from the model and the examples in its folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.feature_colours import feature_colours

NOTEBOOK_TEMPLATE = Path(__file__).with_name("notebook_template.ipynb")
SIZE = 518  # shortest side at which the model sees the examples
SIDE_OF_A_PATCH = 8  # pixels that a patch has in a picture


def draw_features(folder: Path, images: Sequence[Path], output: Path) -> None:
    """Draw the first three principal components of images' features as `output/<image's stem>.png`.

    Each image has a basis of its own: what differs between images, such as their brightness, would take the colours.

    Args:
        folder: of the model.
        images: the examples.
        output: an existing folder.
    """
    backbone = load_backbone(folder)
    for path in tqdm(images, desc="features of the examples", unit="image"):
        ((colours,),) = feature_colours([list(dense_features(backbone, [read_image(path)], SIZE))])
        rows, columns, _ = colours.shape
        size = (columns * SIDE_OF_A_PATCH, rows * SIDE_OF_A_PATCH)
        Image.fromarray(colours).resize(size, Image.Resampling.NEAREST).save(output / f"{path.stem}.png")


def render_notebook(name: str, patch_size: int) -> str:
    """The text of a notebook that goes from an image to features, pictures and a mask.

    Args:
        name: of the model, as one loads it: a Hub id or a folder.
        patch_size: of the model, in pixels.
    """
    values = {"name": name, "short_name": name.rsplit("/", 1)[-1], "patch_size": str(patch_size)}
    text = NOTEBOOK_TEMPLATE.read_text(encoding="utf-8")
    for field, value in values.items():
        text = text.replace(f"{{{{ {field} }}}}", json.dumps(value)[1:-1])
    return text
