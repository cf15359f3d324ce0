# SPDX-License-Identifier: Apache-2.0
"""How good a segmentation a few strokes give, round by round (arXiv 2603.16840, section S8.3 and figure S16).

    python -m evaluation.segmentation.few_labels --data superalloy --models teacher nope alibi \\
        --names DINOv2 NoPE ALiBi --train-images spot3_0d_3 spot4_0d_3 spot5_0d_0 spot6_0d_2 spot7_0d_5 \\
        --classes 0 1 2 --output-folder records --figure curves.png

In every round a simulated user draws one stroke per class on each training image (`scribbles.py`).
A classifier of pixels is fitted on all strokes so far, and mIoU is over all pixels of all test images. This is done for
classical features alone, and for each backbone for classical and deep features, and for deep features alone, with the
same strokes. Seeds change where the strokes are and what is random in the classifier.

Finished rounds are kept (`--cache`): a run that was stopped goes on where it was. The features of all images are held
in memory, for one set of features at a time: 0.25 kB per pixel.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.io.files import write_json
from alibi_dinov2.pictures.panels import save_figure
from alibi_dinov2.pictures.plots import line_looks, subplots
from alibi_dinov2.segmentation.guided_filter import filtered_probabilities
from alibi_dinov2.segmentation.pixel_classifiers import PixelClassifier, fit_classifier
from alibi_dinov2.segmentation.saved_segmenter import library_versions
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.command import feature_cache, named_backbones, run_records
from evaluation.report.records import Stopwatch, make_record, mean_and_spread
from evaluation.segmentation.comparison import (
    CLASSICAL,
    comparison_parser,
    segmenter_settings,
    with_versions,
)
from evaluation.segmentation.scribbles import LENGTH, WIDTH, require_brush, stroke_rounds
from evaluation.semantics.miou import confusion_matrix, iou_per_class, mean_iou
from evaluation.semantics.segmentation_data import Labels, SegmentationData, describe, open_data


@dataclass(frozen=True)
class Drawing:
    """How a simulated user draws.

    Args:
        rounds: how often one stroke per class and training image is drawn.
        seeds: how many users there are, with seeds 0, 1, …
        length, width, straight: of a stroke, in pixels, see `scribbles.stroke`.

    Raises:
        ValueError: a number is out of range.
    """

    rounds: int = 10
    seeds: int = 5
    length: int = LENGTH
    width: int = WIDTH
    straight: bool = False

    def __post_init__(self) -> None:
        require_brush(self.length, self.width)
        if min(self.rounds, self.seeds) < 1:
            raise ValueError(f"{self.rounds} rounds with {self.seeds} seeds were asked for; give 1 or more of each.")

    def rounds_of(self, seed: int, masks: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """The labels of images after each round of the user with that seed, given their masks."""
        return stroke_rounds(masks, self.rounds, seed, self.length, self.width, self.straight)


def fit_strokes(
    classifier: str,
    features: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    classes: int,
    seed: int,
    views: Sequence[np.ndarray] = (),
) -> PixelClassifier:
    """Fit a classifier on the labelled pixels of images, as `TrainableSegmenter.fit` does.

    Args:
        classifier: one of `CLASSIFIERS`.
        features: `(H, W, F)` of each image.
        labels: `(H, W)` of each, 0 unlabelled, 1 to `classes`; every class occurs.
        seed: of the classifier.
        views: of the features, see `PixelFeatures.views`.
    """
    images = np.repeat(np.arange(len(labels)), [np.count_nonzero(drawn) for drawn in labels])
    pixels = np.concatenate([image[drawn > 0] for image, drawn in zip(features, labels, strict=True)])
    targets = np.concatenate([drawn[drawn > 0] for drawn in labels]) - 1
    return fit_classifier(classifier, pixels, targets, classes, seed, images=images, views=views)


def score(
    classifier: PixelClassifier, features: Sequence[np.ndarray], test: SegmentationData, guided_radius: int
) -> np.ndarray:
    """Confusion matrix `(K, K)` of a classifier on all pixels of images, filtered as `TrainableSegmenter.predict` does.

    Args:
        classifier: fitted.
        features: `(H, W, F)` of each image of `test`.
        test: images and masks.
        guided_radius: of the segmenter.
    """
    matrices = []
    for index, found in enumerate(features):
        image, mask = test.pair(index)
        probabilities = classifier.predict_proba(found.reshape(-1, found.shape[-1])).reshape(*mask.shape, -1)
        if guided_radius:
            probabilities = filtered_probabilities(np.asarray(image), probabilities, guided_radius)
        matrices.append(confusion_matrix(probabilities.argmax(axis=-1), mask, probabilities.shape[-1]))
    return np.sum(matrices, axis=0)


def learning_curve(
    segmenter: TrainableSegmenter,
    train: SegmentationData,
    test: SegmentationData,
    drawing: Drawing,
    folder: Path,
    identity: dict[str, Any],
    name: str,
) -> np.ndarray:
    """Confusion matrices after each round of each seed, `(seeds, rounds, K, K)` int64, on all test images.

    Args:
        segmenter: whose features and classifier are used; it need not be fitted.
        train, test: images with masks of the same classes.
        drawing: how users draw on the training images.
        folder: for finished rounds, which are not computed again.
        identity: all that the matrices depend on but `drawing`, as JSON values.
        name: what progress bars call the features.
    """
    files = np.array(
        [
            [folder / f"{round_key(identity, drawing, seed, number)}.json" for number in range(drawing.rounds)]
            for seed in range(drawing.seeds)
        ]
    )
    todo = {(seed, number) for (seed, number), file in np.ndenumerate(files) if not file.is_file()}
    if todo:
        masks = [train.mask(index) for index in range(len(train))]
        strokes = [
            (seed, number, labels)
            for seed in range(drawing.seeds)
            for number, labels in enumerate(drawing.rounds_of(seed, masks))
            if (seed, number) in todo
        ]
        learned, seen = all_features(segmenter, train, test, strokes[0][2], name)
        for seed, number, labels in tqdm(strokes, f"rounds, {name}", unit="round"):
            classifier = fit_strokes(
                segmenter.classifier, learned, labels, len(train.labels), seed, segmenter.features_.views()
            )
            write_json(files[seed, number], score(classifier, seen, test, segmenter.guided_radius).tolist())
    return np.array([[json.loads(file.read_text(encoding="utf-8")) for file in row] for row in files])


def round_key(identity: dict[str, Any], drawing: Drawing, seed: int, number: int) -> str:
    """What the result of a round is filed under; it does not depend on how many rounds and seeds there are."""
    facts = [identity, drawing.length, drawing.width, drawing.straight, seed, number]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def all_features(
    segmenter: TrainableSegmenter,
    train: SegmentationData,
    test: SegmentationData,
    labels: Sequence[np.ndarray],
    name: str,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features of all pixels of the images to train on and of those to test on, `(H, W, F)` float32 each.

    Principal components are fitted on the images to train on. They do not depend on `labels`, whatever these are.
    """
    images = [train.image(index) for index in range(len(train))]
    segmenter.fit(images, list(labels))
    everything = chain(images, map(test.image, range(len(test))))
    bar = tqdm(everything, f"features, {name}", len(train) + len(test), unit="img")
    features = [segmenter.pixel_features(image) for image in bar]
    return features[: len(train)], features[len(train) :]


