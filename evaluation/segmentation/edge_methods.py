# SPDX-License-Identifier: Apache-2.0
"""Ways from features of patches to classes of pixels that `edges.py` compares, and how long they take."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.segmentation.guided_filter import guided_filter
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.segmentation.joint_bilateral import joint_bilateral

BASELINE = "bilinear"
REPEATS = 3  # of a measurement of time, of which the median counts


@dataclass(frozen=True)
class Method:
    """A way from a grid of patches to classes of pixels.

    Attributes:
        shifts: of the deep features.
        bilateral: scale of joint bilateral upsampling, which takes the place of bilinear interpolation if given.
        features: radius in pixels of a guided filter of the deep features of pixels; 0 for none.
        probabilities: the same of the probabilities of classes.
    """

    shifts: int = 1
    bilateral: float | None = None
    features: int = 0
    probabilities: int = 0

    @property
    def until_classifier(self) -> "Method":
        """The part of it that the classifier sees."""
        return Method(self.shifts, self.bilateral, self.features)


METHODS = {
    BASELINE: Method(),
    "shifts-2": Method(shifts=2),
    **{f"joint-bilateral-{scale:g}": Method(bilateral=scale) for scale in (0.05, 0.1)},
    "guided-components-8": Method(features=8),
    **{f"guided-probabilities-{radius}": Method(probabilities=radius) for radius in (4, 8, 16)},
    "joint-bilateral-0.1, guided-probabilities-8": Method(bilateral=0.1, probabilities=8),
}


def guide_of(image: np.ndarray) -> np.ndarray:
    """The mean of the channels of `(H, W, 3)` uint8 as `(H, W)` float32 from 0 to 1."""
    return image.mean(axis=-1, dtype=np.float32) / 255


def grids_of(segmenter: TrainableSegmenter, image: np.ndarray) -> list[np.ndarray]:
    """Reduced deep features of the patches of an image `(H, W, 3)`, `(h, w, n)` for each scale."""
    return segmenter.features_.grids(ArrayImage(image), 0)


def deep_pixels(
    method: Method, segmenter: TrainableSegmenter, grids: Sequence[np.ndarray], guide: np.ndarray
) -> np.ndarray:
    """Deep features `(H, W, n)` of all pixels of an image, as a method makes them of those of its patches."""
    deep = segmenter.features_.deep
    assert deep is not None
    if method.bilateral is not None:
        found = [
            joint_bilateral(guide, grid, scale.patch, method.bilateral)
            for scale, grid in zip(deep.scales, grids, strict=True)
        ]
    else:
        whole = (slice(0, guide.shape[0]), slice(0, guide.shape[1]))
        found = [np.moveaxis(planes, 0, -1) for planes in deep.upsample(grids, whole)]
    pixels = np.concatenate(found, axis=-1)
    return guided_filter(guide, pixels, method.features) if method.features else pixels


def kind_of(name: str) -> str:
    """What a method is called without its settings."""
    return re.sub(r"-[\d.]+(?=,|$)", "", name)


def with_classical(segmenter: TrainableSegmenter, image: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """Features of all pixels, classical ones first, if the segmenter has any."""
    found = segmenter.features_
    if found.classical is None:
        return deep
    block = (slice(0, image.shape[0]), slice(0, image.shape[1]))
    return np.concatenate([found.block(ArrayImage(image), 0, block, grids=[]), deep], axis=-1)


def filtered(method: Method, guide: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Probabilities `(H, W, K)` as a method leaves them."""
    return guided_filter(guide, probabilities, method.probabilities) if method.probabilities else probabilities


def seconds_per_megapixel(
    image: np.ndarray, strokes: np.ndarray, backbone: Backbone, **settings: Any
) -> dict[str, float]:
    """Seconds of the processor, which other programs do not change, for all but classical features and classifier.

    Args:
        image, strokes: `(H, W, 3)` uint8 and its labels `(H, W)`, that a segmenter is fitted to.
        backbone, settings: of the segmenter.
    """
    guide = guide_of(image)
    probabilities = np.random.default_rng(0).random((*guide.shape, int(strokes.max())), dtype=np.float32)
    segmenters, of_backbone = {}, {}
    for shifts in {method.shifts for method in METHODS.values()}:
        segmenter = TrainableSegmenter(backbone, None, shifts=shifts, **settings).fit(image, strokes)
        forgetful = replace(segmenter.features_, cache=MemoryCache(0))
        of_backbone[shifts] = seconds(partial(forgetful.grids, ArrayImage(image), 0))
        segmenters[shifts] = segmenter

    def refine(method: Method, grids: Sequence[np.ndarray]) -> None:
        deep_pixels(method, segmenters[method.shifts], grids, guide)
        filtered(method, guide, probabilities)

    grids = {shifts: grids_of(segmenter, image) for shifts, segmenter in segmenters.items()}
    return {
        name: (of_backbone[method.shifts] + seconds(partial(refine, method, grids[method.shifts]))) / (guide.size / 1e6)
        for name, method in METHODS.items()
    }


def seconds(work: Callable[[], Any]) -> float:
    """Median of the seconds of the processor that some work takes."""
    times = []
    for _ in range(REPEATS):
        start = process_time()
        work()
        times.append(process_time() - start)
    return median(times)
