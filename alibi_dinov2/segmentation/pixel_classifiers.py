# SPDX-License-Identifier: Apache-2.0
"""Classifiers of pixels: features -> probabilities of classes, by name, saved without pickle.

The first is the default: `stroke-forest`, made for few strokes and images that differ, see `stroke_forest`. `xgboost`
is the paper's (arXiv 2603.16840).
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import safetensors.numpy
import xgboost
from safetensors import SafetensorError
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from alibi_dinov2.features.half_precision import from_ordered
from alibi_dinov2.io.files import new_file, write_json
from alibi_dinov2.segmentation.classifier_input import require_classes, require_features
from alibi_dinov2.segmentation.fast_trees import Tree, TreeSums, are_small, count_splits
from alibi_dinov2.segmentation.forest_booster import forest_booster, read_forest
from alibi_dinov2.segmentation.stroke_forest import USUAL, Growth, fit_trees

RECORD = "classifier.json"
# Depth and balanced weights are the paper's (arXiv 2603.16840, S8.3); it left the number of trees per class and the
# learning rate at XGBoost's defaults, which are these.
TREES, LEARNING_RATE, DEPTH = 100, 0.3, 8
FOREST_TREES = 100
LEAST_WEIGHT = 4  # of the pixels of a class, times the number of classes; strokes have far more
ITERATIONS = 1000  # of logistic regression, at most; 24,000 pixels of micrographs needed 231


@dataclass(frozen=True)
class Samples:
    """Labelled pixels to fit a classifier to.

    Attributes:
        features: `(N, F)` float32.
        classes: `(N,)` int64, 0 to K − 1, each of them at least once.
        images: `(N,)` integers, which image a pixel is of, if that is known.
        views: parts of the features by their numbers, `(V,)` each, that may be trusted differently; none for all.
    """

    features: np.ndarray
    classes: np.ndarray
    images: np.ndarray | None = None
    views: Sequence[np.ndarray] = ()

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.classes.max()) + 1


class PixelClassifier(ABC):
    """What maps features of pixels to probabilities of K classes.

    Attributes:
        file: what it is saved as in a folder.
        num_features, num_classes: F and K.
    """

    file: ClassVar[str]
    num_features: int
    num_classes: int

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Features `(N, F)` -> probabilities `(N, K)` float32, which add up to 1 in every row.

        Features that are float32 and contiguous are not copied by the trees.

        Raises:
            ValueError: there is another number of features, or one is NaN or infinite.
        """
        require_features(features)
        if features.shape[1] != self.num_features:
            raise ValueError(
                f"The pixels have {features.shape[1]} features; this classifier was fitted on {self.num_features}. "
                "Compute the same features as for fitting."
            )
        if len(features) == 0:
            return np.empty((0, self.num_classes), dtype=np.float32)
        return self.probabilities(np.ascontiguousarray(features, dtype=np.float32))

    def predict_columns(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of a region, `(h, w, K)` float32; the same as `predict_proba` gives.

        Args:
            columns: for each feature `(h, w)` int16, see `half_precision.to_ordered`.
        """
        rows = from_ordered(np.stack(columns, axis=-1))
        return self.predict_proba(rows.reshape(-1, len(columns))).reshape(*rows.shape[:2], -1)

    def save(self, folder: str | Path) -> None:
        """Write the classifier into a folder, with its checksum in `classifier.json`.

        Raises:
            OSError: the folder is missing or cannot be written to, or the disk is full.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; make it first.")
        content = self.to_bytes()
        with new_file(folder / self.file) as temporary:
            temporary.write_bytes(content)
        write_json(folder / RECORD, {"file": self.file, "sha256": hashlib.sha256(content).hexdigest()})

    @classmethod
    @abstractmethod
    def fit(cls, samples: Samples, seed: int, threads: int | None) -> Self:
        """Fit to samples that `fit_classifier` has checked."""

    @abstractmethod
    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """`predict_proba` of float32 features that it has checked."""

    def to_bytes(self) -> bytes:
        """The content of `file`."""
        raise NotImplementedError

    @classmethod
    def from_bytes(cls, content: bytes, threads: int | None) -> Self:
        """From what `to_bytes` gave, whose checksum was right.

        Raises:
            ValueError: it is something else all the same.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Trees(PixelClassifier):
    """Trees that XGBoost saves, and evaluates where they are large.

    Attributes:
        grown: the trees, as XGBoost has them or as `read_forest` gives them.
        threads: that XGBoost computes with, as many as there are if not given.
    """

    grown: xgboost.Booster | Sequence[tuple[Tree, np.ndarray]]
    num_features: int
    num_classes: int
    threads: int | None = None
    file = "classifier.ubj"

    @cached_property
    def booster(self) -> xgboost.Booster:
        """The trees as XGBoost has them; of a forest that takes longer to make than the forest."""
        if isinstance(self.grown, xgboost.Booster):
            return self.grown
        return forest_booster(self.grown, self.num_features, self.threads)

    @cached_property
    def sums(self) -> TreeSums | None:
        """The trees for many pixels at once; none if they are so large that XGBoost is faster."""
        if isinstance(self.grown, xgboost.Booster):
            return TreeSums.of(self.grown) if are_small(*count_splits(self.grown)) else None
        splits = sum(len(tree.left) // 2 for tree, _ in self.grown)  # every one has two children
        return TreeSums.of_trees(self.grown, np.zeros(self.num_classes)) if are_small(splits, len(self.grown)) else None

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        if self.sums:
            return self.of_sums(self.sums.of_rows(features))
        return self.of_sums(self.booster.inplace_predict(features, predict_type="margin"))

    def predict_columns(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        return self.of_sums(self.sums.of_columns(columns)) if self.sums else super().predict_columns(columns)

    @abstractmethod
    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        """Probabilities `(…, K)` from what the trees add up to."""

    def to_bytes(self) -> bytes:
        return bytes(self.booster.save_raw("ubj"))

    @classmethod
    def from_bytes(cls, content: bytes, threads: int | None) -> Self:
        try:
            with xgboost.config_context(verbosity=0):
                booster = xgboost.Booster({"nthread": threads or 0})
                booster.load_model(bytearray(content))
                num_features = booster.num_features()
                outputs = booster.inplace_predict(np.zeros((1, num_features), dtype=np.float32), strict_shape=True)
        except xgboost.core.XGBoostError as error:
            raise ValueError(f"XGBoost cannot read it: {str(error).splitlines()[0]}") from error
        if outputs.shape[1] < 2:
            raise ValueError("it is no classifier that gives a probability for each class")
        return cls(booster, num_features, outputs.shape[1], threads)


@dataclass(frozen=True)
class BoostedTrees(Trees):
    """XGBoost's gradient-boosted trees, grown on histograms, with the paper's settings and balanced classes.

    The seed changes nothing: nothing in it is random.
    """

    @classmethod
    def fit(cls, samples: Samples, seed: int, threads: int | None) -> Self:
        features, classes, num_classes = samples.features, samples.classes, samples.num_classes
        parameters = {
            "objective": "multi:softprob",
            "num_class": num_classes,
            "max_depth": DEPTH,
            "learning_rate": LEARNING_RATE,
            "tree_method": "hist",
            "seed": seed,
            "nthread": threads or 0,
        }
        weights = compute_sample_weight("balanced", classes)
        # XGBoost splits nothing whose curvature, weight times p (1 − p), is below 1: a handful of pixels weigh more.
        weights = weights * max(LEAST_WEIGHT * num_classes**2 / len(classes), 1.0)
        # A parameter `verbosity` would stay set for everybody else in the process.
        with xgboost.config_context(verbosity=0):
            matrix = xgboost.QuantileDMatrix(features, classes, weight=weights, nthread=threads)
            booster = xgboost.train(parameters, matrix, TREES)
        return cls(booster, features.shape[1], num_classes, threads)

    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        return softmax(sums, axis=-1)


@dataclass(frozen=True)
class Forest(Trees):
    """Trees of scikit-learn whose shares of classes are averaged; see `forest_booster`."""

    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        return sums / sums.sum(axis=-1, keepdims=True)  # for the rounding of a sum of many


class RandomForest(Forest):
    """scikit-learn's random forest with its own settings and balanced classes."""

    @classmethod
    def fit(cls, samples: Samples, seed: int, threads: int | None) -> Self:
        forest = RandomForestClassifier(
            FOREST_TREES, class_weight="balanced", random_state=seed, n_jobs=threads or -1
        ).fit(samples.features, samples.classes)
        num_features = samples.features.shape[1]
        views = [np.arange(num_features)] * FOREST_TREES
        return cls(read_forest(forest.estimators_, views), num_features, samples.num_classes, threads)


class StrokeForest(Forest):
    """A forest whose trees see parts of the strokes, in views of the features that have earned it; `stroke_forest`."""

    @classmethod
    def fit(cls, samples: Samples, seed: int, threads: int | None, growth: Growth = USUAL) -> Self:
        num_features = samples.features.shape[1]
        views = samples.views or (np.arange(num_features),)
        trees, seen = fit_trees(samples.features, samples.classes, samples.images, views, seed, growth)
        return cls(read_forest(trees, seen), num_features, samples.num_classes, threads)


@dataclass(frozen=True)
class LinearClassifier(PixelClassifier):
    """Logistic regression on standardised features, fitted by scikit-learn. Nothing in it is random.

    Attributes:
        mean: of the features it was fitted on, `(F,)` float32.
        weights: for features minus their mean, `(F, K)` float32.
        bias: `(K,)` float32.
    """

    mean: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    file = "classifier.safetensors"

    @property
    def num_features(self) -> int:  # type: ignore[override]
        return self.weights.shape[0]

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        return self.weights.shape[1]

    @classmethod
    def fit(cls, samples: Samples, seed: int, threads: int | None) -> Self:
        scaler = StandardScaler()
        inputs = scaler.fit_transform(samples.features.astype(np.float64))
        regression = LogisticRegression(class_weight="balanced", max_iter=ITERATIONS).fit(inputs, samples.classes)
        weights, bias = regression.coef_, regression.intercept_
        if len(weights) == 1:  # of two classes scikit-learn keeps the second's weights only; the first's are 0
            weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
        weights = (weights / scaler.scale_).T
        mean = scaler.mean_.astype(np.float32)
        bias = bias + (mean - scaler.mean_) @ weights  # makes up for what rounding took of the mean
        return cls(mean, np.ascontiguousarray(weights, dtype=np.float32), bias.astype(np.float32))

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        # The mean is not part of the bias: large features would then leave few digits of their difference.
        return softmax((features - self.mean) @ self.weights + self.bias, axis=1)

    def to_bytes(self) -> bytes:
        return safetensors.numpy.save(vars(self))

    @classmethod
    def from_bytes(cls, content: bytes, threads: int | None) -> Self:
        try:
            found = cls(**safetensors.numpy.load(content))
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"it does not hold mean, weights and bias ({error})") from error
        shapes = [array.shape for array in vars(found).values()]
        if found.weights.ndim != 2 or shapes != [(found.num_features,), found.weights.shape, (found.num_classes,)]:
            raise ValueError(f"its mean, weights and bias have the shapes {shapes}, not (F,), (F, K) and (K,)")
        return found


