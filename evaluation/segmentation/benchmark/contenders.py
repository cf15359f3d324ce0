# SPDX-License-Identifier: Apache-2.0
"""What is compared: features and a classifier each, in groups. A peer that is a program of its own is in `programs`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRFClassifier

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS, Samples, StrokeForest, fit_classifier
from alibi_dinov2.segmentation.stroke_forest import Growth
from evaluation.segmentation.benchmark.further_features import (
    FILTERS,
    PROJECTIONS,
    FurtherFilters,
    FurtherLayer,
    StandardisedGrey,
    project,
)
from evaluation.segmentation.benchmark.pixels import Features, SegmenterFeatures, scikit_image_features

DEFAULT = CLASSIFIERS[0]
RECIPE = "scikit-image recipe"


def regularised_xgboost(seed: int, rounds: int) -> XGBClassifier:
    """XGBoost for few labels that resemble each other."""
    return XGBClassifier(
        n_estimators=rounds,
        max_depth=3,
        learning_rate=0.1,
        min_child_weight=4,
        subsample=0.5,
        colsample_bynode=0.3,
        n_jobs=1,
        random_state=seed,
    )


# Classifiers that the segmenter does not have, by name: made from a seed.
COMPARED: dict[str, Callable[[int], ClassifierMixin]] = {
    RECIPE: lambda seed: RandomForestClassifier(n_estimators=50, max_depth=10, max_samples=0.05, random_state=seed),
    "random forest, 5 % of the pixels a tree": lambda seed: RandomForestClassifier(
        100, max_samples=0.05, random_state=seed
    ),
    "extra trees": lambda seed: ExtraTreesClassifier(100, class_weight="balanced", random_state=seed),
    "regularised logistic regression": lambda seed: make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=300)
    ),
    "LDA": lambda seed: make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
    "xgboost, regularised": lambda seed: regularised_xgboost(seed, 100),
    "xgboost, random forest": lambda seed: XGBRFClassifier(
        n_estimators=100, max_depth=8, subsample=0.2, colsample_bynode=0.15, n_jobs=1, random_state=seed
    ),
}
MOST_ROUNDS = 300
STOPPED = "xgboost, regularised, stopped early"
# Forests for strokes that grow in another way.
GROWTHS = {
    "random thresholds of all features": Growth(features=1.0),
    "random thresholds of a third of the features": Growth(features=0.3),
    "random thresholds of few features": Growth(features="sqrt"),
    "best thresholds of few features": Growth(features="sqrt", thresholds="best"),
    "a tree sees 10 % of the pixels": Growth(share=0.1),
    "a tree sees 40 % of the pixels": Growth(share=0.4),
    "twice the trees in trials": Growth(trial_trees=24),
    "a weaker prior": Growth(prior=0.2),
}
EARLIER_LAYERS = (6, 9)
# Pairs whose probabilities are averaged.
AVERAGED = {f"mean of {DEFAULT} and {name}": (DEFAULT, name) for name in ("regularised logistic regression", "LDA")}


@dataclass(frozen=True)
class Contender:
    """Features and a classifier under one name.

    Attributes:
        name: what records and figures call it.
        features: their name among `feature_makers`.
        classifier: what `fit` takes.
        views: whether a stroke forest may trust parts of the features differently.
    """

    name: str
    features: str
    classifier: str = DEFAULT
    views: bool = True


def feature_makers(model: Backbone, teacher: Backbone | None, cache: FeatureCache) -> dict[str, Features]:
    """What makes the features that contenders name."""
    classical = ClassicalFeatures()
    both = SegmenterFeatures(model, classical, cache)
    makers: dict[str, Features] = {
        "both": both,
        "classical": SegmenterFeatures(None, classical, cache),
        "deep": SegmenterFeatures(model, None, cache),
        "scikit-image": scikit_image_features,
        "both, 5 components": SegmenterFeatures(model, classical, cache, {"components": 5}),
        "both, 16 components": SegmenterFeatures(model, classical, cache, {"components": 16}),
        "both, not per image": SegmenterFeatures(model, classical, cache, {"per_image": False}),
        "both, sigma to 32": SegmenterFeatures(model, ClassicalFeatures((1, 2, 4, 8, 16, 32)), cache),
        "both, sigma to 8": SegmenterFeatures(model, ClassicalFeatures((1, 2, 4, 8)), cache),
        "both, 48 components": SegmenterFeatures(model, classical, cache, {"components": 48}),
        "both, full size": SegmenterFeatures(model, classical, cache, {"scales": [1]}),
        "both, to a quarter of the size": SegmenterFeatures(model, classical, cache, {"scales": [1, 2, 4]}),
        **{f"both, layer {count}": FurtherLayer(both, count) for count in EARLIER_LAYERS},
        "both, standardised grey": StandardisedGrey(both, False),
        "both, standardised grey instead": StandardisedGrey(both, True),
        **{f"both, {name}": FurtherFilters(both, name) for name in FILTERS},
    }
    if teacher:
        makers["teacher"] = SegmenterFeatures(teacher, None, cache)
        makers["teacher and classical"] = SegmenterFeatures(teacher, classical, cache)
    return makers


def peers(model: str, teacher: bool) -> list[Contender]:
    """The segmenter, its parts, and scikit-image's recipe."""
    with_teacher = [
        Contender("teacher + classical", "teacher and classical"),
        Contender("teacher alone", "teacher"),
    ]
    return [
        Contender(f"{model} + classical", "both"),
        Contender("classical", "classical"),
        Contender(f"{model} alone", "deep"),
        *(with_teacher if teacher else []),
        Contender("scikit-image", "scikit-image", RECIPE),
    ]


