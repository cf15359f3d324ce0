# SPDX-License-Identifier: Apache-2.0
"""How far the cutting of a large image shows in its mask: the share of pixels that get the same class either way.

    python -m benchmarks.tiling --model alibi-dinov2-small --image image.png --labels labels.png --output tiling.json

* `blocks`: classical features alone, classified in blocks of 512 and of 128 pixels.
* `moved`: deep features, from windows that begin elsewhere: the image lacks its first rows and columns, as many as
  make up half the way between windows.
* `one_window`: deep features, with windows of 518 pixels and with one that holds the whole image. The bias of ALiBi
  depends on the size of the grid, so this is no mere matter of cutting.

One segmenter with deep and classical features, and one with classical features alone, are fitted to the labels. Pixels
near the image's borders, where what is seen differs for good reason, do not count.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.multi_scale_features import MultiScaleFeatures
from alibi_dinov2.io.files import sha256_of, write_json
from alibi_dinov2.io.labels import read_labels
from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from benchmarks.measuring import machine_facts

SMALL_BLOCK = 128
BORDER = 112  # pixels


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of equal pixels, of those that are not near the border."""
    inner = (slice(BORDER, -BORDER),) * 2
    return float((one[inner] == other[inner]).mean())


def with_features(segmenter: TrainableSegmenter, image: np.ndarray, **changes: Any) -> np.ndarray:
    """The mask, with other settings of its `PixelFeatures` than those the segmenter was fitted with."""
    usual = segmenter.features_
    segmenter.features_ = replace(usual, **changes)
    try:
        return segmenter.predict(image)
    finally:
        segmenter.features_ = usual


def measure(image: np.ndarray, labels: np.ndarray, model: str) -> dict[str, float]:
    """Agreement in each case."""
    with tqdm(total=5, desc="masks", unit="mask") as bar:

        def done(mask: np.ndarray) -> np.ndarray:
            bar.update()
            return mask

        classical = TrainableSegmenter().fit(image, labels)
        blocks = agreement(
            done(classical.predict(image)), done(with_features(classical, image, block_size=SMALL_BLOCK))
        )
        segmenter = TrainableSegmenter(load_backbone(model)).fit(image, labels)
        deep = segmenter.features_.deep
        assert deep is not None
        finest, patch = deep.finest, max(max(scale.patch) for scale in deep.scales)
        offset = (finest.window - finest.overlap) // 2 // patch * patch
        mask = done(segmenter.predict(image))
        moved = done(segmenter.predict(image[offset:, offset:]))
        side = -(-max(image.shape[:2]) // patch) * patch
        wide = MultiScaleFeatures(tuple(replace(scale, window=side) for scale in deep.scales))
        whole = done(with_features(segmenter, image, deep=wide))
    return {
        "blocks": blocks,
        "moved": agreement(mask[offset:, offset:], moved),
        "one_window": agreement(mask, whole),
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hub id or folder of the backbone")
    parser.add_argument("--image", type=Path, required=True, help=f"larger than {DeepFeatures.window} pixels")
    parser.add_argument("--labels", type=Path, required=True, help="0 unlabelled, 1 and more classes")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    try:
        with open_image(options.image) as source:
            image = source.read(0, *(slice(0, side) for side in source.shape))
        if min(image.shape[:2]) < DeepFeatures.window + 2 * BORDER:
            parser.error(
                f"{options.image} is {image.shape[0]}×{image.shape[1]} pixels; sides of "
                f"{DeepFeatures.window + 2 * BORDER} or more are needed for several windows."
            )
        rows = measure(image, read_labels(options.labels), options.model)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if options.output:
        settings = {"model": Path(options.model).name, "image": options.image.name, "sha256": sha256_of(options.image)}
        write_json(options.output, {"machine": machine_facts(), "settings": settings, "agreement": rows})
    for name, value in rows.items():
        print(f"{name:<12}{value:8.4f}")


if __name__ == "__main__":
    main()