KINDS: Mapping[str, type[PixelClassifier]] = {
    "stroke-forest": StrokeForest,
    "xgboost": BoostedTrees,
    "random-forest": RandomForest,
    "logistic-regression": LinearClassifier,
}
CLASSIFIERS = tuple(KINDS)


def fit_classifier(
    name: str,
    features: np.ndarray,
    classes: np.ndarray,
    num_classes: int,
    seed: int = 0,
    threads: int | None = None,
    images: np.ndarray | None = None,
    views: Sequence[np.ndarray] = (),
) -> PixelClassifier:
    """Fit a classifier to labelled pixels.

    Args:
        name: one of `CLASSIFIERS`.
        features: `(N, F)`.
        classes: `(N,)` integers, 0 to K − 1, each of them at least once.
        num_classes: K, 2 or more.
        seed: of everything random.
        threads: to fit and predict with, as many as there are if not given; logistic regression leaves it to BLAS, and
            a stroke forest is fitted with one.
        images: `(N,)` integers, which image a pixel is of. A stroke forest finds out on images left out which views to
            trust.
        views: numbers of features, `(V,)` each, see `PixelFeatures.views`.

    Raises:
        ValueError: there is no such classifier; the arrays do not fit each other; a feature is NaN or infinite; a class
            is out of range or has no pixel; there are fewer than 2 classes, or fewer than 1 thread.
    """
    kind = kind_of(name, threads)
    require_features(features)
    require_classes(classes, len(features), num_classes)
    if images is not None and images.shape != classes.shape:
        raise ValueError(f"There are images of shape {images.shape} for {len(classes)} pixels; give one number each.")
    rows = np.ascontiguousarray(features, dtype=np.float32)
    return kind.fit(Samples(rows, classes.astype(np.int64), images, views), seed, threads)


