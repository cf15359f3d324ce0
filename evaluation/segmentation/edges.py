# SPDX-License-Identifier: Apache-2.0
"""What brings deep features of patches, or the classes that they give, to the edges in the image?

    python -m evaluation.segmentation.edges --data benchmark-data --models alibi --classifier stroke-forest \\
        --output-folder records --figure edges.png

On the data sets of `evaluation.segmentation.benchmark`, a simulated user draws `--rounds` strokes per class on two
images (`scribbles.py`). Segmenters are fitted with deep features alone, and with classical and deep features, and
segment `--images` others:

    bilinear                patches are interpolated between their centres
    shifts-2                the backbone sees windows moved by half a patch, too: four times the work
    joint-bilateral         patches are interpolated with weights for the grey level, too (Kopf et al., 2007)
    guided-components       the interpolated features are filtered with the image as guide (He et al., 2013)
    guided-probabilities    the probabilities of the classes are

The figures of each are mIoU, and the F-score of boundaries within 2 pixels (`evaluation.semantics.boundaries`); and
seconds of the processor per megapixel for backbone, upsampling and filter, without classical features and classifier. A
setting is chosen by the mean of both figures on all other data sets, and reported on the one that is left out.

Finished parts are kept (`--cache`): a run that was stopped goes on where it was.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.io.files import write_json
from alibi_dinov2.pictures.colours import line_colours
from alibi_dinov2.pictures.panels import save_figure
from alibi_dinov2.pictures.plots import subplots
from alibi_dinov2.segmentation.pixel_classifiers import fit_classifier
from alibi_dinov2.segmentation.saved_segmenter import library_versions
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.command import feature_cache, named_backbones, run_records
from evaluation.report.records import DatasetFacts, Stopwatch, make_record
from evaluation.segmentation.benchmark.sets import DataSet, open_sets
from evaluation.segmentation.comparison import comparison_parser, segmenter_settings, with_versions
from evaluation.segmentation.edge_methods import (
    METHODS,
    deep_pixels,
    filtered,
    grids_of,
    guide_of,
    kind_of,
    seconds_per_megapixel,
    with_classical,
)
from evaluation.segmentation.scribbles import stroke_rounds
from evaluation.semantics.boundaries import TOLERANCE, boundary_counts, boundary_f
from evaluation.semantics.miou import confusion_matrix, mean_iou
from evaluation.semantics.segmentation_data import describe

FEATURES = ("deep", "combined")


@dataclass(frozen=True)
class Task:
    """Images with strokes, and images to segment.

    Attributes:
        name: of the data set.
        classes: how many, K.
        train, strokes: images `(H, W, 3)` and their labels, 0 unlabelled, 1 to K.
        test, masks: images and their masks, 0 to K − 1.
        identity: all that it depends on.
    """

    name: str
    classes: int
    train: list[np.ndarray]
    strokes: list[np.ndarray]
    test: list[np.ndarray]
    masks: list[np.ndarray]
    identity: list[Any]


def make_task(data: DataSet, fingerprints: Sequence[str], seed: int, rounds: int, images: int) -> Task:
    """What a user of that seed draws on two images of a data set, and the first images to test on."""
    pair = np.random.default_rng(seed).permutation(len(data.train))[:2].tolist()
    (*_, strokes) = stroke_rounds([data.train.mask(index) for index in pair], rounds, seed)
    seen = range(min(images, len(data.test)))
    return Task(
        data.name,
        len(data.facts.classes),
        [np.asarray(data.train.image(index)) for index in pair],
        strokes,
        [np.asarray(data.test.image(index)) for index in seen],
        [data.test.mask(index) for index in seen],
        [*fingerprints, seed, rounds, images],
    )


def predictions(
    task: Task, backbone: Backbone, features: str, cache: FeatureCache, seed: int, **settings: Any
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The class maps, 0 to K − 1, of a task's images to test on by each of `METHODS`."""
    labels = np.concatenate([drawn[drawn > 0] for drawn in task.strokes]).astype(np.int64) - 1
    filters = ClassicalFeatures() if features == "combined" else None
    guides = [guide_of(image) for image in (*task.train, *task.test)]
    segmenters, probabilities = {}, {}
    for name, method in METHODS.items():
        if method.shifts not in segmenters:
            segmenter = TrainableSegmenter(backbone, filters, shifts=method.shifts, cache=cache, seed=seed, **settings)
            segmenters[method.shifts] = segmenter.fit(task.train, task.strokes)
        known = method.until_classifier
        if known not in probabilities:
            segmenter = segmenters[method.shifts]
            pixels = [
                with_classical(segmenter, image, deep_pixels(known, segmenter, grids_of(segmenter, image), guide))
                for image, guide in zip((*task.train, *task.test), guides, strict=True)
            ]
            learned = np.concatenate([found[drawn > 0] for found, drawn in zip(pixels, task.strokes, strict=False)])
            classifier = fit_classifier(
                segmenter.classifier,
                learned,
                labels,
                task.classes,
                seed,
                images=np.repeat(np.arange(len(task.strokes)), [np.count_nonzero(drawn) for drawn in task.strokes]),
                views=segmenter.features_.views(),
            )
            probabilities[known] = [
                classifier.predict_proba(found.reshape(-1, found.shape[-1])).reshape(*found.shape[:2], -1)
                for found in pixels[len(task.train) :]
            ]
        yield (
            name,
            [
                filtered(method, guide, found).argmax(axis=-1)
                for guide, found in zip(guides[len(task.train) :], probabilities[known], strict=True)
            ],
        )


