# SPDX-License-Identifier: Apache-2.0
"""How well a segmenter does on labels that it has not learned from: leave one image out, or one stroke of each class.

Labelled pixels are no random sample of an image: people draw where they are sure. What is measured here is whether
strokes agree with each other, mostly more than the share of right pixels in a mask; and strokes of one image agree more
with each other than with those of another.

print(validate(segmenter, images, labels).text())
"""

import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from tqdm.auto import tqdm

from alibi_dinov2.io.image_regions import ImageRegions, Images, as_images
from alibi_dinov2.io.labels import as_label_maps
from alibi_dinov2.segmentation.labelled_pixels import OneImageWarning, find_classes, require_names
from alibi_dinov2.segmentation.pixel_features import by_block
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

GROUPS = ("image", "slice", "stroke")  # what can be left out, from what says most to what says least
FOLDS = 10  # at most: more images or strokes are left out several at a time
TOUCHING = np.ones((3, 3))  # pixels of a stroke touch by a side or a corner


@dataclass(frozen=True)
class Scores:
    """Figures of each class, `(K,)` float64 from 0 to 1, NaN for one without counted pixels; `pixels` `(K,)` int64."""

    pixels: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True)
class Validation:
    """What segmenters made of the labelled pixels that each of them had not learned from.

    Attributes:
        by: what was left out: `image`, `slice` or `stroke`.
        classes: numbers of the classes, ascending, `(K,)` uint8.
        class_names: one for each.
        truth, predicted: class of each counted pixel as drawn and as predicted, `(n,)` uint8.
        images: number of the image that each is on, from 0, `(n,)` int64.
        uncounted: labelled pixels of each class that could not be counted, `(K,)` int64, because without their image,
            slice or stroke no labels of the class are left, or of fewer than two classes.
    """

    by: str
    classes: np.ndarray
    class_names: list[str]
    truth: np.ndarray
    predicted: np.ndarray
    images: np.ndarray
    uncounted: np.ndarray

    @property
    def confusion(self) -> np.ndarray:
        """Pixels by true (row) and predicted (column) class, `(K, K)` int64."""
        return confusion_matrix(self.truth, self.predicted, labels=self.classes)

    @property
    def scores(self) -> Scores:
        """Figures of each class."""
        precision, recall, f1, pixels = precision_recall_fscore_support(
            self.truth, self.predicted, labels=self.classes, zero_division=np.nan
        )
        # A class of which no pixel was counted has no score, whatever was taken for it.
        precision, recall, f1 = (np.where(pixels > 0, values, np.nan) for values in (precision, recall, f1))
        return Scores(pixels, precision, recall, f1, f1 / (2 - f1))

    @property
    def accuracy(self) -> float:
        """Share of the counted pixels that are right, 0 to 1."""
        return float(accuracy_score(self.truth, self.predicted))

    def text(self, image_names: Sequence[str] | None = None) -> str:
        """Tables for a terminal: figures of classes, the confusion table, and what share of each image is right.

        Args:
            image_names: of the images that were given; their numbers, from 1, if not given.
        """
        scores, numbers = self.scores, np.unique(self.images)
        names = image_names or [f"image {number + 1}" for number in range(numbers.max() + 1)]
        what = "one stroke of each class" if self.by == "stroke" else f"one {self.by}"
        lines = [f"Leaving out {what} at a time, {len(self.truth)} labelled pixels, {self.accuracy:.1%} of them right."]
        lines += [
            f"Not counted: {count} pixels of {name}; without their {self.by}, too few labels are left to learn it."
            for name, count in zip(self.class_names, self.uncounted, strict=True)
            if count
        ]
        figures = [scores.precision, scores.recall, scores.f1, scores.iou]
        rows = [
            [name, str(count), *(shown(value) for value in of_class)]
            for name, count, *of_class in zip(self.class_names, scores.pixels, *figures, strict=True)
        ]
        rows.append(["mean", str(scores.pixels.sum()), *(shown(np.nanmean(values)) for values in figures)])
        shares = [[names[number], *self.share_right(number)] for number in numbers]
        tables = [
            [["class", "pixels", "precision", "recall", "F1", "IoU"], *rows],
            [
                ["true \\ predicted", *self.class_names],
                *([name, *map(str, row)] for name, row in zip(self.class_names, self.confusion, strict=True)),
            ],
            *([[["image", "pixels", "right"], *shares]] if len(shares) > 1 else []),
        ]
        return "\n\n".join(["\n".join(lines), *map(table, tables)])

    def share_right(self, number: int) -> tuple[str, str]:
        """How many pixels of an image were counted, and which share of them is right."""
        here = self.images == number
        return str(here.sum()), shown(accuracy_score(self.truth[here], self.predicted[here]))


