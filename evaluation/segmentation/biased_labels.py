# SPDX-License-Identifier: Apache-2.0
"""Whether a segmenter that learns from one-sided labels learns the sides (figure 7 of arXiv 2603.16840).

    python -m evaluation.segmentation.biased_labels --models teacher nope alibi --names DINOv2 NoPE ALiBi \\
        --image data/biased_labels/nickel_on_substrate.png \\
        --labels data/biased_labels/nickel_on_substrate_labels.png --output-folder records --figure biased.png

A few labels in one place of a homogeneous material confound class and position. Segmenters are fitted on them with deep
features, with classical and deep features, and with classical features alone. Of each prediction of the whole image
there are the following figures; in a record their names begin with `deep/`, `combined/` and `classical/`.

    position_explains     of the pixels where place and content disagree when the image is rolled by half its height,
                          half its width and both, the fraction that keeps the class of the place; and
    content_explains      that keeps the class of the content (as in `evaluation.position.clusters`). Of two classes
                          they add up to 1
    position_d2           fraction of the deviance of the prediction that x, y, their squares and their product explain
                          in logistic regression, on blocks of the image that were held out; 0 is none, 1 all, below 0
                          worse than the class fractions
    position_d2_linear    the same for x and y alone
    fraction_left         of the first class, in the left half of the image, and
    fraction_right        in the right half. In a homogeneous material they are alike, and
    halves_difference     the absolute difference is small
    classical_kappa       agreement beyond chance (Cohen's kappa) with the prediction from classical features alone,
                          which know nothing of position: one that position does not explain may still be nonsense

What a model knows of position is where a patch is in the window that it sees (`--window`).
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import d2_log_loss_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.overlays import blend
from alibi_dinov2.pictures.panels import Tile, image_tile, panel, save_figure
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.command import feature_cache, named_backbones, run_records
from evaluation.position.clusters import ImageClusters, count_conflicts, summarise
from evaluation.report.records import DatasetFacts, Stopwatch, data_name, describe_images, make_record
from evaluation.segmentation.comparison import CLASSICAL, labelled_image_parser, segmenter_settings, with_versions
from evaluation.semantics.miou import confusion_matrix
from evaluation.semantics.segmentation_data import read_mask

STEP = 14  # pixels between those that position is to explain: predictions of neighbours are nearly the same
BLOCKS, FOLDS = 8, 5  # blocks along each side of the image, which are divided into folds
FILTERS = ClassicalFeatures(membrane=True)  # as in the paper


def explained_by_position(prediction: np.ndarray, degree: int, seed: int = 0) -> float:
    """How much of a class map a logistic regression on polynomials of x and y explains, on held-out blocks.

    Args:
        prediction: `(H, W)` integers.
        degree: of the polynomials.
        seed: of the division of blocks into folds.

    Returns:
        The fraction of the deviance that is explained, at most 1; 0 if there is only one class, so nothing to explain.
    """
    places = np.moveaxis(np.indices(prediction.shape)[:, STEP // 2 :: STEP, STEP // 2 :: STEP], 0, -1).reshape(-1, 2)
    classes = prediction[tuple(places.T)]
    # Of a class with fewer pixels than folds, some fold has none.
    numbers, counts = np.unique(classes, return_counts=True)
    kept = np.isin(classes, numbers[counts >= FOLDS])
    places, classes = places[kept], classes[kept]
    if len(np.unique(classes)) < 2:
        return 0.0
    row, column = (places * BLOCKS // prediction.shape).T
    model = make_pipeline(PolynomialFeatures(degree, include_bias=False), LogisticRegression(max_iter=1000))
    probabilities = cross_val_predict(
        model,
        2 * places / prediction.shape - 1,
        classes,
        groups=row * BLOCKS + column,
        cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed),
        method="predict_proba",
    )
    return float(d2_log_loss_score(classes, probabilities))


def roll_conflicts(segmenter: TrainableSegmenter, image: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """`clusters.count_conflicts`, `(4,)`, of the prediction of an image, over rolls by half of one side and of both."""
    down, right = (side // 2 for side in prediction.shape)
    shifts = ((down, 0), (0, right), (down, right))
    return np.sum(
        [
            count_conflicts(prediction, segmenter.predict(rolled), np.roll(prediction, shift, axis=(0, 1)))
            for shift, rolled in ((shift, np.roll(image, shift, axis=(0, 1))) for shift in shifts)
        ],
        axis=0,
    )


def describe_prediction(
    prediction: np.ndarray, conflicts: np.ndarray, labels: np.ndarray, classical: np.ndarray, seed: int = 0
) -> dict[str, float]:
    """The figures of a prediction, as at the head of this file.

    Args:
        prediction: `(H, W)`, classes from 1.
        conflicts: from `roll_conflicts`.
        labels: `(H, W)` that the segmenter was fitted on.
        classical: `(H, W)`, the prediction from classical features alone.
        seed: of `explained_by_position`.
    """
    first = prediction == labels[labels > 0].min()
    left, right = (float(half.mean()) for half in np.array_split(first, 2, axis=1))
    return {
        **summarise([ImageClusters(prediction, conflicts)]),
        "position_d2": explained_by_position(prediction, 2, seed),
        "position_d2_linear": explained_by_position(prediction, 1, seed),
        "fraction_left": left,
        "fraction_right": right,
        "halves_difference": abs(left - right),
        "classical_kappa": kappa(prediction, classical),
    }


def kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa of two class maps of the same shape: 1 if they are alike, 0 if they agree as often as by chance."""
    matrix = confusion_matrix(one, other, 1 + max(int(one.max()), int(other.max()))) / one.size
    agreement, chance = np.trace(matrix), matrix.sum(axis=0) @ matrix.sum(axis=1)
    return float((agreement - chance) / (1 - chance)) if chance < 1 else 0.0