def measure_task(
    task: Task, backbone: Backbone, fingerprint: str, cache: FeatureCache, seed: int, **settings: Any
) -> dict[str, dict[str, Any]]:
    """Confusion matrix and boundary counts by features and method, as `deep/bilinear`; kept once they are there."""
    facts = [fingerprint, task.identity, settings, asdict(ClassicalFeatures()), library_versions()]
    key = hashlib.sha256(
        json.dumps([*facts, list(METHODS.items())], sort_keys=True, default=asdict).encode()
    ).hexdigest()
    found: dict[str, dict[str, Any]] = {}
    for features in FEATURES:
        file = cache.folder / "edges" / f"{key}-{features}.json"
        if not file.is_file():
            maps = predictions(task, backbone, features, cache, seed, **settings)
            write_json(file, {f"{features}/{name}": compare(task, segmented) for name, segmented in maps})
        found |= json.loads(file.read_text(encoding="utf-8"))
    return found


def compare(task: Task, maps: Sequence[np.ndarray]) -> dict[str, Any]:
    """Confusion matrix and boundary counts of class maps, summed over the images."""
    pairs = list(zip(maps, task.masks, strict=True))
    counts: dict[str, Callable[..., np.ndarray]] = {"confusion": confusion_matrix, "boundary": boundary_counts}
    return {
        what: np.sum([count(segmented, mask, task.classes) for segmented, mask in pairs], axis=0).tolist()
        for what, count in counts.items()
    }