def load_classifier(name: str, folder: str | Path, threads: int | None = None) -> PixelClassifier:
    """A classifier that was saved; it predicts the same to the bit.

    Args:
        name: the one that was saved.
        folder: what it was saved into.
        threads: to predict with, as in `fit_classifier`.

    Raises:
        ValueError: there is no such classifier, it cannot be saved, or a file is damaged.
        FileNotFoundError: the folder holds no such classifier.
    """
    kind = kind_of(name, threads)
    path = Path(folder) / kind.file
    for needed in (path, path.with_name(RECORD)):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing; give a folder that a classifier {name} was saved into.")
    content = path.read_bytes()
    try:
        # The checksum comes first: some damaged files abort the whole process inside XGBoost.
        record = json.loads(path.with_name(RECORD).read_text(encoding="utf-8"))
        if record != {"file": kind.file, "sha256": hashlib.sha256(content).hexdigest()}:
            raise ValueError(f"it is not the file that {RECORD} describes")
        return kind.from_bytes(content, threads)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Save the classifier again.") from error


def kind_of(name: str, threads: int | None) -> type[PixelClassifier]:
    """The class of that name; raises a `ValueError` if there is none, or fewer than 1 thread."""
    if name not in KINDS:
        raise ValueError(f"There is no classifier {name!r}; choose from {', '.join(CLASSIFIERS)}.")
    if threads is not None and threads < 1:
        raise ValueError(f"{threads} threads were asked for; give 1 or more.")
    return KINDS[name]
