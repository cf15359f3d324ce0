# SPDX-License-Identifier: Apache-2.0
"""Deep features of pixels from an image that the backbone sees at several scales.

At half its size, an image shows a backbone twice as much around each place, and materials whose grains are larger than
a patch look as they do to it elsewhere. Beside the features of the image as it is, those of the image at half its size
raised the mean over the data sets of `evaluation.segmentation.benchmark`, though not each of them (docs/results.md).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

import numpy as np

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.deep_features import DeepFeatures, Reduction
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache
from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.tiles import Block

SCALES = (1, 2)


class Place(NamedTuple):
    """Where a window lies.

    Attributes:
        number: of its scale among the scales, from 0.
        row, column: in patches of that scale.
    """

    number: int
    row: int
    column: int


Windows: TypeAlias = Callable[[int], Iterable[tuple[int, int, np.ndarray]]]


@dataclass(frozen=True)
class MultiScaleFeatures:
    """How deep features of pixels are made at several scales; those of the first one come first.

    Attributes:
        scales: how they are made at each.
    """

    scales: tuple[DeepFeatures, ...]

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        components: int = DeepFeatures.components,
        window: int = DeepFeatures.window,
        overlap: int = DeepFeatures.overlap,
        shifts: int = DeepFeatures.shifts,
        per_image: bool = DeepFeatures.per_image,
        scales: Sequence[int] = SCALES,
    ) -> Self:
        """The same settings at each scale.

        Args:
            backbone, components, shifts, per_image: as of `DeepFeatures`, components of each scale.
            window, overlap: in pixels that the backbone sees: of the image, times the scale.
            scales: as `DeepFeatures.scale`, ascending.

        Raises:
            ValueError: a value is out of range.
        """
        if not scales or list(scales) != sorted(set(scales)):
            raise ValueError(
                f"The scales are {list(scales)}; give at least one, each larger than the one before, such as 1 2."
            )
        return cls(
            tuple(
                DeepFeatures(backbone, components, window * scale, overlap * scale, shifts, per_image, scale)
                for scale in scales
            )
        )

    @property
    def finest(self) -> DeepFeatures:
        """Those of the smallest patches."""
        return self.scales[0]

    @property
    def backbone(self) -> Backbone:
        """What all of them are made with."""
        return self.finest.backbone

    @property
    def fingerprint(self) -> str:
        """Of the backbone: SHA-256 of its weights and configuration."""
        return self.finest.fingerprint

    def places(self, shape: tuple[int, int]) -> list[Place]:
        """Where the windows lie that cover an image of a height and width in pixels."""
        return [Place(number, *corner) for number, deep in enumerate(self.scales) for corner in deep.places(shape)]

    def middle(self, place: Place) -> tuple[float, float]:
        """Row and column, in pixels, of the middle of a window."""
        deep = self.scales[place.number]
        height, width = deep.patch
        return place.row * height + deep.window / 2, place.column * width + deep.window / 2

    def covering(self, shape: tuple[int, int], first: np.ndarray, last: np.ndarray) -> set[Place]:
        """The windows that features of regions of an image depend on.

        Args:
            shape: height and width of the image in pixels.
            first, last: rows and columns of the first and the last pixels of the regions, `(n, 2)`.
        """
        found: set[Place] = set()
        for number, deep in enumerate(self.scales):
            patch, corners = np.array(deep.patch), np.array(deep.places(shape))
            # With the neighbours on both sides, between which features are interpolated.
            ends = np.unique(np.concatenate([first // patch - 1, last // patch + 1], axis=1), axis=0)[:, None]
            meets = (corners <= ends[..., 2:]) & (corners + deep.window // patch > ends[..., :2])
            found |= {Place(number, *corner) for corner in corners[meets.all(axis=2).any(axis=0)].tolist()}
        return found

    def window_at(self, image: ImageRegions, index: int, place: Place, cache: FeatureCache | MemoryCache) -> np.ndarray:
        """Features `(s·h, s·w, D)` float32 of a window; see `DeepFeatures.windows`."""
        return self.scales[place.number].window_at(image, index, (place.row, place.column), cache)

    def fit(
        self, images: Sequence[ImageRegions], cache: FeatureCache | MemoryCache, progress: bool = False
    ) -> tuple[Reduction, ...]:
        """Principal components of the patches of images, for each scale; see `DeepFeatures.fit`."""
        return tuple(deep.fit(images, cache, progress) for deep in self.scales)

    def fit_windows(self, windows: Windows, shapes: Sequence[tuple[int, int]]) -> tuple[Reduction, ...]:
        """Principal components of the patches of windows, for each scale; see `DeepFeatures.fit_windows`.

        Args:
            windows: gives those of a scale, by its number.
            shapes: heights and widths of the slices that they are of.
        """
        return tuple(
            deep.fit_windows((features for *_, features in windows(number)), shapes)
            for number, deep in enumerate(self.scales)
        )

    def grid(
        self,
        image: ImageRegions,
        index: int,
        reductions: Sequence[Reduction],
        cache: FeatureCache | MemoryCache,
        progress: bool = False,
    ) -> list[np.ndarray]:
        """Reduced features of a whole slice, `(s·h, s·w, n)` float32 for each scale."""
        return self.blend(
            image.shape, lambda number: self.scales[number].windows(image, index, cache, progress), reductions
        )

    def blend(self, shape: tuple[int, int], windows: Windows, reductions: Sequence[Reduction]) -> list[np.ndarray]:
        """Reduced features for each scale of an image of which some windows are there; see `DeepFeatures.blend`.

        Args:
            shape: height and width of the image in pixels.
            windows: gives those of a scale, by its number.
            reductions: from `fit`.
        """
        return [
            deep.blend(shape, windows(number), reduction)
            for number, (deep, reduction) in enumerate(zip(self.scales, reductions, strict=True))
        ]

    def upsample(self, grids: Sequence[np.ndarray], block: Block) -> Iterator[np.ndarray]:
        """Features of the pixels of a block, `(n, h, w)` float32 for each scale.

        Args:
            grids: from `grid`.
            block: rows and columns of the image.
        """
        return (deep.upsample(grid, block) for deep, grid in zip(self.scales, grids, strict=True))
