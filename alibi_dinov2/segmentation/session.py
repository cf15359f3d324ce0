# SPDX-License-Identifier: Apache-2.0
"""Answers while the pen moves: an image whose features are computed in the background, and a segmenter that learns.

with Session(TrainableSegmenter(load_backbone("alibi-dinov2-small")), image) as session:
    session.start(progress=lambda done, total: print(f"{done} of {total}"))
    probabilities = session.learn(scribbles).probabilities(0, slice(0, 512), slice(0, 512))
"""

from concurrent.futures import Future
from itertools import count
from threading import RLock
from typing import Any, Self

import numpy as np
from PIL import Image

from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.io.image_regions import ImageRegions, as_images, fit_contrast
from alibi_dinov2.io.labels import as_label_maps
from alibi_dinov2.io.tiles import Block
from alibi_dinov2.pictures.feature_colours import principal_components
from alibi_dinov2.segmentation.background import Background, Progress, Steps
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

CACHE_BYTES = 2**30


class Session:
    """An image, or a stack, that a segmenter learns from and segments while somebody draws on it; a context manager.

    What is computed for the image is remembered. All methods may be called from any thread.

    Args:
        segmenter: fitted or not; `learn` fits it.
        image: what `TrainableSegmenter.predict` takes: `(H, W)`, `(H, W, C)`, a stack, a PIL image, an open file.
        cache_bytes: of features that are kept in memory at most.

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
        segmenter.deep_features()
        self.segmenter = segmenter
        given = as_images(image)
        self.contrast = fit_contrast(given, getattr(segmenter, "contrast_", segmenter.contrast))
        (self.image,) = as_images(given, self.contrast)
        self.caches = (segmenter.cache or MemoryCache(cache_bytes // 2), MemoryCache(cache_bytes // 2))
        self.lock = RLock()
        self.place: Block | None = None
        self.background = Background("alibi-dinov2 session")

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
            block: rows and columns; none for the whole slice.
        """
        self.place = block

    def start(self, index: int = 0, focus: Block | None = None, progress: Progress | None = None) -> "Future[None]":
        """Compute the features of a slice in the background.

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
        return self.background.submit(self.features_steps(index), progress)

    def features_steps(self, index: int) -> Steps[None]:
        """The windows of a slice, one after the other."""
        with self.lock:
            deep = self.segmenter.deep_features()
            windows = deep.windows(self.image, index, self.caches[0]) if deep else iter(())
        for number in count(1):
            with self.lock:
                if next(windows, None) is None:
                    break
            yield number, number

    def pca(self, index: int) -> np.ndarray:
        """The first three principal components of a slice's patches as standard scores, `(h, w, 3)` float64.

        Raises:
            ValueError: there is no backbone, no such slice, or there are fewer than 3 patches.
        """
        return principal_components([self.grid(index)])[0]

    def similarity(self, index: int, row: int, column: int) -> np.ndarray:
        """Cosine similarity of every patch of a slice to the patch at a pixel, `(h, w)` float32, -1 to 1.

        Raises:
            ValueError: there is no backbone, no such slice or no such pixel.
        """
        grid = self.grid(index)
        if not all(0 <= place < length for place, length in zip((row, column), self.image.shape, strict=True)):
            raise ValueError(f"The pixel ({row}, {column}) lies outside of the image of {self.image.shape}.")
        unit = grid / np.maximum(np.linalg.norm(grid, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
        place = [
            at * patches // pixels
            for at, patches, pixels in zip((row, column), grid.shape[:2], self.image.shape, strict=True)
        ]
        return unit @ unit[tuple(place)]

    def grid(self, index: int) -> np.ndarray:
        """The backbone's features of a slice, `(h, w, D)` float32."""
        self.require_slice(index)
        with self.lock:
            deep = self.segmenter.deep_features()
            if deep is None:
                raise ValueError("This segmenter has no backbone; give it one from `load_backbone`.")
            shape = [
                -(-pixels // side) * deep.shifts for pixels, side in zip(self.image.shape, deep.patch, strict=True)
            ]
            grid = None
            for row, column, features in deep.windows(self.image, index, self.caches[0]):
                grid = np.zeros((*shape, features.shape[-1]), np.float32) if grid is None else grid
                part = grid[row * deep.shifts :, column * deep.shifts :][: len(features), : features.shape[1]]
                part[...] = features[: len(part), : part.shape[1]]
        assert grid is not None
        return grid

    def learn(self, labels: Any) -> Self:
        """Fit the segmenter to labels, as `TrainableSegmenter.fit` does on the slices that have some.

        Args:
            labels: `(H, W)`, of a stack `(slices, H, W)`: 0 unlabelled, 1 to 255 classes.

        Raises:
            ValueError: what `TrainableSegmenter.fit` raises.
        """
        maps = as_label_maps(labels, [self.image])
        pages = [(index, page) for index, page in enumerate(maps) if page.any()]
        with self.lock:
            slices = [OneSlice(self.image, index) for index, _ in pages] or [self.image]
            self.segmenter.learn(slices, [page for _, page in pages] or maps, self.contrast, self.caches)
        return self

    def probabilities(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """Probabilities of the classes in a region of a slice that lies inside it, `(h, w, K)` float32.

        Raises:
            NotFittedError: nothing was learned yet.
            ValueError: there is no such slice or region.
        """
        self.segmenter.require_fitted()
        self.require_slice(index)
        rows, columns = self.region(rows, columns)
        with self.lock:
            features = self.segmenter.features_
            found = features.block(self.image, index, (rows, columns), features.grid(self.image, index))
            flat = self.segmenter.classifier_.predict_proba(found.reshape(-1, found.shape[-1]))
        return flat.reshape(*found.shape[:2], -1)

    def predict_slice(self, index: int, progress: Progress | None = None) -> "Future[np.ndarray]":
        """The class of every pixel of a slice, of the segmenter's `classes_`, in the background.

        Args:
            index: of the slice.
            progress: called in the background with how many of how many blocks are done.

        Returns:
            A future of `(H, W)` uint8, by what was learned last when it begins.

        Raises:
            NotFittedError, ValueError: as for `probabilities`; or the session is closed.
        """
        self.segmenter.require_fitted()
        self.require_slice(index)
        return self.background.submit(self.prediction_steps(index), progress)

    def prediction_steps(self, index: int) -> Steps[np.ndarray]:
        mask = np.zeros(self.image.shape, dtype=np.uint8)
        with self.lock:
            blocks = self.segmenter.features_.blocks(self.image.shape)
        for number, block in enumerate(blocks, 1):
            classes = self.segmenter.classes_
            mask[block] = classes[self.probabilities(index, *block).argmax(axis=-1)]
            yield number, len(blocks)
        return mask

    def region(self, rows: slice, columns: slice) -> Block:
        """Rows and columns with start and stop; raises a `ValueError` if none are left."""
        found = tuple(
            slice(*span.indices(length)[:2]) for span, length in zip((rows, columns), self.image.shape, strict=True)
        )
        if any(span.start >= span.stop for span in found):
            raise ValueError(f"The region {rows}, {columns} has no pixels of an image of {self.image.shape}.")
        return found[0], found[1]

    def require_slice(self, index: int) -> None:
        """Raise a `ValueError` unless there is such a slice."""
        if not 0 <= index < self.image.slices:
            raise ValueError(f"There is no slice {index}; there are {self.image.slices}, counted from 0.")


class OneSlice:
    """A slice of a stack as an image."""

    slices = 1

    def __init__(self, image: ImageRegions, index: int) -> None:
        self.image, self.index, self.shape = image, index, image.shape

    def read(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """A region, as `ImageRegions.read`."""
        return self.image.read(self.index, rows, columns)