@dataclass(frozen=True)
class Segmentation:
    """A prediction `(H, W)` uint8, classes from 1, and its figures by the names that records use."""

    prediction: np.ndarray
    figures: dict[str, float]


def measure(
    backbone: Backbone,
    classical: Segmentation,
    image: np.ndarray,
    labels: np.ndarray,
    dataset: DatasetFacts,
    cache: FeatureCache,
    seed: int = 0,
    **settings: Any,
) -> tuple[dict[str, Any], Segmentation, Segmentation]:
    """Image and labels -> segmenters -> result record, with deep features alone, and with classical and deep features.

    Args:
        backbone: from `load_backbone`.
        classical: from `segment` with classical features alone.
        image, labels, cache, seed, settings: as for `segment`.
        dataset: facts of the image.

    Raises:
        ValueError: as `segment`.
    """
    stopwatch = Stopwatch()
    found = {"deep": segment(image, labels, backbone, None, classical, cache=cache, seed=seed, **settings)}
    found["combined"] = segment(image, labels, backbone, FILTERS, classical, cache=cache, seed=seed, **settings)
    metrics = {
        f"{features}/{name}": value
        for features, segmentation in (found | {CLASSICAL: classical}).items()
        for name, value in segmentation.figures.items()
    }
    digest = hashlib.sha256(labels.tobytes()).hexdigest()
    parameters = {"labels_sha256": digest, CLASSICAL: asdict(FILTERS), **settings}
    record = make_record("biased_labels", metrics, dataset, backbone, parameters, seed, stopwatch)
    return with_versions(record), found["deep"], found["combined"]


def segment(
    image: np.ndarray,
    labels: np.ndarray,
    backbone: Backbone | None,
    filters: ClassicalFeatures | None,
    classical: Segmentation | None = None,
    seed: int = 0,
    **settings: Any,
) -> Segmentation:
    """Fit a segmenter on the labels of an image and describe its prediction of the whole image.

    Args:
        image: `(H, W, 3)` uint8.
        labels: `(H, W)` uint8, 0 unlabelled, classes from 1.
        backbone, filters: for deep and for classical features, at least one of them.
        classical: what classical features alone gave, for `classical_kappa`; itself if not given.
        seed: of the classifier and of `explained_by_position`.
        settings: others of the `TrainableSegmenter`.

    Raises:
        ValueError: the labels do not fit the image, or only one class is labelled.
    """
    segmenter = TrainableSegmenter(backbone, filters, seed=seed, **settings)
    prediction = segmenter.fit(image, labels).predict(image)
    conflicts = roll_conflicts(segmenter, image, prediction)
    reference = classical.prediction if classical else prediction
    return Segmentation(prediction, describe_prediction(prediction, conflicts, labels, reference, seed))


def biased_panel(
    image: np.ndarray, labels: np.ndarray, classical: Segmentation, models: Mapping[str, Sequence[Segmentation]]
) -> Figure:
    """The labels and the predictions, each over the fraction of its pixels that follow position.

    Args:
        image: `(H, W, 3)` uint8.
        labels: `(H, W)`, 0 unlabelled.
        classical: from classical features alone.
        models: by name, from deep features alone and from both.
    """

    def tile(segmentation: Segmentation, features: str) -> Tile:
        explained = segmentation.figures.get("position_explains")
        figure = "no conflict" if explained is None else f"position {explained:.3f}"
        shares = np.full(image.shape[:2], 0.5)
        return image_tile(blend(image, segmentation.prediction, shares), f"{features}: {figure}")

    drawn = image_tile(blend(image, labels, labels > 0), "labels")
    rows = [
        [drawn, *(tile(deep, "deep") for deep, _ in models.values())],
        [tile(classical, CLASSICAL), *(tile(both, "classical + deep") for _, both in models.values())],
    ]
    return panel(rows, ["", *models])


def command(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The records that the options ask for; the picture is written on the way."""
    picture = read_image(arguments.image)
    image, labels = np.asarray(picture), read_mask(arguments.labels, str(arguments.labels))
    dataset = describe_images(data_name(arguments.image.parent), [picture])
    backbones = named_backbones(arguments)
    settings = segmenter_settings(arguments) | {"seed": arguments.seed}
    cache = feature_cache(arguments)
    classical = segment(image, labels, None, FILTERS, **settings)
    records, models = [], {}
    for backbone in tqdm(backbones, "biased labels", unit="model"):
        record, *models[backbone.name] = measure(backbone, classical, image, labels, dataset, cache, **settings)
        records.append(record)
    save_figure(biased_panel(image, labels, classical, models), arguments.figure)
    for name, segmentation in {CLASSICAL: classical, **{name: deep for name, (deep, _) in models.items()}}.items():
        print(name, *(f"{figure} {value:.3f}" for figure, value in segmentation.figures.items()), sep="\n  ")
    return records


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    return labelled_image_parser(__doc__)


def main(argv: Sequence[str] | None = None) -> None:
    run_records(make_parser(), command, argv)


if __name__ == "__main__":
    main()
