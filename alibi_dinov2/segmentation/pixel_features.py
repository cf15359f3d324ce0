# SPDX-License-Identifier: Apache-2.0
"""What a classifier sees of pixels: classical and deep features, and on request where they are, block by block."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures, Reduction
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache
from alibi_dinov2.features.position_features import position_features
from alibi_dinov2.io.image_regions import ImageRegions, read_reflected
from alibi_dinov2.io.tiles import Block, blocks

BLOCK = 512  # side in pixels of what is classified at once: features of a hundred channels take 105 MB


@dataclass(frozen=True)
class PixelFeatures:
    """How features of pixels are made, fitted to the images that are learned from.

    Attributes:
        classical: which classical features; none for deep features alone.
        deep: how deep features are made; none without a backbone.
        reduction: of the deep features, fitted; none without a backbone.
        colour: whether images are seen in colour or in grey.
        cache: of what the backbone gave.
        block_cache: of classical features of blocks, under the pixels that they depend on: a few more strokes on the
            same image are then learned within seconds.
        progress: whether to show bars.
        position: which of `POSITIONS` stand beside the other features.
        block_size: side of a block in pixels.
    """

    classical: ClassicalFeatures | None
    deep: DeepFeatures | None
    reduction: Reduction | None
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
        deep = len(self.reduction.components) if self.reduction else 0
        others = np.zeros(deep + len(self.position), dtype=bool)
        level, classical = (np.append(part, others) for part in (level, np.ones_like(level)))
        views = [np.ones_like(level), ~level, *([~classical] if deep else [])]
        return [
            np.flatnonzero(view)
            for number, view in enumerate(views)
            if view.any() and not any(np.array_equal(view, other) for other in views[:number])
        ]

    def grid(self, image: ImageRegions, index: int) -> np.ndarray | None:
        """Reduced deep features of a slice, `(h, w, n)` float32, a vector for each patch; none without a backbone."""
        if self.deep is None or self.reduction is None:
            return None
        return self.deep.grid(image, index, self.reduction, self.cache, self.progress)

    def block(
        self, image: ImageRegions, index: int, block: Block, grid: np.ndarray | None, keep: bool = False
    ) -> np.ndarray:
        """Features of the pixels of a block, `(h, w, F)` float32: classical, deep, position.

        Args:
            image, index: a slice.
            block: rows and columns.
            grid: of the slice.
            keep: whether to remember the classical ones.
        """
        parts = []
        if self.classical:
            parts.append(self.classical_block(self.classical, image, index, block, keep))
        if self.deep and grid is not None:
            parts.append(self.deep.upsample(grid, block))
        if self.position:
            parts.append(position_features(image.shape, block, self.position))
        return np.concatenate(parts, axis=-1)

    def of_slice(self, image: ImageRegions, index: int) -> Iterator[tuple[Block, np.ndarray]]:
        """The blocks of a slice and their features."""
        grid = self.grid(image, index)
        for block in self.blocks(image.shape):
            yield block, self.block(image, index, block, grid)

    def of_pixels(self, image: ImageRegions, index: int, pixels: np.ndarray) -> np.ndarray:
        """Features `(n, F)` of some pixels of a slice, whose classical ones are remembered.

        Args:
            pixels: rows and columns, `(n, 2)`, at least one.
        """
        grid, found = self.grid(image, index), None
        for block, chosen in by_block(self.blocks(image.shape), pixels):
            rows, columns = (pixels[chosen] - [span.start for span in block]).T
            part = self.block(image, index, block, grid, keep=True)[rows, columns]
            found = np.empty((len(pixels), part.shape[1]), dtype=np.float32) if found is None else found
            found[chosen] = part
        assert found is not None
        return found

    def classical_block(
        self, classical: ClassicalFeatures, image: ImageRegions, index: int, block: Block, keep: bool
    ) -> np.ndarray:
        """Classical features of a block, from it and as much of its surroundings as they depend on."""
        margin = classical.halo
        (top, bottom), (left, right) = ((span.start, span.stop) for span in block)
        size = (bottom - top + 2 * margin, right - left + 2 * margin)
        pixels = read_reflected(image, index, top - margin, left - margin, *size)
        if not self.colour:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]

        def compute() -> np.ndarray:
            return classical(pixels)[margin : size[0] - margin, margin : size[1] - margin]

        if not keep:
            return compute()
        digest = hashlib.sha256(f"{classical} {pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        return self.block_cache.get(digest, compute)


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
