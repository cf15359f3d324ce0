# SPDX-License-Identifier: Apache-2.0
"""The work behind the window, as steps for a thread: features, learning, segmenting, of one image at a time."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alibi_dinov2.io.sliced_image import SlicedImage
from alibi_dinov2.io.tiles import Block
from napari_alibi_dinov2.images import Seen
from napari_alibi_dinov2.settings import Settings, default_settings
from napari_alibi_dinov2.worker import Step, Steps, following

if TYPE_CHECKING:  # imported in the thread: PyTorch takes seconds
    from alibi_dinov2 import Session, TrainableSegmenter
    from alibi_dinov2.features.backbone import Backbone

CACHE_BYTES = 2**29  # of features in memory: a window with a stack then stays below 2.5 GB
GLANCE = 3  # pixels from one that is classified at once to the next, in what is looked at
Place = tuple[int, int, int]  # a slice, and where a block of it begins


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as it was chosen in the window.

    Attributes:
        pixels: the layer's array.
        image: the same as regions.
        seen: what of it is seen.
        settings: of the segmenter; none for the defaults, which are not known before PyTorch is there.
    """

    pixels: Any
    image: SlicedImage
    seen: Seen
    settings: Settings | None

    def is_like(self, other: "Picture | None") -> bool:
        """Whether both are of the same array, seen the same way, with the same settings."""
        return (
            other is not None
            and self.pixels is other.pixels
            and (self.seen, self.settings) == (other.seen, other.settings)
        )


@dataclass(frozen=True)
class Part:
    """Some of a slice that was segmented.

    Attributes:
        index: of the slice.
        block: rows and columns.
        classes: numbers `(h, w)` uint8.
        probabilities: `(h, w, K)` float32.
        numbers: of the K classes.
        places: the blocks of the slice that are done with it.
    """

    index: int
    block: Block
    classes: np.ndarray
    probabilities: np.ndarray
    numbers: tuple[int, ...]
    places: frozenset[Place]


