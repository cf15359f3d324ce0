# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a data set simulated users draw on, which are tested, and the features of these alone.

Features of whole images are computed once and only those of some thousand pixels are kept, so that a classifier is
tried within a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
from scipy.ndimage import label
from skimage.feature import multiscale_basic_features

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.io.image_regions import as_images
from alibi_dinov2.segmentation.labelled_pixels import LabelledPixels
from alibi_dinov2.segmentation.pixel_features import has_colour
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.segmentation.benchmark.sets import DataSet
from evaluation.segmentation.few_labels import Drawing
from evaluation.semantics.miou import VOID

TEST_PIXELS = 1000  # of each image to test on
TOUCHING = np.ones((3, 3))

Way = tuple[Drawing, int]  # how strokes are drawn, and after how many rounds


@dataclass(frozen=True)
class Labelled:
    """Labelled pixels of the images of a user.

    Attributes:
        image: which image a pixel is in, `(n,)`.
        place: where among the pixels of that image, `(n,)`.
        target: its class, `(n,)`, from 0.
        stroke: which stroke it belongs to, `(n,)`; strokes of one class that touch are one.
    """

    image: np.ndarray
    place: np.ndarray
    target: np.ndarray
    stroke: np.ndarray


@dataclass(frozen=True)
class User:
    """Somebody who draws on some images of a data set in several ways, and what comes of it.

    Attributes:
        images: `(H, W, 3)` uint8: those drawn on, then those to test on.
        drawn: how many are drawn on.
        places: rows and columns `(n, 2)` of the pixels of each that are drawn on in some way, or tested.
        labels: `(H, W)` uint8 of each image drawn on, by the way of drawing and the round, from 1.
        labelled: the labelled pixels of these.
        targets: classes of the tested pixels, of all images to test on, `(n,)`.
    """

    images: list[np.ndarray]
    drawn: int
    places: list[np.ndarray]
    labels: dict[Way, list[np.ndarray]] = field(repr=False)
    labelled: dict[Way, Labelled] = field(repr=False)
    targets: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Protocol:
    """How much is measured on each data set.

    Attributes:
        drawings: ways in which strokes are drawn.
        rounds: after which there is a figure, ascending.
        seeds: how many simulated users.
        train_images: that each of them draws on.
    """

    drawings: tuple[Drawing, ...]
    rounds: tuple[int, ...]
    seeds: int
    train_images: int

    @property
    def ways(self) -> list[Way]:
        """How strokes are drawn, and after how many rounds, in the order of the figures."""
        return [(drawing, number) for drawing in self.drawings for number in self.rounds]


def make_user(data: DataSet, seed: int, protocol: Protocol) -> User:
    """The user with a seed: which images are drawn on, and where, come from it; tested pixels are the same for all.

    Raises:
        ValueError: the data set has fewer images to draw on.
    """
    if len(data.train) < protocol.train_images:
        raise ValueError(
            f"{data.name} has {len(data.train)} images to draw on; {protocol.train_images} were asked for."
        )
    chosen = np.random.default_rng(seed).permutation(len(data.train))[: protocol.train_images].tolist()
    drawn = [data.train.pair(index) for index in chosen]
    tested = [data.test.pair(index) for index in range(len(data.test))]
    masks = [mask for _, mask in drawn]
    labels = {
        (drawing, number): maps
        for drawing in protocol.drawings
        for number, maps in enumerate(drawing.rounds_of(seed, masks), start=1)
        if number in protocol.rounds
    }
    anywhere = [np.any([maps[index] > 0 for maps in labels.values()], axis=0) for index in range(len(masks))]
    places = [np.argwhere(some) for some in anywhere] + [test_places(mask) for _, mask in tested]
    return User(
        [np.asarray(image) for image, _ in (*drawn, *tested)],
        len(drawn),
        places,
        labels,
        {way: labelled_pixels(maps, places) for way, maps in labels.items()},
        np.concatenate([mask[tuple(where.T)] for (_, mask), where in zip(tested, places[len(drawn) :], strict=True)]),
    )


