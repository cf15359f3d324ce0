# SPDX-License-Identifier: Apache-2.0
"""Files -> class maps: block by block, going on from what an earlier run did."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from alibi_dinov2.io.files import sha256_of
from alibi_dinov2.io.image_files import ImageFile, open_image
from alibi_dinov2.io.tiled_tiff import TiledPrediction, read_description
from alibi_dinov2.io.tiles import blocks
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter


def segment_file(
    segmenter: TrainableSegmenter, path: Path, result: Path, colours: np.ndarray
) -> tuple[dict[str, Any], bool]:
    """Write the class maps of an image or a stack, unless they are there.

    Args:
        segmenter: saved or loaded, so that it has an identity.
        path: of the image.
        result: where its class maps go, a TIFF.
        colours: of all classes, `(256, 3)` uint8, which the file carries.

    Returns:
        The description that the maps carry: the classes, their names, and how many pixels of each slice are of each;
        and whether the maps are new.

    Raises:
        ValueError: the image cannot be segmented, or another file has the name of the result.
        OSError: the result cannot be written.
    """
    identity = prediction_identity(segmenter, path)
    description = read_description(result)
    if result.exists() and "identity" not in (description or {}):
        raise ValueError(f"{result} is there and is no result of this command; move it, or choose another folder.")
    if description is not None and description["identity"] == identity:
        return description, False
    with open_image(path) as image:
        return write_classes(segmenter, image, result, identity, colours), True


def write_classes(
    segmenter: TrainableSegmenter, image: ImageFile, result: Path, identity: str, colours: np.ndarray
) -> dict[str, Any]:
    """Segment block by block, going on from what an earlier run did, and write the file; see `segment_file`."""
    prediction = TiledPrediction(result, image.slices, image.shape, identity)
    total = image.slices * len(blocks(image.shape, segmenter.features_.block_size))
    with tqdm(
        total=total,
        initial=len(prediction.finished),
        desc=image.path.name,
        unit="block",
        leave=False,
        disable=total == 1,
    ) as bar:
        for index in range(image.slices):
            wanted = segmenter.predict_blocks(image, index, partial(prediction.done, index))
            for number, block, probabilities in wanted:
                prediction.write(index, number, *block, segmenter.classes_[probabilities.argmax(axis=-1)])
                bar.update()
    description = {
        "identity": identity,
        "image": image.path.name,
        "classes": segmenter.classes_.tolist(),
        "class_names": names_of(segmenter.classes_.tolist(), segmenter.class_names),
        "pixels": prediction.counts()[:, segmenter.classes_].tolist(),
    }
    prediction.finish(description, colours)
    return description


def prediction_identity(segmenter: TrainableSegmenter, path: Path) -> str:
    """SHA-256 of all that the classes of an image depend on."""
    facts = [segmenter.identity_, sha256_of(path), segmenter.features_.block_size]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def names_of(classes: Sequence[int], names: Sequence[str] | None) -> list[str]:
    """Names of the classes, their numbers if they have none."""
    return list(names) if names else [f"class {number}" for number in classes]