class Workbench:
    """A segmenter, and a session on the image that is worked on.

    Attributes:
        session: none before the first step.
        defaults: of the settings, once PyTorch is there.
        done: blocks that were segmented, and written, since the segmenter learned last; so work that was stopped
            goes on from there.
    """

    def __init__(self) -> None:
        self.session: Session | None = None
        self.picture: Picture | None = None
        self.learned_from: Picture | None = None
        self.defaults: Settings | None = None
        self.backbones: dict[tuple[str, str], Backbone] = {}
        self.done: set[Place] = set()

    @property
    def segmenter(self) -> "TrainableSegmenter | None":
        """The one that learns, or was opened."""
        return self.session.segmenter if self.session else None

    @property
    def fitted(self) -> bool:
        """Whether it has learned."""
        return hasattr(self.segmenter, "classifier_")

    def close(self) -> None:
        """End the session's threads."""
        if self.session:
            self.session.close()
        self.session = self.picture = None

    def backbone(self, settings: Settings) -> "Backbone | None":
        """The backbone of some settings; the last one is remembered."""
        from alibi_dinov2 import load_backbone

        key = (settings.model, settings.device)
        if not settings.model:
            return None
        if key not in self.backbones:
            try:
                loaded = load_backbone(*key)
            except OSError as error:
                raise OSError(
                    f"The model {settings.model} cannot be loaded ({str(error).splitlines()[0]}). Give its folder or "
                    "Hub id under Advanced, Model, or leave that empty to use classical features alone."
                ) from error
            self.backbones = {key: loaded}
        return self.backbones[key]

    def complete(self, picture: Picture) -> "Generator[Step, None, Picture]":
        """Steps to a picture with settings."""
        if self.defaults is None:
            yield Step(0, 0, "loading PyTorch")
            self.defaults = default_settings()
        return replace(picture, settings=picture.settings or self.defaults)

    def new_segmenter(self, picture: Picture) -> "TrainableSegmenter":
        """One that has learned nothing, of the settings of a picture."""
        from alibi_dinov2 import ClassicalFeatures, FeatureCache, TrainableSegmenter
        from alibi_dinov2.features.feature_cache import DEFAULT_FOLDER

        settings = picture.settings
        assert settings is not None
        return TrainableSegmenter(
            self.backbone(settings),
            ClassicalFeatures() if settings.classical else None,
            cache=FeatureCache(DEFAULT_FOLDER) if settings.keep else None,
            contrast=picture.seen.contrast,
            channel=picture.seen.channel,
            **settings.parameters(),
        )

    def opened(self, picture: Picture, afresh: bool = False) -> "Generator[Step, None, Session]":
        """Steps to a session on a picture: the one that is open, or a new one of the segmenter that there is.

        Args:
            picture: what is worked on.
            afresh: whether the segmenter is going to learn: then one that has learned from another picture is left
                alone.
        """
        picture = yield from self.complete(picture)
        from alibi_dinov2 import Session

        same = picture.is_like(self.picture)
        stale = afresh and self.fitted and self.learned_from and not picture.is_like(self.learned_from)
        if self.session and same and not stale:
            return self.session
        yield Step(0, 0, "loading the model")
        # Another image, seen and segmented the same way: by the segmenter that there is.
        hold = self.picture and (picture.seen, picture.settings) == (self.picture.seen, self.picture.settings)
        segmenter = self.segmenter if self.segmenter and hold and not stale else self.new_segmenter(picture)
        session = Session(segmenter, picture.image, cache_bytes=CACHE_BYTES)
        self.close()
        self.session, self.picture = session, picture
        self.done.clear()
        return session

    def load(self) -> Steps:
        """Load PyTorch and the model of the defaults, so that the first strokes need not wait."""
        yield Step(0, 0, "loading PyTorch")
        self.defaults = self.defaults or default_settings()
        yield Step(0, 0, "loading the model")
        self.backbone(self.defaults)

    def features(self, picture: Picture, index: int, focus: Block | None) -> Steps:
        """Compute the features of a slice, so that learning is quick."""
        session = yield from self.opened(picture)
        yield from following(partial(session.start, index, focus), f"features of slice {index + 1}")

    def learn(
        self,
        picture: Picture,
        labels: np.ndarray,
        names: Mapping[int, str],
        index: int,
        focus: Block | None,
        live: bool = False,
    ) -> Steps:
        """Learn from strokes, and segment the slice that is shown, what is seen of it first.

        Args:
            picture: what is worked on.
            labels: `(slices, H, W)`.
            names: of classes by number.
            index: of the slice that is shown.
            focus: rows and columns that are seen.
            live: whether a single class is no error: the next stroke will be of another.

        Returns:
            What the user still has to do, if anything.
        """
        labels = np.array(labels, dtype=np.uint8)  # strokes go on meanwhile
        found = [number for number in np.unique(labels).tolist() if number]
        if live and len(found) < 2:
            yield from self.features(picture, index, focus)
            return "draw strokes of another class"
        session = yield from self.opened(picture, afresh=True)
        for marked in [number for number, page in enumerate(labels) if page.any()]:
            begin = partial(session.start, marked, focus if marked == index else None)
            yield from following(begin, f"features of slice {marked + 1}")
        yield Step(0, 0, "learning")
        session.segmenter.set_params(class_names=[names.get(number, f"class {number}") for number in found])
        session.learn(labels)
        self.learned_from = self.picture
        self.done.clear()
        yield from self.segment(picture, [index], focus)

    def segment(self, picture: Picture, indices: Sequence[int], focus: Block | None = None) -> Steps:
        """Segment slices, but for what is done.

        Args:
            picture: what is worked on.
            indices: of the slices.
            focus: rows and columns of the first slice that come first, at once and coarsely.
        """
        session = yield from self.opened(picture)
        yield from segment(session, indices, focus, self.done)

    def open(self, folder: Path, picture: Picture) -> Steps:
        """Load a saved segmenter, and go on with it; returns the names of its classes by number."""
        picture = yield from self.complete(picture)
        from alibi_dinov2 import FeatureCache, Session, TrainableSegmenter
        from alibi_dinov2.features.feature_cache import DEFAULT_FOLDER

        yield Step(0, 0, "opening the segmenter")
        segmenter = TrainableSegmenter.load(folder, cache=FeatureCache(DEFAULT_FOLDER))
        session = Session(segmenter, picture.image, cache_bytes=CACHE_BYTES)
        self.close()
        self.session, self.picture, self.learned_from = session, picture, None
        self.done.clear()
        names = segmenter.class_names or [f"class {number}" for number in segmenter.classes_]
        return dict(zip(segmenter.classes_.tolist(), names, strict=True))

    def save(self, folder: Path) -> Steps:
        """Save the segmenter."""
        if not self.segmenter:
            raise ValueError("Nothing was learned yet; draw strokes of two classes and press Train.")
        yield Step(0, 0, "saving the segmenter")
        self.segmenter.save(folder)
        return folder

    def patch_side(self) -> float:
        """Side in pixels of what the features of a slice are of."""
        assert self.session is not None
        deep = self.session.segmenter.deep_features()
        assert deep is not None
        return deep.finest.patch[0] / deep.finest.shifts

    def components(self, picture: Picture, index: int) -> Steps:
        """The first three principal components of a slice's patches as colours, `(h, w, 3)` uint8."""
        from alibi_dinov2.pictures.feature_colours import colours

        yield from self.features(picture, index, None)
        session = yield from self.opened(picture)
        return colours([session.pca(index)])[0]

    def similarity(self, picture: Picture, index: int, row: int, column: int) -> Steps:
        """Cosine similarity of a slice's patches to the one at a pixel, `(h, w)` float32."""
        yield from self.features(picture, index, None)
        session = yield from self.opened(picture)
        return session.similarity(index, row, column)