def summarise(
    matrices: np.ndarray, names: Sequence[str], prefix: str = ""
) -> tuple[dict[str, float], dict[str, float]]:
    """The figures of a learning curve under the names that records use: means over the seeds, and their spread.

    Args:
        matrices: from `learning_curve`.
        names: of the classes.
        prefix: of the figures' names.

    Returns:
        mIoU after the first round, after the round that is best on average, and after each round, and the IoU of each
        class after the best. The spread is the standard deviation over the seeds, estimated from this sample of them;
        there is none of a single seed.
    """
    scores = mious(matrices)
    best = int(scores.mean(axis=0).argmax())
    classes = np.array([iou_per_class(matrix) for matrix in matrices[:, best]])
    values = {
        "miou_first": scores[:, 0],
        "miou_best": scores[:, best],
        **{f"miou_round_{number}": column for number, column in enumerate(scores.T, start=1)},
        **{f"iou_{name}": column for name, column in zip(names, classes.T, strict=True)},
    }
    metrics, spread = mean_and_spread({prefix + name: column for name, column in values.items()})
    return metrics | {f"{prefix}best_round": best + 1}, spread


def mious(matrices: np.ndarray) -> np.ndarray:
    """mIoU of confusion matrices `(seeds, rounds, K, K)`, `(seeds, rounds)`."""
    return np.array([[mean_iou(matrix) for matrix in row] for row in matrices])


