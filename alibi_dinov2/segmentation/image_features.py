# SPDX-License-Identifier: Apache-2.0
"""Features of one image that is worked on: computed where they are wanted, once, and kept as long as there is room."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from threading import Lock

import numpy as np
import torch

from alibi_dinov2.features.deep_features import Reduction, Window
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache
from alibi_dinov2.features.multi_scale_features import MultiScaleFeatures, Place
from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.tiles import Block
from alibi_dinov2.segmentation.fast_trees import PIXELS
from alibi_dinov2.segmentation.labelled_pixels import LabelledPixels
from alibi_dinov2.segmentation.pixel_classifiers import PixelClassifier
from alibi_dinov2.segmentation.pixel_features import PixelFeatures, by_block, gather, has_colour

GROWTH = 1.5  # principal components are found anew when so many times the windows are there
MOST_THREADS = 4  # that classify blocks: Python, which one of them can run, is between their steps


@dataclass(frozen=True)
class Grids:
    """Reduced deep features of a slice.

    Attributes:
        patches: `(h, w, n)` float32 for each scale, 0 where no window was seen.
        places: of the windows that were seen.
        reductions: that were applied.
        number: that no others have.
    """

    patches: list[np.ndarray]
    places: frozenset[Place]
    reductions: tuple[Reduction, ...]
    number: int


@dataclass(frozen=True)
class Part:
    """A window or a block of a slice whose features are to be computed.

    Attributes:
        middle: row and column of its middle.
        compute: computes and keeps them.
    """

    middle: tuple[float, float]
    compute: Callable[[], object]


class ImageFeatures:
    """Features of the slices of an image. Threads may share it: none computes what another one is computing.

    Args:
        image: any size.
        features: which ones; unfitted, that is without reductions, if nothing was learned yet.
        cache: of the backbone's features on disk, if there is one.
        cache_bytes: that are kept in memory at most.
    """

    def __init__(
        self, image: ImageRegions, features: PixelFeatures, cache: FeatureCache | MemoryCache | None, cache_bytes: int
    ) -> None:
        self.image, self.features = image, features
        self.below = cache or MemoryCache(0)
        self.kept = MemoryCache(cache_bytes)
        self.lock, self.numbers = Lock(), count()
        self.known: dict[int, set[Place]] = {}
        self.grids: dict[int, Grids] = {}
        self.coloured: dict[tuple[int, str], bool] = {}
        self.fitted_to: dict[int, frozenset[Place]] = {}
        self.colour = features.colour

    @property
    def deep(self) -> MultiScaleFeatures | None:
        """How deep features are made, if they are."""
        return self.features.deep

    def places(self) -> list[Place]:
        """Where windows lie in each slice; nowhere without a backbone."""
        return self.deep.places(self.image.shape) if self.deep else []

    def blocks(self) -> list[Block]:
        """Rows and columns of the blocks of each slice."""
        return self.features.blocks(self.image.shape)

    def parts(self) -> int:
        """How many windows and blocks a slice has."""
        return len(self.places()) + (len(self.blocks()) if self.features.classical else 0)

    def missing(self, index: int) -> list[Part]:
        """The windows and blocks of a slice that were not computed yet, or have been forgotten."""
        parts = []
        if deep := self.deep:
            for place in self.places():
                if ("window", index, place) not in self.kept:
                    parts.append(Part(deep.middle(place), partial(self.window, index, place)))
        if self.features.classical:
            for block in self.blocks():
                if self.classical_key(index, block, self.seen_in_colour(index)) not in self.kept:
                    rows, columns = block
                    middle = ((rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2)
                    parts.append(Part(middle, partial(self.classical_ahead, index, block)))
        return parts

    def classical_ahead(self, index: int, block: Block) -> None:
        """Classical features of a block that nothing was learned from yet."""
        self.classical(index, block, self.seen_in_colour(index))

    def seen_in_colour(self, index: int) -> bool:
        """Whether labelled blocks have colour; before there are any, the first block tells."""
        return self.colour or self.block_colour(index, self.blocks()[0])

    def has_room(self) -> bool:
        """Whether another window or block can be kept without forgetting one."""
        return self.kept.bytes + self.kept.largest <= self.kept.limit

    def patches(self, index: int) -> np.ndarray:
        """The backbone's features of a slice at the finest scale, `(s·h, s·w, D)` float32; of windows that overlap,
        those of the last."""
        assert self.deep
        deep = self.deep.finest
        shape = [-(-pixels // side) * deep.shifts for pixels, side in zip(self.image.shape, deep.patch, strict=True)]
        found: np.ndarray | None = None
        for row, column, features in self.windows(index, self.places(), 0):
            found = np.empty((*shape, features.shape[-1]), dtype=np.float32) if found is None else found
            where = found[row * deep.shifts :, column * deep.shifts :][: len(features), : features.shape[1]]
            where[...] = features[: where.shape[0], : where.shape[1]]
        assert found is not None
        return found

    def window(self, index: int, place: Place) -> np.ndarray:
        """The backbone's features of a window of a slice, `(h, w, D)` float32."""
        deep = self.deep
        assert deep
        key = ("window", index, place)
        found = self.kept.get(key, lambda: deep.window_at(self.image, index, place, self.below).astype(np.float16))
        with self.lock:
            self.known.setdefault(index, set()).add(place)
        return found.astype(np.float32)

    def windows(self, index: int, places: Iterable[Place], number: int) -> Iterable[Window]:
        """Windows of a slice at a scale, by its number, as `DeepFeatures.windows` gives them, in reading order."""
        return (
            (place.row, place.column, self.window(index, place)) for place in sorted(places) if place.number == number
        )

    def is_known(self, index: int, place: Place) -> bool:
        """Whether a window has been seen."""
        with self.lock:
            return place in self.known.get(index, ())

    def over(self, region: Block) -> set[Place]:
        """The windows that features of a region depend on."""
        return self.covering(
            np.array([[span.start for span in region]]), np.array([[span.stop - 1 for span in region]])
        )

    def under(self, pixels: np.ndarray) -> set[Place]:
        """The windows that features of pixels `(n, 2)` depend on."""
        return self.covering(pixels, pixels)

    def covering(self, first: np.ndarray, last: np.ndarray) -> set[Place]:
        """The windows that features of regions depend on.

        Args:
            first, last: rows and columns of their first and their last pixels, `(n, 2)`.
        """
        return self.deep.covering(self.image.shape, first, last) if self.deep else set()

    def block_colour(self, index: int, block: Block) -> bool:
        """Whether a block has colour."""
        key = (index, str(block))
        if key not in self.coloured:
            self.coloured[key] = has_colour(self.image.read(index, *block))
        return self.coloured[key]

    def classical(self, index: int, block: Block, colour: bool) -> np.ndarray:
        """Classical features of a block, `(f, h, w)` int16; see `PixelFeatures`."""
        features = replace(self.features, colour=colour)
        assert features.classical
        classical = features.classical
        return self.kept.get(
            self.classical_key(index, block, colour),
            lambda: features.classical_planes(features.seen_pixels(classical, self.image, index, block)),
        )

    @staticmethod
    def classical_key(index: int, block: Block, colour: bool) -> tuple[object, ...]:
        """Under which classical features of a block are kept."""
        return ("classical", index, str(block), colour)

    def slice_grids(self, features: PixelFeatures, index: int, needed: set[Place]) -> Grids | None:
        """Reduced deep features of a slice; none without a backbone.

        Args:
            features: whose reductions are applied.
            index: of the slice.
            needed: windows that must have been looked at.
        """
        if features.deep is None:
            return None
        self.look_at(index, needed)
        with self.lock:
            known = frozenset(self.known.get(index, ()))
            held = self.grids.get(index)
        complete = len(known) == len(self.places())
        fits = held is not None and held.reductions is features.reductions and needed <= held.places
        if held is not None and fits and (not complete or held.places == known):
            return held
        patches = features.deep.blend(self.image.shape, partial(self.windows, index, known), features.reductions)
        grids = Grids(patches, known, features.reductions, next(self.numbers))
        with self.lock:
            if held:
                for block in self.blocks():
                    self.kept.discard(self.deep_key(index, block, held))
            self.grids[index] = grids
        return grids

    def look_at(self, index: int, places: Iterable[Place]) -> None:
        """Send windows of a slice through the backbone, if they have not been yet."""
        for place in sorted(places):
            if not self.is_known(index, place):
                self.window(index, place)

    @staticmethod
    def deep_key(index: int, block: Block, grids: Grids) -> tuple[object, ...]:
        """Under which deep features of a block are kept."""
        return ("deep", index, str(block), grids.number)

    def columns(self, features: PixelFeatures, index: int, block: Block, grids: Grids | None) -> list[np.ndarray]:
        """Features of a block, F planes `(h, w)` int16, as `PixelFeatures.columns` gives them."""
        found = list(self.classical(index, block, features.colour)) if features.classical else []
        if grids:
            patches = grids.patches
            planes = self.kept.get(self.deep_key(index, block, grids), lambda: features.deep_planes(patches, block))
            found.extend(planes)
        if features.position:
            found.extend(features.position_planes(self.image.shape, block))
        return found

    def fit(self, labelled: Sequence[LabelledPixels]) -> PixelFeatures:
        """Features fitted to the slices that have labelled pixels, and to as much of them as was seen.

        When all windows of these slices were seen, they are what a `TrainableSegmenter` fits to them.
        """
        chosen = [(found.index, found.pixels) for found in labelled]
        self.colour = any(
            self.block_colour(index, block) for index, pixels in chosen for block, _ in by_block(self.blocks(), pixels)
        )
        self.features = replace(self.features, colour=self.colour)
        if self.deep is None:
            return self.features
        for index, pixels in chosen:
            self.look_at(index, self.under(pixels))
        with self.lock:
            seen = {index: frozenset(self.known[index]) for index, _ in chosen}
        if not self.features.reductions or self.is_outgrown(seen):

            def windows(number: int) -> Iterable[Window]:
                return chain.from_iterable(self.windows(index, places, number) for index, places in seen.items())

            reductions = self.deep.fit_windows(windows, [self.image.shape] * len(seen))
            self.features, self.fitted_to = replace(self.features, reductions=reductions), seen
        return self.features

    def is_outgrown(self, seen: dict[int, frozenset[Place]]) -> bool:
        """Whether principal components should be found anew, for windows of slices that were seen."""
        if seen.keys() != self.fitted_to.keys():
            return True
        before, now = (sum(map(len, places.values())) for places in (self.fitted_to, seen))
        return now >= GROWTH * before or (now > before and now == len(seen) * len(self.places()))

    def of_pixels(self, features: PixelFeatures, labelled: Sequence[LabelledPixels]) -> np.ndarray:
        """Features of labelled pixels, `(n, F)` float32."""
        parts = []
        for found in labelled:
            grids = self.slice_grids(features, found.index, self.under(found.pixels))
            columns = partial(self.columns, features, found.index, grids=grids)
            parts.append(gather(self.blocks(), found.pixels, columns))
        return np.concatenate(parts)

    def probabilities(
        self, features: PixelFeatures, classifier: PixelClassifier, index: int, region: Block, step: int = 1
    ) -> np.ndarray:
        """Probabilities of the classes in a region of a slice, `(h, w, K)` float32.

        Args:
            features, classifier: what was learned.
            index: of the slice.
            region: rows and columns.
            step: every so many rows and columns are classified; pixels between them get what their neighbour has.
        """
        grids = self.slice_grids(features, index, self.over(region))
        lengths = [span.stop - span.start for span in region]
        looked_at = [
            np.arange(span.start + min(step // 2, length - 1), span.stop, step)
            for span, length in zip(region, lengths, strict=True)
        ]
        found = np.empty((*map(len, looked_at), classifier.num_classes), dtype=np.float32)

        def classify(batch: Sequence[tuple[Block, Block, Block]]) -> None:
            parts = [
                [plane[source] for plane in self.columns(features, index, block, grids)] for block, source, _ in batch
            ]
            columns = [
                np.concatenate([plane.reshape(1, -1) for plane in planes], axis=1)
                for planes in zip(*parts, strict=True)
            ]
            classified, start = classifier.predict_columns(columns)[0], 0
            for _, _, target in batch:
                part = found[target]
                stop = start + part.shape[0] * part.shape[1]
                part[...] = classified[start:stop].reshape(part.shape)
                start = stop

        # As many pixels as a classifier takes at once: small blocks one by one in threads would take longer, because
        # Python is between its steps.
        batches: list[list[tuple[Block, Block, Block]]] = []
        pixels = PIXELS
        for block in self.blocks():
            source, target = meeting(looked_at, block, step)
            if not found[target].size:
                continue
            if pixels >= PIXELS:
                batches.append([])
                pixels = 0
            batches[-1].append((block, source, target))
            pixels += found[target][..., 0].size
        with ThreadPoolExecutor(min(torch.get_num_threads(), MOST_THREADS)) as pool:
            list(pool.map(classify, batches))
        if step == 1:
            return found
        nearest = [
            np.minimum(np.arange(length) // step, count - 1)
            for length, count in zip(lengths, found.shape[:2], strict=True)
        ]
        return found[np.ix_(*nearest)]


def meeting(looked_at: Sequence[np.ndarray], block: Block, step: int) -> tuple[Block, Block]:
    """What is looked at of a block.

    Args:
        looked_at: rows and columns of the image, every `step` of them.
        block: rows and columns.
        step: as above.

    Returns:
        Where the rows and columns that are looked at lie in the block, and which of them these are.
    """
    targets, sources = [], []
    for places, span in zip(looked_at, block, strict=True):
        start, stop = (int(np.searchsorted(places, end)) for end in (span.start, span.stop))
        targets.append(slice(start, stop))
        inside = (places[start:stop] - span.start).tolist()
        sources.append(slice(inside[0], inside[-1] + 1, step) if inside else slice(0, 0))
    return (sources[0], sources[1]), (targets[0], targets[1])
