# SPDX-License-Identifier: Apache-2.0
"""Features that the segmenter does not have, tried beside its own: filters, other layers, components from labels."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.ndimage import maximum_filter, median_filter, minimum_filter
from scipy.signal import fftconvolve
from skimage.feature import structure_tensor, structure_tensor_eigenvalues
from skimage.filters import gabor_kernel
from skimage.filters.rank import entropy
from skimage.morphology import disk
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from alibi_dinov2.features.backbone import Backbone
from evaluation.segmentation.benchmark.pixels import Seen, SegmenterFeatures

ORIENTATIONS = 8
PLS_COMPONENTS = 9  # as many as the segmenter has principal ones

Projection = Callable[[np.ndarray], np.ndarray]


def structure(grey: np.ndarray) -> list[np.ndarray]:
    """Both eigenvalues of the structure tensor, sigma 2, 4 and 8."""
    return [plane for sigma in (2, 4, 8) for plane in structure_tensor_eigenvalues(structure_tensor(grey, sigma))]


def ranges(grey: np.ndarray) -> list[np.ndarray]:
    """Largest less smallest grey level in squares of 9, 17 and 33 pixels, and the entropy in a disk of 17."""
    spans = [maximum_filter(grey, size) - minimum_filter(grey, size) for size in (9, 17, 33)]
    return [*spans, entropy((grey * 255).astype(np.uint8), disk(8))]


def medians(grey: np.ndarray) -> list[np.ndarray]:
    """Medians of squares of 5, 9 and 17 pixels."""
    return [median_filter(grey, size) for size in (5, 9, 17)]


def oriented(grey: np.ndarray) -> list[np.ndarray]:
    """Largest and smallest magnitude of Gabor filters of eight orientations, wavelengths of 4, 8 and 16 pixels."""
    planes = []
    for wavelength in (4, 8, 16):
        kernels = [gabor_kernel(1 / wavelength, np.pi * number / ORIENTATIONS) for number in range(ORIENTATIONS)]
        margin = max(max(kernel.shape) for kernel in kernels) // 2
        padded = np.pad(grey, margin, mode="reflect")
        found = [np.abs(fftconvolve(padded, kernel, mode="same")) for kernel in kernels]
        inside = (slice(margin, margin + grey.shape[0]), slice(margin, margin + grey.shape[1]))
        planes += [np.max(found, axis=0)[inside], np.min(found, axis=0)[inside]]
    return planes


FILTERS: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {
    "structure tensor": structure,
    "ranges and entropy": ranges,
    "medians": medians,
    "oriented filters": oriented,
}


def behind(seen: Seen, further: Sequence[np.ndarray], views: int) -> Seen:
    """Further features of each image, `(n, f)`, behind those that are seen, and in so many of the first views."""
    found = [
        np.concatenate([own, more.astype(np.float32)], axis=1) for own, more in zip(seen.features, further, strict=True)
    ]
    numbers = np.arange(seen.features[0].shape[1], found[0].shape[1])
    return Seen(found, [*(np.append(view, numbers) for view in seen.views[:views]), *seen.views[views:]])


@dataclass(frozen=True)
class FurtherFilters:
    """What a segmenter sees of pixels, and further filters, in every view but that of deep features alone.

    Attributes:
        own: the segmenter's, classical and deep.
        name: of `FILTERS`.
    """

    own: SegmenterFeatures
    name: str

    def __call__(self, images: Sequence[np.ndarray], places: Sequence[np.ndarray], drawn: int) -> Seen:
        seen = self.own(images, places, drawn)
        further = [
            np.stack([plane[tuple(where.T)] for plane in FILTERS[self.name](image.mean(axis=-1) / 255)], axis=-1)
            for image, where in zip(images, places, strict=True)
        ]
        return behind(seen, further, len(seen.views) - 1)

    @property
    def facts(self) -> object:
        """What the features depend on, as JSON values."""
        return [self.own.facts, self.name]


@dataclass(frozen=True)
class FurtherLayer:
    """What a segmenter sees of pixels, and deep features of an earlier layer, in every view.

    Attributes:
        own: the segmenter's, classical and deep.
        count: the layer's number, from 1.
    """

    own: SegmenterFeatures
    count: int

    @cached_property
    def layer(self) -> SegmenterFeatures:
        """Deep features of the layer alone, at full size."""
        assert self.own.backbone
        return SegmenterFeatures(of_first_layers(self.own.backbone, self.count), None, self.own.cache, {"scales": [1]})

    def __call__(self, images: Sequence[np.ndarray], places: Sequence[np.ndarray], drawn: int) -> Seen:
        seen = self.own(images, places, drawn)
        return behind(seen, self.layer(images, places, drawn).features, len(seen.views))

    @property
    def facts(self) -> object:
        """What the features depend on, as JSON values."""
        return [self.own.facts, self.layer.facts]


@dataclass(frozen=True)
class StandardisedGrey:
    """What a segmenter sees of pixels, and a view of classical features of the images with standardised grey levels,
    beside the deep ones.

    Classical features follow what is added to an image and what it is multiplied by, so that they need not be computed
    again.

    Attributes:
        own: the segmenter's, classical and deep.
        instead: whether the view takes the place of that without features that grow with the brightness.
    """

    own: SegmenterFeatures
    instead: bool

    def __call__(self, images: Sequence[np.ndarray], places: Sequence[np.ndarray], drawn: int) -> Seen:
        classical = self.own.classical
        assert classical
        seen = self.own(images, places, drawn)
        everything, without_level, deep = seen.views
        channels = int(deep[0]) // len(classical.names(1))
        level = classical.level(channels).reshape(channels, -1)
        further = []
        for own, image in zip(seen.features, images, strict=True):
            grey = image.reshape(-1, 3) if channels == 3 else image.mean(axis=-1).reshape(-1, 1)
            mean, scale = grey.mean(axis=0) / 255, np.maximum(grey.std(axis=0) / 255, 1 / 255)
            values = own[:, : deep[0]].reshape(len(own), channels, -1)
            standard = (values - level * mean[:, None]) / scale[:, None]
            further.append(standard.reshape(len(own), -1))
        # Deep features once more, which the new ones join.
        joined = behind(Seen(seen.features, [deep]), further, 1)
        kept = [everything, *([] if self.instead else [without_level]), deep]
        return Seen(joined.features, [*kept, *joined.views])

    @property
    def facts(self) -> object:
        """What the features depend on, as JSON values."""
        return [self.own.facts, "standardised grey", self.instead]


def of_first_layers(backbone: Backbone, count: int) -> Backbone:
    """A DINOv2 that ends after so many layers, with its last layer norm."""
    model = deepcopy(backbone.model)
    model.encoder.layer = model.encoder.layer[:count]
    model.config.num_hidden_layers = count
    return replace(backbone, model=model)


def partial_least_squares(deep: np.ndarray, classes: np.ndarray) -> Projection:
    """Components of deep features that vary with the classes of labelled pixels (PLS)."""
    count = min(PLS_COMPONENTS, deep.shape[1], len(deep) - 1)
    return PLSRegression(count).fit(deep, np.eye(classes.max() + 1)[classes]).transform


def discriminants(deep: np.ndarray, classes: np.ndarray) -> Projection:
    """Components of deep features that tell the classes of labelled pixels apart best, one fewer than classes (LDA)."""
    return LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(deep, classes).transform


PROJECTIONS = {"PLS": partial_least_squares, "LDA on strokes": discriminants}


def project(
    name: str, features: np.ndarray, classes: np.ndarray, views: Sequence[np.ndarray]
) -> tuple[Projection, list[np.ndarray]]:
    """Components from labels instead of deep features, behind the classical ones.

    Args:
        name: of `PROJECTIONS`.
        features: of labelled pixels, `(N, F)`.
        classes: of these.
        views: of the features, the last one the deep ones, which are the last of all.

    Returns:
        What makes new features of `(n, F)`, and their views.
    """
    deep = views[-1]
    scaler = StandardScaler().fit(features[:, deep])
    components = PROJECTIONS[name](scaler.transform(features[:, deep]), classes)

    def transform(pixels: np.ndarray) -> np.ndarray:
        new = components(scaler.transform(pixels[:, deep]))
        return np.concatenate([pixels[:, : deep[0]], new], axis=1).astype(np.float32)

    last = np.arange(deep[0], transform(features[:1]).shape[1])
    return transform, [np.append(view[view < deep[0]], last) for view in views]