def segment(session: "Session", indices: Sequence[int], focus: Block | None, done: set[Place]) -> Steps:
    """Segment slices of a session's image, but for the blocks that are done; gives `Part`s.

    Args:
        session: whose segmenter has learned.
        indices: of the slices.
        focus: rows and columns of the first slice that are looked at: what is there is shown at once as every third
            pixel has it, and blocks near it come first.
        done: blocks that are left out.
    """
    from alibi_dinov2.segmentation.session import distance, middle_of

    session.segmenter.require_fitted()
    blocks = session.segmenter.features_.blocks(session.image.shape)
    work = [(index, block) for index in indices for block in blocks if (index, *corner(block)) not in done]
    if not work:
        return
    # What is done of a slice stays as it is: a glance would be coarser.
    if focus and work[0][0] == indices[0] and not any(place[0] == indices[0] for place in done):
        yield from following(partial(session.start, indices[0], focus), f"features of slice {indices[0] + 1}")
        yield Step(0, len(work), "segmenting", part_of(session, indices[0], focus, GLANCE, frozenset()))
        work.sort(key=lambda task: (task[0] != indices[0], distance(middle_of(task[1]), middle_of(focus))))
    before = None
    for number, (index, block) in enumerate(work, 1):
        if index != before:  # window by window first, so that it can be stopped
            before = index
            yield from following(partial(session.start, index, focus), f"features of slice {index + 1}")
        part = part_of(session, index, block, 1, frozenset([(index, *corner(block))]))
        yield Step(number, len(work), "segmenting", part)


def part_of(session: "Session", index: int, block: Block, step: int, places: frozenset[Place]) -> Part:
    """A block of a slice, segmented; see `Session.probabilities` for the step."""
    probabilities = session.probabilities(index, *block, step)
    numbers = session.segmenter.classes_
    return Part(index, block, numbers[probabilities.argmax(axis=-1)], probabilities, tuple(numbers.tolist()), places)


def corner(block: Block) -> tuple[int, int]:
    """Where a block begins."""
    return block[0].start, block[1].start