# Variants of a part of the segmenter; the first of each group is what ships.
TRIALS: Mapping[str, list[Contender]] = {
    "classifiers": [
        Contender(DEFAULT, "both"),
        Contender(f"{DEFAULT} without views", "both", views=False),
        *(
            Contender(name, "both", name)
            for name in (*CLASSIFIERS[1:], *COMPARED, STOPPED, *AVERAGED)
            if name != RECIPE
        ),
    ],
    "forests": [Contender(DEFAULT, "both"), *(Contender(name, "both", name) for name in GROWTHS)],
    "features": [
        Contender("sigma 1 to 16", "both"),
        Contender("sigma 1 to 32", "both, sigma to 32"),
        Contender("sigma 1 to 8", "both, sigma to 8"),
        *(Contender(f"and {name}", f"both, {name}") for name in FILTERS),
    ],
    "joining": [
        Contender("9 components of full and half size each, views", "both"),
        Contender("9 components of each, no views", "both", views=False),
        Contender("5 components of each, views", "both, 5 components"),
        Contender("16 components of each, views", "both, 16 components"),
        Contender("not per image, views", "both, not per image"),
        *(Contender(f"{name} of 48 components of each, views", "both, 48 components", name) for name in PROJECTIONS),
        Contender("full size alone, views", "both, full size"),
        Contender("full, half and quarter size, views", "both, to a quarter of the size"),
        *(Contender(f"and 9 components of layer {count}, views", f"both, layer {count}") for count in EARLIER_LAYERS),
        Contender("and a view of standardised grey levels", "both, standardised grey"),
        Contender("standardised grey levels instead of those without brightness", "both, standardised grey instead"),
        Contender("classical alone", "classical"),
        Contender("deep alone", "deep"),
    ],
}


def stopped_early(features: np.ndarray, classes: np.ndarray, seed: int, images: np.ndarray) -> XGBClassifier:
    """Regularised XGBoost with the rounds that predicted images best whose strokes it had not seen.

    One image after the other is left out, if the others have all classes; with none it has `MOST_ROUNDS`.
    """
    losses = []
    for image in np.unique(images):
        left_out = images == image
        if set(classes[~left_out]) == set(classes):
            trial = regularised_xgboost(seed, MOST_ROUNDS)
            trial.fit(
                features[~left_out],
                classes[~left_out],
                eval_set=[(features[left_out], classes[left_out])],
                verbose=False,
            )
            ((_, curves),) = trial.evals_result().items()
            losses.append(next(iter(curves.values())))
    rounds = int(np.mean(losses, axis=0).argmin()) + 1 if losses else MOST_ROUNDS
    return regularised_xgboost(seed, rounds).fit(features, classes)


def fit(
    classifier: str,
    features: np.ndarray,
    classes: np.ndarray,
    num_classes: int,
    seed: int,
    images: np.ndarray,
    views: list[np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a classifier of the segmenter, or what it is compared with; gives its `predict_proba`.

    Args:
        classifier: its name, of `CLASSIFIERS`, `COMPARED`, `GROWTHS` or `AVERAGED`; or `STOPPED`; or one of
            `PROJECTIONS`, whose components the default classifier gets.
        features, classes, num_classes, seed, images, views: as of `fit_classifier`; every class must occur.
    """
    if classifier in CLASSIFIERS:
        return fit_classifier(classifier, features, classes, num_classes, seed, 1, images, views).predict_proba
    if classifier in PROJECTIONS:
        transform, views = project(classifier, features, classes, views)
        predict = fit(DEFAULT, transform(features), classes, num_classes, seed, images, views)
        return lambda pixels: predict(transform(pixels))
    if classifier in GROWTHS:
        samples = Samples(features, classes, images, views)
        return StrokeForest.fit(samples, seed, 1, GROWTHS[classifier]).predict_proba
    if classifier == STOPPED:
        return stopped_early(features, classes, seed, images).predict_proba
    if classifier in AVERAGED:
        pair = [fit(name, features, classes, num_classes, seed, images, views) for name in AVERAGED[classifier]]
        return lambda pixels: np.mean([predict(pixels) for predict in pair], axis=0)
    return COMPARED[classifier](seed).fit(features, classes).predict_proba
