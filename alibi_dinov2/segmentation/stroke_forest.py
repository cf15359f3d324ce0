# SPDX-License-Identifier: Apache-2.0
"""Trees for strokes: each sees a part of the labelled pixels in one view of the features, and views earn their trees.

The pixels of a stroke are neighbours and say nearly the same, so that a few strokes are far fewer examples than they
have pixels: a tree sees one labelled pixel in five, as many of each class. And what tells the classes apart in the
images with strokes need not do so in the next one, which may be brighter: a view is a part of the features, such as all
but those that grow with the brightness, and gets as many trees as it has shown to deserve. To find out, forests of each
view learn from some of the images and predict the strokes of the others; the weights are those of the mixture of their
predictions that makes the labels most likely, found by expectation maximisation (a linear opinion pool). The trees are
extremely randomised ones (Geurts et al., 2006): thresholds drawn at random differ more than the best ones of so few
pixels, and need no sorting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn import config_context
from sklearn.tree import DecisionTreeRegressor

TREES = 100  # of the forest, all views together
MOST = 200  # pixels of a class that a tree sees, so that a fit stays quick when there are many strokes
FOLDS = 2  # that images are divided into
LEAST = 0.01  # that a prediction counts as, so that one pixel that a view was sure of does not decide
STROKE = 25  # labelled pixels that count as one independent observation
STEPS = 50  # of expectation maximisation; the weights have settled by then

View = np.ndarray  # (V,) integers, the features that it has


@dataclass(frozen=True)
class Growth:
    """How trees grow and views earn them; `evaluation.segmentation.benchmark --trials forests` compares some ways.

    Attributes:
        share: of the labelled pixels that a tree sees, in (0, 1].
        features: that are looked at for a split: a share of those of the view, or `"sqrt"` of their number.
        thresholds: `"random"` ones of these features, of which the best splits (extremely randomised trees), or the
            `"best"` ones.
        trial_trees: of each view and fold while weights are found.
        prior: pixels that each view is given beforehand, of as many as there are strokes.
    """

    share: float = 0.2
    features: float | Literal["sqrt"] = 0.5
    thresholds: Literal["random", "best"] = "random"
    trial_trees: int = 12
    prior: float = 1.0


USUAL = Growth()


def fit_trees(
    features: np.ndarray,
    classes: np.ndarray,
    images: np.ndarray | None,
    views: Sequence[View],
    seed: int,
    growth: Growth = USUAL,
) -> tuple[list[DecisionTreeRegressor], list[View]]:
    """Trees, and the view of each; all trees count the same.

    Args:
        features: `(N, F)` float32.
        classes: `(N,)` integers 0 to K − 1, each at least once.
        images: `(N,)` integers, which image a pixel is of. If they are not given, or leave no classes to learn when one
            is left out, all views get as many trees.
        views: the features of each, one or more.
        seed: of everything random.
        growth: how trees grow.
    """
    random = np.random.default_rng(seed)
    weights = view_weights(features, classes, images, views, random, growth)
    counts = shares_of(TREES, weights)
    trees = [
        tree
        for view, count in zip(views, counts, strict=True)
        for tree in grow(features[:, view], classes, count, random, growth)
    ]
    return trees, [view for view, count in zip(views, counts, strict=True) for _ in range(count)]


def grow(
    features: np.ndarray, classes: np.ndarray, count: int, random: np.random.Generator, growth: Growth
) -> list[DecisionTreeRegressor]:
    """Trees, each on a share of the pixels, drawn with replacement, as many of each class and at least one.

    Squares of the distance to shares of classes make the same trees as Gini's impurity, and are found in less time than
    scikit-learn needs to look through the classes of every tree.
    """
    members = [np.flatnonzero(classes == number) for number in range(int(classes.max()) + 1)]
    each = min(max(round(growth.share * len(classes) / len(members)), 1), MOST)
    shares = np.eye(len(members))[classes]
    trees = []
    with config_context(skip_parameter_validation=True):  # it takes as long as a small tree
        for _ in range(count):
            chosen = np.concatenate([random.choice(of_class, each) for of_class in members])
            tree = DecisionTreeRegressor(
                splitter=growth.thresholds, max_features=growth.features, random_state=int(random.integers(2**31))
            )
            trees.append(tree.fit(features[chosen], shares[chosen], check_input=False))
    return trees


def view_weights(
    features: np.ndarray,
    classes: np.ndarray,
    images: np.ndarray | None,
    views: Sequence[View],
    random: np.random.Generator,
    growth: Growth,
) -> np.ndarray:
    """What each view deserves by its predictions of images that it has not learned from, `(len(views),)`, adding up
    to 1."""
    equal = np.full(len(views), 1 / len(views))
    if images is None or len(views) == 1:
        return equal
    likely, targets = [], []
    for held_out in folds_of(images):
        learned = ~held_out
        if len(np.unique(classes[learned])) <= classes.max():
            continue  # a class would be unknown
        targets.append(classes[held_out])
        likely.append(
            np.stack(
                [
                    chance(
                        grow(features[learned][:, view], classes[learned], growth.trial_trees, random, growth),
                        features[held_out][:, view],
                        targets[-1],
                    )
                    for view in views
                ]
            )
        )
    if not likely:
        return equal
    return mixture_weights(np.concatenate(likely, axis=1), np.concatenate(targets), growth.prior)


def folds_of(images: np.ndarray) -> Iterator[np.ndarray]:
    """Which pixels `(N,)` are held out together: those of every second image; none if there is one image alone."""
    numbers, of_pixel = np.unique(images, return_inverse=True)
    for fold in range(FOLDS if len(numbers) > 1 else 0):
        yield of_pixel % FOLDS == fold


def chance(trees: Sequence[DecisionTreeRegressor], features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The probability that a forest gives the right class of each pixel, `(N,)`."""
    pixels = np.ascontiguousarray(features)
    shares = sum(tree.tree_.predict(pixels).reshape(len(pixels), -1) for tree in trees)
    return (shares / shares.sum(axis=1, keepdims=True))[np.arange(len(classes)), classes]


def mixture_weights(likely: np.ndarray, classes: np.ndarray, prior: float) -> np.ndarray:
    """The weights `(V,)` of the mixture that makes labels most likely, all classes counting the same.

    Args:
        likely: the probability that each of V views gave the right class of each pixel, `(V, N)`.
        classes: of the pixels, `(N,)`.
        prior: see `Growth`.
    """
    counts = np.bincount(classes)
    of_pixel = 1 / counts[classes] / np.count_nonzero(counts) * len(classes) / STROKE
    likely = np.maximum(likely, LEAST)
    weights = np.full(len(likely), 1 / len(likely))
    for _ in range(STEPS):
        shares = likely * weights[:, None]
        found = (shares / shares.sum(axis=0)) @ of_pixel + prior
        weights = found / found.sum()
    return weights


def shares_of(total: int, weights: np.ndarray) -> np.ndarray:
    """Integers that add up to `total` and are nearest to its weighted shares."""
    ends = np.round(np.cumsum(weights / weights.sum()) * total).astype(int)
    return np.diff(ends, prepend=0)
