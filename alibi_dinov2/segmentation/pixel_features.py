# SPDX-License-Identifier: Apache-2.0
"""What a classifier sees of pixels: classical and deep features, and on request where they are, block by block."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import Reduction
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache
from alibi_dinov2.features.half_precision import from_ordered, to_ordered
from alibi_dinov2.features.multi_scale_features import MultiScaleFeatures
from alibi_dinov2.features.position_features import position_features
from alibi_dinov2.io.image_regions import ImageRegions, read_reflected
from alibi_dinov2.io.tiles import Block, blocks

BLOCK = 512  # side in pixels of what is classified at once: features of a hundred channels take 52 MB


@dataclass(frozen=True)
class PixelFeatures:
    """How features of pixels are made, fitted to the images that are learned from.

    Features are rounded to half precision, so that those that are kept are the same as those that are not. A block of
    them is `(F, h, w)` int16, a plane for each feature, see `half_precision.to_ordered`; trees take them as they are.

    Attributes:
        classical: which classical features; none for deep features alone.
        deep: how deep features are made; none without a backbone.
        reductions: of the deep features at each scale, fitted; none without a backbone, or before.
        colour: whether images are seen in colour or in grey.
        cache: of what the backbone gave.
        block_cache: of classical features of blocks, under the pixels that they depend on: those that were learned from
            are there when more strokes come, and when the image is segmented.
        progress: whether to show bars.
        position: which of `POSITIONS` stand beside the other features.
        block_size: side of a block in pixels.
    """

    classical: ClassicalFeatures | None
    deep: MultiScaleFeatures | None
    reductions: tuple[Reduction, ...]
    colour: bool
    cache: FeatureCache | MemoryCache
    block_cache: MemoryCache
    progress: bool = False
    position: tuple[str, ...] = ()
    block_size: int = BLOCK

    def blocks(self, shape: tuple[int, int]) -> list[Block]:
        """Rows and columns of the blocks of an image of that height and width."""
        return blocks(shape, self.block_size)

    def views(self) -> list[np.ndarray]:
        """Parts of the features, by their numbers, that may be trusted differently in images without labels.

        All of them; all that a change of the brightness leaves as they are; and, if there are deep ones, all but the
        classical ones. Position is in every view: who asks for it trusts it.
        """
        level = self.classical.level(3 if self.colour else 1) if self.classical else np.zeros(0, dtype=bool)
        deep = sum(len(reduction.components) for reduction in self.reductions)
        others = np.zeros(deep + len(self.position), dtype=bool)
        level, classical = (np.append(part, others) for part in (level, np.ones_like(level)))
        views = [np.ones_like(level), ~level, *([~classical] if deep else [])]
        return [
            np.flatnonzero(view)
            for number, view in enumerate(views)
            if view.any() and not any(np.array_equal(view, other) for other in views[:number])
        ]

    def grids(self, image: ImageRegions, index: int) -> list[np.ndarray]:
        """Reduced deep features of a slice, `(h, w, n)` float32 for each scale, a vector for each patch; none without a
        backbone."""
        return self.deep.grid(image, index, self.reductions, self.cache, self.progress) if self.deep else []

    def columns(
        self, image: ImageRegions, index: int, block: Block, grids: Sequence[np.ndarray], keep: bool = False
    ) -> list[np.ndarray]:
        """Features of the pixels of a block: F planes `(h, w)` int16, classical, deep, position.

        Args:
            image, index: a slice.
            block: rows and columns.
            grids: of the slice.
            keep: whether to remember the classical ones.
        """
        found: list[np.ndarray] = []
        if self.classical:
            pixels = self.seen_pixels(self.classical, image, index, block)
            digest = hashlib.sha256(f"{self.classical} {pixels.shape}".encode() + pixels.tobytes()).hexdigest()
            found.extend(self.block_cache.get(digest, lambda: self.classical_planes(pixels), keep))
        if grids:
            found.extend(self.deep_planes(grids, block))
        if self.position:
            found.extend(self.position_planes(image.shape, block))
        return found

    def block(self, image: ImageRegions, index: int, block: Block, grids: Sequence[np.ndarray]) -> np.ndarray:
        """Features of the pixels of a block, `(h, w, F)` float32; see `columns`."""
        return from_ordered(np.stack(self.columns(image, index, block, grids), axis=-1))

    def of_slice(self, image: ImageRegions, index: int) -> Iterator[tuple[Block, np.ndarray]]:
        """The blocks of a slice and their features."""
        grids = self.grids(image, index)
        for block in self.blocks(image.shape):
            yield block, self.block(image, index, block, grids)

    def of_pixels(self, image: ImageRegions, index: int, pixels: np.ndarray) -> np.ndarray:
        """Features `(n, F)` float32 of some pixels of a slice; the classical ones of their blocks are remembered.

        Args:
            pixels: rows and columns, `(n, 2)`, at least one.
        """
        grids = self.grids(image, index)
        return gather(
            self.blocks(image.shape), pixels, lambda block: self.columns(image, index, block, grids, keep=True)
        )

    def seen_pixels(self, classical: ClassicalFeatures, image: ImageRegions, index: int, block: Block) -> np.ndarray:
        """What the classical features of a block depend on, `(h + 2·halo, w + 2·halo, C)` uint8, grey or in colour."""
        margin = classical.halo
        (top, bottom), (left, right) = ((span.start, span.stop) for span in block)
        size = (bottom - top + 2 * margin, right - left + 2 * margin)
        pixels = read_reflected(image, index, top - margin, left - margin, *size)
        return pixels if self.colour else np.asarray(Image.fromarray(pixels).convert("L"))[..., None]

    def classical_planes(self, pixels: np.ndarray) -> np.ndarray:
        """Classical features of a block `(f, h, w)` int16, from what `seen_pixels` gave."""
        assert self.classical
        margin = self.classical.halo
        inside = self.classical(pixels)[margin : len(pixels) - margin, margin : pixels.shape[1] - margin]
        # PyTorch transposes matrices by blocks, NumPy goes through memory in leaps.
        planes = torch.from_numpy(to_ordered(inside)).flatten(0, 1).T.contiguous().numpy()
        return planes.reshape(-1, *inside.shape[:2])

    def deep_planes(self, grids: Sequence[np.ndarray], block: Block) -> np.ndarray:
        """Deep features of a block `(n, h, w)` int16, from the grids of its slice."""
        assert self.deep
        return np.concatenate([to_ordered(planes) for planes in self.deep.upsample(grids, block)])

    def position_planes(self, shape: tuple[int, int], block: Block) -> np.ndarray:
        """Where the pixels of a block are in an image of that height and width, `(p, h, w)` int16."""
        return to_ordered(np.moveaxis(position_features(shape, block, self.position), -1, 0))


def gather(among: list[Block], pixels: np.ndarray, columns: Callable[[Block], Sequence[np.ndarray]]) -> np.ndarray:
    """Features `(n, F)` float32 of some pixels from those of the blocks that they lie in.

    Args:
        among: blocks.
        pixels: rows and columns, `(n, 2)`, at least one.
        columns: gives the features of a block, F planes `(h, w)` int16.
    """
    found: np.ndarray | None = None
    for block, chosen in by_block(among, pixels):
        rows, across = (pixels[chosen] - [span.start for span in block]).T
        part = np.stack([plane[rows, across] for plane in columns(block)], axis=-1)
        found = np.empty((len(pixels), part.shape[1]), dtype=np.int16) if found is None else found
        found[chosen] = part
    assert found is not None
    return from_ordered(found)


def by_block(among: list[Block], pixels: np.ndarray) -> Iterator[tuple[Block, np.ndarray]]:
    """The blocks that have some of the pixels `(n, 2)`, and which of these lie in each."""
    for block in among:
        low, high = ([getattr(span, end) for span in block] for end in ("start", "stop"))
        chosen = np.flatnonzero(((pixels >= low) & (pixels < high)).all(axis=1))
        if len(chosen):
            yield block, chosen


def has_colour(pixels: np.ndarray) -> bool:
    """Whether the channels of `(h, w, 3)` pixels differ."""
    return bool((pixels != pixels[..., :1]).any())