def curve_figure(curves: Mapping[str, np.ndarray]) -> Figure:
    """mIoU over rounds, `(seeds, rounds)` by name: a line for the mean, a band of one standard deviation each way.

    A model has one colour; without classical features its line is dashed.
    """
    figure, ((axis,),) = subplots(1, 1, width=8, height=4)
    models = dict.fromkeys(name.removeprefix(f"{CLASSICAL} + ") for name in curves)
    looks = line_looks(models)
    for name, scores in curves.items():
        colour, marker = looks[name.removeprefix(f"{CLASSICAL} + ")]
        rounds, mean = np.arange(1, scores.shape[1] + 1), scores.mean(axis=0)
        style = "-" if name.startswith(CLASSICAL) else "--"
        axis.plot(rounds, mean, style, color=colour, marker=marker, markersize=4, label=name)
        if len(scores) > 1:
            spread = scores.std(axis=0, ddof=1)
            axis.fill_between(rounds, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    axis.set_xticks(rounds)
    axis.set_xlabel("rounds of one stroke per class and training image")
    axis.set_ylabel("mIoU, test images")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    axis.grid(alpha=0.3)
    return figure


def curve_table(curves: Mapping[str, np.ndarray]) -> str:
    """The same as a Markdown table, a row for each name."""
    rounds = range(1, next(iter(curves.values())).shape[1] + 1)
    rows = [["features", *map(str, rounds)], ["---"] * (len(rounds) + 1)]
    for name, scores in curves.items():
        means = [f"{value:.3f}" for value in scores.mean(axis=0)]
        spreads = [f" ± {value:.3f}" for value in scores.std(axis=0, ddof=1)] if len(scores) > 1 else [""] * len(means)
        rows.append([name, *(mean + spread for mean, spread in zip(means, spreads, strict=True))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows
    )


def require_classes(data: SegmentationData) -> None:
    """Raise a `ValueError` unless every class occurs in the masks of the images to train on: it could not be drawn."""
    found = set().union(*(np.unique(data.mask(index)).tolist() for index in range(len(data))))
    missing = [name for index, name in enumerate(data.labels.class_names) if index not in found]
    if missing:
        raise ValueError(
            f"The training images of {data.name} have no pixel of {', '.join(missing)}; a user can draw no strokes of "
            "it. Train on other images with --train-images."
        )


def measure(
    backbones: Sequence[Backbone],
    train: SegmentationData,
    test: SegmentationData,
    drawing: Drawing,
    cache: FeatureCache,
    **settings: Any,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Images -> strokes -> learning curves -> a result record for each backbone, and all curves `(seeds, rounds)`.

    A record's figures are of classical and deep features together. Those of deep features alone stand beside them,
    under names that begin with `deep_`, and in every record those of classical features alone, `classical_…`.

    Args:
        backbones: from `load_backbone`.
        train, test: images with masks of the same classes.
        drawing: how users draw on the training images.
        cache: for features; finished rounds are kept beside them.
        settings: of the `TrainableSegmenter`, as JSON values.

    Raises:
        ValueError: an image or a mask is wrong, or a class is in no image to train on.
    """
    train_facts, facts = (describe(data, progress=True) for data in (train, test))
    require_classes(train)
    names = train.labels.class_names
    parameters = {
        "classes": names,
        "train": vars(train_facts),
        "classical": asdict(ClassicalFeatures()),
        **asdict(drawing),
        **settings,
    }

    # All of them at once, so that a wrong setting fails before the long work.
    alone, *with_deep = (TrainableSegmenter(backbone, cache=cache, **settings) for backbone in (None, *backbones))

    def measured(segmenter: TrainableSegmenter, name: str) -> np.ndarray:
        deep = segmenter.deep_features()
        identity = {
            "backbone": deep and deep.fingerprint,
            "data": [train_facts.fingerprint, facts.fingerprint],
            "features": [segmenter.classical and asdict(segmenter.classical), settings],
            "deep": deep and segmenter.per_image,
            "guided_radius": segmenter.guided_radius,
            "versions": library_versions(),
        }
        return learning_curve(segmenter, train, test, drawing, cache.folder / "few_labels", identity, name)

    matrices = measured(alone, CLASSICAL)
    baseline = summarise(matrices, names, f"{CLASSICAL}_")
    records, curves = [], {CLASSICAL: mious(matrices)}
    for backbone, segmenter in zip(backbones, with_deep, strict=True):
        stopwatch, both = Stopwatch(), f"{CLASSICAL} + {backbone.name}"
        deep = TrainableSegmenter(backbone, None, cache=cache, **settings)
        found = {both: measured(segmenter, both), backbone.name: measured(deep, backbone.name)}
        summaries = summarise(found[both], names), summarise(found[backbone.name], names, "deep_"), baseline
        metrics, spread = ({**own, **of_deep, **other} for own, of_deep, other in zip(*summaries, strict=True))
        record = make_record("trainable_segmentation", metrics, facts, backbone, parameters, 0, stopwatch)
        records.append(with_versions(record) | {"spread": spread})
        curves |= {name: mious(matrices) for name, matrices in found.items()}
    return records, curves


def command(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The records that the options ask for; the picture is written on the way."""
    labels = Labels(tuple(arguments.classes), tuple(arguments.class_names)) if arguments.classes else None
    train, test = open_data(arguments.data, labels, arguments.train_images)
    drawing = Drawing(arguments.rounds, arguments.seeds, arguments.length, arguments.width, arguments.straight)
    records, curves = measure(
        named_backbones(arguments), train, test, drawing, feature_cache(arguments), **segmenter_settings(arguments)
    )
    save_figure(curve_figure(curves), arguments.figure)
    print(curve_table(curves))
    return records


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = comparison_parser(__doc__)
    parser.add_argument("--data", required=True, help="folder (images/ and masks/, VOC, ADE20K) or Hub id with masks")
    parser.add_argument("--classes", type=int, nargs="+", help="values of the classes in the masks, if not known")
    parser.add_argument("--class-names", nargs="+", default=[], help="their names; the values if not given")
    parser.add_argument("--train-images", nargs="+", default=[], help="names of the training images, without splits")
    parser.add_argument("--rounds", type=int, default=Drawing.rounds)
    parser.add_argument("--seeds", type=int, default=Drawing.seeds, help="how many users draw, with seeds 0, 1, …")
    parser.add_argument("--length", type=int, default=Drawing.length, help="of a stroke in pixels")
    parser.add_argument("--width", type=int, default=Drawing.width, help="of a stroke in pixels, odd")
    parser.add_argument("--straight", action="store_true", help="draw strokes that do not bend")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    run_records(make_parser(), command, argv)


if __name__ == "__main__":
    main()
