# SPDX-License-Identifier: Apache-2.0
"""Answers while the pen moves: an image whose features are computed in the background, and a segmenter that learns.

with Session(TrainableSegmenter(load_backbone("alibi-dinov2-small")), image) as session:
    session.start(progress=lambda done, total: print(f"{done} of {total}"))
    probabilities = session.learn(scribbles).probabilities(0, slice(0, 512), slice(0, 512))
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Self

import numpy as np
from PIL import Image
from sklearn.exceptions import NotFittedError

from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.io.image_regions import ImageRegions, as_images, fit_contrast
from alibi_dinov2.io.labels import as_label_maps
from alibi_dinov2.io.tiles import Block
from alibi_dinov2.pictures.feature_colours import principal_components
from alibi_dinov2.segmentation.background import Background, Progress, Steps
from alibi_dinov2.segmentation.guided_filter import follow_edges
from alibi_dinov2.segmentation.image_features import ImageFeatures
from alibi_dinov2.segmentation.labelled_pixels import pixels_to_learn
from alibi_dinov2.segmentation.pixel_classifiers import PixelClassifier
from alibi_dinov2.segmentation.pixel_features import PixelFeatures
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

CACHE_BYTES = 3 * 2**28


@dataclass(frozen=True)
class Learned:
    """What was learned at one time, and goes together."""

    image: ImageFeatures
    features: PixelFeatures
    classifier: PixelClassifier
    classes: np.ndarray
    guided_radius: int

    def classes_of(self, index: int, region: Block) -> np.ndarray:
        """The class of every pixel of a region of a slice, `(h, w)` uint8."""
        return self.classes[self.probabilities(index, region).argmax(axis=-1)]

    def probabilities(self, index: int, region: Block, step: int = 1) -> np.ndarray:
        """Probabilities of the classes in a region of a slice, `(h, w, K)` float32."""
        classify = partial(self.image.probabilities, self.features, self.classifier, index, step=step)
        return follow_edges(self.image.image, index, region, self.guided_radius, classify)


class Session:
    """An image, or a stack, that a segmenter learns from and segments while somebody draws on it; a context manager.

    What is computed for the image is kept in memory, in half precision, as long as there is room for it. As long as the
    backbone has not seen all of an image, deep features are standardised by what it has seen; afterwards `learn` fits
    the same, and `probabilities` are the same, as those of a `TrainableSegmenter` that is fitted to the slices with
    labels. All methods may be called from any thread.

    Args:
        segmenter: fitted or not; `learn` fits it. One that is fitted keeps its contrast.
        image: what `TrainableSegmenter.predict` takes: `(H, W)`, `(H, W, C)`, a stack, a PIL image, an open file.
        cache_bytes: of features that are kept in memory at most.

    Attributes:
        segmenter: the one that was given.
        image: as the segmenter sees it.

    Raises:
        ValueError: it is no image, or a setting of the segmenter is out of range.
    """

    def __init__(
        self,
        segmenter: TrainableSegmenter,
        image: np.ndarray | Image.Image | ImageRegions,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.segmenter, self.cache_bytes = segmenter, cache_bytes
        fitted = hasattr(segmenter, "classifier_")
        segmenter.deep_features()
        given = as_images(image)
        if len(given) > 1:
            raise ValueError(f"There are {len(given)} images; a session has one, which may be a stack.")
        self.contrast = fit_contrast(given, segmenter.contrast_ if fitted else segmenter.contrast)
        (self.image,) = as_images(given, self.contrast)
        self.features = self.unfitted_features()
        self.learned: Learned | None = None
        if fitted:
            self.features = ImageFeatures(self.image, segmenter.features_, segmenter.cache, cache_bytes)
            self.learned = Learned(
                self.features,
                segmenter.features_,
                segmenter.classifier_,
                segmenter.classes_,
                segmenter.guided_radius,
            )
        self.learning = Lock()
        self.place: Block | None = None
        self.background = Background("alibi-dinov2 session")

    def unfitted_features(self) -> ImageFeatures:
        """Features by the segmenter's settings, of which nothing is computed yet."""
        segmenter, cache = self.segmenter, self.segmenter.cache or MemoryCache()
        features = segmenter.unfitted_features(segmenter.deep_features(), cache, MemoryCache())
        return ImageFeatures(self.image, features, segmenter.cache, self.cache_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is going on, and wait for the end of the step that is being done; no thread is left."""
        self.background.close()

    def cancel(self) -> None:
        """Cancel what is going on in the background; what was computed stays."""
        self.background.cancel()

    def focus(self, block: Block | None) -> None:
        """Look at another place: what is nearest to it is computed next.

        Args:
            block: rows and columns; none for the middle.
        """
        self.place = block

    def start(self, index: int = 0, focus: Block | None = None, progress: Progress | None = None) -> "Future[None]":
        """Compute the features of a slice in the background, as many as there is room for.

        Args:
            index: of the slice.
            focus: rows and columns of what is looked at; see `focus`.
            progress: called in the background with how many of how many windows and blocks are done.

        Returns:
            A future, to wait for or to cancel.

        Raises:
            ValueError: there is no such slice, or the session is closed.
        """
        self.require_slice(index)
        self.focus(focus)
        return self.background.submit(self.features_steps(self.features, index), progress)

    def features_steps(self, features: ImageFeatures, index: int) -> Steps[None]:
        """Windows and blocks of a slice, the nearest ones first."""
        waiting = features.missing(index)
        done, total = features.parts() - len(waiting), features.parts()
        yield done, total
        while waiting and features.has_room():
            nearest = min(waiting, key=lambda part: distance(part.middle, self.middle))
            waiting.remove(nearest)
            nearest.compute()
            done += 1
            yield done, total

    @property
    def middle(self) -> tuple[float, float]:
        """Row and column of the middle of what is looked at."""
        spans = self.place or [slice(0, length) for length in self.image.shape]
        row, column = ((span.start + span.stop) / 2 for span in spans)
        return row, column

    def learn(self, labels: Any) -> Self:
        """Fit the segmenter to labels, as `TrainableSegmenter.fit` does on the slices that have some.

        Features that are not there yet are computed where there are labels. A fit that fails leaves the segmenter as it
        was.

        Args:
            labels: `(H, W)`, of a stack `(slices, H, W)`: 0 unlabelled, 1 to 255 classes.

        Raises:
            ValueError: what `TrainableSegmenter.fit` raises.
        """
        segmenter = self.segmenter
        with self.learning, self.background.paused():
            known = self.features.features
            wanted = (segmenter.classical, segmenter.deep_features(), tuple(segmenter.position))
            if (known.classical, known.deep, known.position) != wanted:
                self.features = self.unfitted_features()
            image = self.features
            maps = as_label_maps(labels, [self.image])
            classes, labelled = pixels_to_learn(
                [self.image], maps, segmenter.class_names, segmenter.max_pixels, segmenter.seed
            )
            features = image.fit(labelled)
            classifier = segmenter.classifier_of(features, image.of_pixels(features, labelled), labelled, classes)
            segmenter.set_fitted(classes, features, classifier, self.contrast)
            self.learned = Learned(image, features, classifier, classes, segmenter.guided_radius)
        return self

    def probabilities(self, index: int, rows: slice, columns: slice, step: int = 1) -> np.ndarray:
        """Probabilities of the classes in a region of a slice, `(h, w, K)` float32.

        Features that are not there yet are computed first, what is done in the background waits meanwhile.

        Args:
            index: of the slice.
            rows, columns: of the region; what lies outside of the image is left out.
            step: for a first look, every so many rows and columns are classified; pixels between them get what their
                neighbour has, before borders are brought to edges.

        Raises:
            NotFittedError: nothing was learned yet.
            ValueError: there is no such slice or region, or the step is below 1.
        """
        learned = self.require_learned()
        self.require_slice(index)
        if step < 1:
            raise ValueError(f"The step is {step}; it must be 1 pixel or more.")
        region = self.region(rows, columns)
        with self.background.paused():
            return learned.probabilities(index, region, step)

    def predict_slice(self, index: int, progress: Progress | None = None) -> "Future[np.ndarray]":
        """The class of every pixel of a slice, of the segmenter's `classes_`, in the background.

        Args:
            index: of the slice.
            progress: called in the background with how many of how many windows and blocks are done.

        Returns:
            A future of `(H, W)` uint8, by what was learned last when this is called.

        Raises:
            NotFittedError, ValueError: as for `probabilities`; or the session is closed.
        """
        learned = self.require_learned()
        self.require_slice(index)
        return self.background.submit(self.prediction_steps(learned, index), progress)

    def prediction_steps(self, learned: Learned, index: int) -> Steps[np.ndarray]:
        """The missing windows of a slice, and then its blocks, the nearest ones first."""
        image = learned.image
        blocks, places = image.blocks(), [place for place in image.places() if not image.is_known(index, place)]
        total = len(places) + len(blocks)
        for done, place in enumerate(places, 1):
            image.look_at(index, [place])
            yield done, total
        mask = np.zeros(self.image.shape, dtype=np.uint8)
        blocks.sort(key=lambda block: distance(middle_of(block), self.middle))
        for done, block in enumerate(blocks, len(places) + 1):
            mask[block] = learned.classes_of(index, block)
            yield done, total
        return mask

    def pca(self, index: int) -> np.ndarray:
        """The first three principal components of a slice's patches as standard scores, `(h, w, 3)` float64.

        Raises:
            ValueError: there is no backbone, no such slice, or there are fewer than 3 patches.
        """
        return principal_components([self.patches(index)])[0]

    def similarity(self, index: int, row: int, column: int) -> np.ndarray:
        """Cosine similarity of every patch of a slice to the patch at a pixel, `(h, w)` float32, -1 to 1.

        Raises:
            ValueError: there is no backbone, no such slice or no such pixel.
        """
        if not all(0 <= place < length for place, length in zip((row, column), self.image.shape, strict=True)):
            raise ValueError(f"The pixel ({row}, {column}) lies outside of the image of {self.image.shape}.")
        grid = self.patches(index)
        unit = grid / np.maximum(np.linalg.norm(grid, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
        assert self.features.deep
        deep = self.features.deep.finest
        at = [place * deep.shifts // side for place, side in zip((row, column), deep.patch, strict=True)]
        return (unit @ unit[tuple(at)]).clip(-1, 1)

    def patches(self, index: int) -> np.ndarray:
        """The backbone's features of a slice, `(h, w, D)` float32."""
        self.require_slice(index)
        if self.features.deep is None:
            raise ValueError("This segmenter has no backbone; give it one from `load_backbone`.")
        with self.background.paused():
            return self.features.patches(index)

    def region(self, rows: slice, columns: slice) -> Block:
        """Rows and columns with start and stop; raises a `ValueError` if none are left."""
        found = [slice(*span.indices(side)[:2]) for span, side in zip((rows, columns), self.image.shape, strict=True)]
        if any(span.start >= span.stop for span in found):
            raise ValueError(f"The region {rows}, {columns} has no pixels of an image of {self.image.shape}.")
        return found[0], found[1]

    def require_slice(self, index: int) -> None:
        """Raise a `ValueError` unless there is such a slice."""
        if not 0 <= index < self.image.slices:
            raise ValueError(f"There is no slice {index}; there are {self.image.slices}, counted from 0.")

    def require_learned(self) -> Learned:
        """What was learned last; raises a `NotFittedError`, which is a `ValueError`, if that is nothing."""
        if self.learned is None:
            raise NotFittedError("This session has learned nothing yet; call `learn` with labels first.")
        return self.learned


def middle_of(block: Block) -> tuple[float, float]:
    """Row and column of the middle of a block."""
    rows, columns = block
    return (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """The larger of the distances along rows and columns."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