def figures_of(counts: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """mIoU and mean F-score of boundaries, means over users, from what `measure_task` gave for each."""
    scores = [
        (mean_iou(np.array(found["confusion"])), np.nanmean(boundary_f(np.array(found["boundary"]))))
        for found in counts
    ]
    miou, f_score = np.mean(scores, axis=0).tolist()
    return miou, f_score


Figures = dict[str, dict[str, tuple[float, float]]]  # by features and data set's name, then by method: mIoU, F-score


def choose(figures: Figures, features: str) -> dict[str, str]:
    """For each data set the method whose mean of mIoU and F-score is highest on all the others."""
    names = [key.removeprefix(f"{features}/") for key in figures if key.startswith(f"{features}/")]
    return {
        left_out: max(
            METHODS,
            key=lambda method: sum(sum(figures[f"{features}/{name}"][method]) for name in names if name != left_out),
        )
        for left_out in names
    }


def metrics_of(
    figures: Figures, chosen: Mapping[str, Mapping[str, str]], seconds: Mapping[str, float]
) -> dict[str, float]:
    """All figures under the names that records use."""
    metrics = {f"seconds_per_megapixel/{name}": value for name, value in seconds.items()}
    for features, of_sets in chosen.items():
        tables = {name: figures[f"{features}/{name}"] for name in of_sets}
        columns = {method: [found[method] for found in tables.values()] for method in METHODS}
        columns["chosen"] = [found[of_sets[name]] for name, found in tables.items()]
        for method, scores in columns.items():
            for metric, values in zip(("miou", "boundary_f"), np.transpose(scores), strict=True):
                metrics[f"{features}/{method}/{metric}"] = float(values.mean())
                metrics |= {
                    f"{features}/{method}/{metric}/{name}": float(value)
                    for name, value in zip(tables, values, strict=True)
                }
    return metrics


def table(metrics: Mapping[str, float]) -> str:
    """The means over data sets as a Markdown table."""
    lines = [
        "| | deep: mIoU | boundary F | classical + deep: mIoU | boundary F | s/megapixel |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in (*METHODS, "chosen"):
        values = [metrics[f"{features}/{name}/{metric}"] for features in FEATURES for metric in ("miou", "boundary_f")]
        time = metrics.get(f"seconds_per_megapixel/{name}")
        cells = [name, *(f"{value:.3f}" for value in values), "" if time is None else f"{time:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def edges_figure(metrics: Mapping[str, float]) -> Figure:
    """Both figures of each method over its seconds per megapixel, with deep features alone and with both kinds."""
    figure, axes = subplots(2, 2, width=11, height=7)
    kinds = list(dict.fromkeys(kind_of(name) for name in METHODS))
    for row, (metric, heading) in zip(axes, (("miou", "mIoU"), ("boundary_f", "F-score of boundaries")), strict=True):
        for axis, features in zip(row, FEATURES, strict=True):
            for kind, colour in zip(kinds, line_colours(), strict=False):
                names = [name for name in METHODS if kind_of(name) == kind]
                seconds = [metrics[f"seconds_per_megapixel/{name}"] for name in names]
                scores = [metrics[f"{features}/{name}/{metric}"] for name in names]
                axis.plot(seconds, scores, "o", color=colour, label=kind)
            axis.set_title("deep features" if features == "deep" else "classical and deep features")
            axis.set_ylabel(heading)
            axis.set_xlabel("seconds per megapixel")
            axis.grid(alpha=0.3)
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def measure(
    backbone: Backbone, sets: Sequence[DataSet], cache: FeatureCache, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Data sets -> tasks -> a result record."""
    stopwatch, settings = Stopwatch(), segmenter_settings(arguments)
    facts = {data.name: [describe(part) for part in (data.train, data.test)] for data in sets}
    fingerprint = TrainableSegmenter(backbone, **settings).deep_features().fingerprint  # type: ignore[union-attr]
    found: dict[str, list[dict[str, Any]]] = {data.name: [] for data in sets}
    todo = [(data, seed) for data in sets for seed in range(arguments.seed, arguments.seed + arguments.seeds)]
    for data, seed in tqdm(todo, "data sets and users", unit="task"):
        prints = [part.fingerprint for part in facts[data.name]]
        task = make_task(data, prints, seed, arguments.rounds, arguments.images)
        found[data.name].append(measure_task(task, backbone, fingerprint, cache, seed, **settings))
    figures = {
        f"{features}/{name}": {
            method: figures_of([counts[f"{features}/{method}"] for counts in of_users]) for method in METHODS
        }
        for features in FEATURES
        for name, of_users in found.items()
    }
    chosen = {features: choose(figures, features) for features in FEATURES}
    example = make_task(sets[0], [], arguments.seed, 1, 1)
    seconds = seconds_per_megapixel(example.train[0], example.strokes[0], backbone, **settings)
    digest = hashlib.sha256(json.dumps([[vars(part) for part in parts] for parts in facts.values()]).encode())
    images = sum(min(arguments.images, len(data.test)) for data in sets)
    dataset = DatasetFacts(" ".join(facts), "test", images, digest.hexdigest())
    parameters = {
        **settings,
        **{name: getattr(arguments, name) for name in ("rounds", "images", "seeds")},
        "tolerance": TOLERANCE,
        "classical": asdict(ClassicalFeatures()),
        "methods": {name: asdict(method) for name, method in METHODS.items()},
    }
    metrics = metrics_of(figures, chosen, seconds)
    record = make_record("edges", metrics, dataset, backbone, parameters, arguments.seed, stopwatch)
    return with_versions(record) | {"chosen": chosen}


def command(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The records that the options ask for; the picture, of the last model, is written on the way."""
    sets, cache = open_sets(arguments.data, arguments.sets), feature_cache(arguments)
    records = []
    for backbone in named_backbones(arguments):
        records.append(measure(backbone, sets, cache, arguments))
        metrics = records[-1]["metrics"]
        print(backbone.name, table(metrics), sep="\n")
        for features, of_sets in records[-1]["chosen"].items():
            print(f"{features}, chosen on the others:", *(f"{name} {method};" for name, method in of_sets.items()))
        save_figure(edges_figure(metrics), arguments.figure)
    return records


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = comparison_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's data sets")
    parser.add_argument("--sets", nargs="+", default=[], help="names of the data sets; all if not given")
    parser.add_argument("--rounds", type=int, default=3, help="strokes of each class on each of two images")
    parser.add_argument("--images", type=int, default=4, help="of a data set to segment, at most")
    parser.add_argument("--seeds", type=int, default=2, help="how many users draw")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    run_records(make_parser(), command, argv)


if __name__ == "__main__":
    main()