def test_places(mask: np.ndarray) -> np.ndarray:
    """Rows and columns of some pixels that count, `(n, 2)`, drawn at random but always the same."""
    places = np.argwhere(mask != VOID)
    return np.random.default_rng(0).permutation(places)[:TEST_PIXELS]


def labelled_pixels(labels: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> Labelled:
    """The labelled ones among the pixels of each image."""
    images, positions, targets, strokes, count = [], [], [], [], 0
    for index, (drawn, where) in enumerate(zip(labels, places, strict=False)):
        values = drawn[tuple(where.T)]
        (found,) = np.nonzero(values)
        pieces = np.zeros(drawn.shape, dtype=int)
        for value in np.unique(values[found]):
            numbers, more = label(drawn == value, TOUCHING)
            pieces += np.where(numbers > 0, numbers + count, 0)
            count += more
        images.append(np.full(len(found), index))
        positions.append(found)
        targets.append(values[found].astype(int) - 1)
        strokes.append(pieces[tuple(where[found].T)])
    return Labelled(*map(np.concatenate, (images, positions, targets, strokes)))


@dataclass(frozen=True)
class Seen:
    """Features of the pixels of images.

    Attributes:
        features: `(n, F)` float32 of each image.
        views: parts of them, see `PixelFeatures.views`.
    """

    features: list[np.ndarray]
    views: Sequence[np.ndarray] = ()


# Images, places in each, and how many of the images are drawn on -> what is seen at these places.
Features = Callable[[Sequence[np.ndarray], Sequence[np.ndarray], int], Seen]


@dataclass(frozen=True)
class SegmenterFeatures:
    """What a `TrainableSegmenter` sees of pixels: of a backbone, of filters, or of both.

    Attributes:
        backbone, classical, cache: as of the segmenter.
        settings: others of the segmenter, as JSON values.
    """

    backbone: Backbone | None
    classical: ClassicalFeatures | None
    cache: FeatureCache
    settings: dict[str, object] = field(default_factory=dict)

    @cached_property
    def segmenter(self) -> TrainableSegmenter:
        """One for all users, which remembers what it has computed."""
        return TrainableSegmenter(self.backbone, self.classical, cache=self.cache, **self.settings)  # type: ignore[arg-type]

    def __call__(self, images: Sequence[np.ndarray], places: Sequence[np.ndarray], drawn: int) -> Seen:
        sources = as_images(list(images))
        labelled = [
            LabelledPixels(source, 0, where, np.ones(len(where), dtype=np.uint8))
            for source, where in zip(sources[:drawn], places, strict=False)
        ]
        features = self.segmenter.fit_features(sources[:drawn], labelled, self.segmenter.deep_features())
        found = [features.of_pixels(source, 0, where) for source, where in zip(sources, places, strict=True)]
        return Seen(found, features.views())

    @property
    def facts(self) -> object:
        """What the features depend on, as JSON values."""
        segmenter, deep = self.segmenter, self.segmenter.deep_features()
        scales = deep and [segmenter.per_image, list(segmenter.scales)]
        classical = self.classical and asdict(self.classical)
        return [deep and deep.fingerprint, scales, classical, self.settings]


def scikit_image_features(images: Sequence[np.ndarray], places: Sequence[np.ndarray], drawn: int) -> Seen:
    """Those of scikit-image's example of trainable segmentation: intensity and texture, sigma 1 to 16."""
    colour = any(map(has_colour, images[:drawn]))
    found = []
    for image, where in zip(images, places, strict=True):
        seen = image if colour else image[..., :1]
        features = multiscale_basic_features(seen, edges=False, sigma_min=1, sigma_max=16, channel_axis=-1)
        found.append(features[tuple(where.T)].astype(np.float32))
    return Seen(found)