def shown(value: float) -> str:
    """A share with three decimals, a dash if there is none."""
    return "–" if np.isnan(value) else f"{value:.3f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts in columns, the first to the left, the others to the right."""
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(first), *(text.rjust(width) for text, width in zip(row[1:], others, strict=True))])
        for row in rows
    )


def validate(
    segmenter: TrainableSegmenter, images: Images, labels: Any, by: str | None = None, folds: int = FOLDS
) -> Validation:
    """Fit segmenters of the same settings on a part of the labels each, and compare them with the rest.

    An image that is left out has no part in anything that is fitted, principal components and contrast included. The
    given segmenter stays as it is; features that it remembers are used.

    Args:
        segmenter: whose settings are validated; it need not be fitted.
        images, labels: as for `TrainableSegmenter.fit`.
        by: what is left out: `image`, `slice` or `stroke` (pixels of a class that touch); if not given, the first of
            these of which there are two or more with labels.
        folds: times that something is left out, at most, 2 or more. Up to so many images or slices each are left out
            alone, and so are the strokes of a class, together with one of every other class.

    Raises:
        ValueError: as `fit`; there is nothing of that kind to leave out; a number is out of range; or no class has
            labels on two or more of what is left out.
    """
    sources = as_images(images)
    maps = as_label_maps(labels, sources)
    classes = find_classes(maps)
    places = [(number, index) for number, source in enumerate(sources) for index in range(source.slices)]
    require_names(classes, segmenter.class_names)
    by = by or widest(maps, places)
    if by not in GROUPS:
        raise ValueError(f"What is left out is {by!r}; it must be one of {', '.join(GROUPS)}.")
    if folds < 2:
        raise ValueError(f"{folds} folds were asked for; it takes 2 or more.")
    groups = number_strokes(maps) if by == "stroke" else number_places(maps, places, by)
    count = 1 + max(int(numbers.max()) for numbers in groups)
    if count < 2:
        there = "two strokes of a class" if by == "stroke" else f"labels on two {by}s"
        raise ValueError(f"No {by} can be left out, because nothing would be left: there must be {there}.")
    trial = copy(segmenter).set_params(class_names=None)
    truth, predicted, owners = ([np.zeros(0, dtype=kind)] for kind in (np.uint8, np.uint8, np.int64))
    for fold in tqdm(range(min(count, folds)), f"leaving out one {by}", unit="fit", disable=not segmenter.progress):
        chosen = [(numbers >= 0) & (numbers % folds == fold) for numbers in groups]
        rest = [np.where(out, 0, page) for out, page in zip(chosen, maps, strict=True)]
        left_out = {number for (number, _), out in zip(places, chosen, strict=True) if by == "image" and out.any()}
        learned = fit_rest(trial, sources, rest, [number for number in range(len(sources)) if number not in left_out])
        for (number, index), out, page in zip(places, chosen, maps, strict=True):
            known = out & np.isin(page, learned)
            if not known.any():
                continue
            (source,) = as_images([sources[number]], trial.contrast_)
            truth.append(page[known])
            predicted.append(predict_pixels(trial, source, index, np.argwhere(known)))
            owners.append(np.full(known.sum(), number))
    if len(truth) == 1:
        raise ValueError(
            f"Every class has labels on one {by} alone, so that none that has not seen it knows the class; draw "
            "strokes of each class on two or more."
        )
    names = list(segmenter.class_names or [f"class {number}" for number in classes])
    drawn, found, where = map(np.concatenate, (truth, predicted, owners))
    labelled = sum(np.bincount(page.ravel(), minlength=256) for page in maps)
    uncounted = (labelled - np.bincount(drawn, minlength=256))[classes]
    return Validation(by, classes, names, drawn, found, where, uncounted)


def widest(maps: Sequence[np.ndarray], places: Sequence[tuple[int, int]]) -> str:
    """What is left out if nobody says it: images, else slices, else strokes, of which two or more have labels."""
    labelled = [number for (number, _), page in zip(places, maps, strict=True) if page.any()]
    return "image" if len(set(labelled)) > 1 else "slice" if len(labelled) > 1 else "stroke"


def number_places(maps: Sequence[np.ndarray], places: Sequence[tuple[int, int]], by: str) -> list[np.ndarray]:
    """Labelled images, or slices, numbered from 0: maps `(H, W)` integers, −1 where nothing is drawn."""
    owners = [place[0] if by == "image" else place for place in places]
    labelled = dict.fromkeys(owner for owner, page in zip(owners, maps, strict=True) if page.any())
    numbers = {owner: number for number, owner in enumerate(labelled)}
    return [np.where(page > 0, numbers.get(owner, -1), -1) for owner, page in zip(owners, maps, strict=True)]


def number_strokes(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The strokes of each class, numbered from 0 over all slices: maps `(H, W)` int32, −1 where nothing is drawn.

    The only stroke of a class is −1, too: left out, it would only keep others from being compared with it.
    """
    found = [np.full(page.shape, -1, dtype=np.int32) for page in maps]
    for value in find_classes(maps):
        strokes = [label(page == value, TOUCHING) for page in maps]
        before = np.cumsum([0, *(count for _, count in strokes)])
        if before[-1] > 1:
            for numbers, (numbered, _), first in zip(found, strokes, before, strict=False):
                numbers[numbered > 0] = numbered[numbered > 0] - 1 + first
    return found


def fit_rest(
    trial: TrainableSegmenter, sources: Sequence[ImageRegions], rest: Sequence[np.ndarray], kept: Sequence[int]
) -> np.ndarray:
    """Fit to the labels that are left, of all slices, and the images that are; the classes learned, none or 2 or more.

    There is nothing to fit to if fewer than two classes have labels.
    """
    if len(np.unique(np.concatenate([page[page > 0] for page in rest]))) < 2:
        return np.zeros(0, dtype=np.uint8)
    ends = np.cumsum([source.slices for source in sources])
    labels = [np.stack(rest[ends[number] - sources[number].slices : ends[number]]) for number in kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneImageWarning)
        trial.fit([sources[number] for number in kept], labels)
    return trial.classes_


def predict_pixels(segmenter: TrainableSegmenter, image: ImageRegions, index: int, pixels: np.ndarray) -> np.ndarray:
    """What `predict` gives at some pixels of a slice, `(n,)` uint8, by predicting no more than is round them.

    Args:
        segmenter: fitted.
        image, index: the slice, in the contrast of the segmenter.
        pixels: rows and columns, `(n, 2)`.
    """
    found, grids = np.empty(len(pixels), dtype=np.uint8), segmenter.features_.grids(image, index)
    for _, chosen in by_block(segmenter.features_.blocks(image.shape), pixels):
        first, last = pixels[chosen].min(axis=0), pixels[chosen].max(axis=0) + 1
        box = (slice(first[0], last[0]), slice(first[1], last[1]))
        classes = segmenter.block_probabilities(image, index, box, grids).argmax(axis=-1)
        found[chosen] = segmenter.classes_[classes[tuple((pixels[chosen] - first).T)]]
    return found
