# SPDX-License-Identifier: Apache-2.0
"""When position as a feature helps a segmenter, and when it misleads one.

    python -m evaluation.segmentation.position_features --models alibi --names ALiBi \\
        --image data/biased_labels/nickel_on_substrate.png \\
        --labels data/biased_labels/nickel_on_substrate_labels.png --output-folder records --figure position.png

Segmenters with and without `position` are fitted to the same strokes, with classical, with deep and with both kinds of
features. In a record the names of figures begin with the material, the features and `without` or `with`:

    layers      made cross-sections of a coating (`benchmark/synthetic.py`), whose resin and substrate look the same: a
                user draws `--rounds` strokes per class on two of them; `miou` is over all pixels of four others
    biased      the image and the labels that are given, in one place of a homogeneous material each (`biased_labels`):
                `position_explains` is the fraction of pixels that keep the class of their place, not of their content,
                when the image is rolled

The first grows where position helps; the second where it misleads.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.features.position_features import POSITIONS
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.overlays import blend
from alibi_dinov2.pictures.panels import Tile, image_tile, panel, save_figure
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.command import feature_cache, named_backbones, run_records
from evaluation.report.records import Stopwatch, data_name, describe_images, make_record, mean_and_spread
from evaluation.segmentation.benchmark.synthetic import RECIPES, make_image
from evaluation.segmentation.biased_labels import FILTERS, Segmentation, segment
from evaluation.segmentation.comparison import CLASSICAL, labelled_image_parser, segmenter_settings, with_versions
from evaluation.segmentation.scribbles import stroke_rounds
from evaluation.semantics.miou import confusion_matrix, mean_iou
from evaluation.semantics.segmentation_data import read_mask

LAYERS = RECIPES["made-layers"]
TRAIN, TEST = (0, 1), (2, 3, 4, 5)  # seeds of the made images
SHOWN = "combined"  # the features of which the picture shows predictions
WITHOUT, WITH = "without", "with"


@dataclass(frozen=True)
class Layered:
    """Segmentations of the made images to test on, for one user each.

    Attributes:
        strokes: what the first user drew on the first image, `(H, W)`, 0 unlabelled, classes from 1.
        prediction: of the first image to test on by the first user's segmenter, classes from 1.
        mious: over all test images, for each user.
    """

    strokes: np.ndarray
    prediction: np.ndarray
    mious: list[float]


def segment_layers(segmenter: TrainableSegmenter, rounds: int, users: int) -> Layered:
    """Fit a segmenter to each user's strokes on the made images to train on, and segment those to test on."""
    (images, masks), (unseen, truths) = (
        zip(*(make_image(LAYERS, seed) for seed in seeds), strict=True) for seeds in (TRAIN, TEST)
    )
    drawn, shown, mious = [], [], []
    for user in range(users):
        (*_, strokes) = stroke_rounds(masks, rounds, user)
        predictions = [segmenter.fit(list(images), strokes).predict(image) for image in unseen]
        matrices = [
            confusion_matrix(prediction.astype(int) - 1, truth, len(LAYERS.classes))
            for prediction, truth in zip(predictions, truths, strict=True)
        ]
        mious.append(mean_iou(np.sum(matrices, axis=0)))
        drawn.append(strokes[0])
        shown.append(predictions[0])
    return Layered(drawn[0], shown[0], mious)


def measure(
    backbone: Backbone, image: np.ndarray, labels: np.ndarray, cache: FeatureCache, arguments: argparse.Namespace
) -> tuple[dict[str, float], dict[str, float], Figure]:
    """Figures, their spread over users, and the picture, of one backbone."""
    values: dict[str, list[float]] = {}
    layered: dict[str, Layered] = {}
    biased: dict[str, Segmentation] = {}
    kinds = {CLASSICAL: (None, FILTERS), "deep": (backbone, None), SHOWN: (backbone, FILTERS)}
    settings = segmenter_settings(arguments) | {"cache": cache, "seed": arguments.seed}
    todo = [(features, name) for features in kinds for name in (WITHOUT, WITH)]
    for features, name in tqdm(todo, f"segmenters, {backbone.name}", unit="fit"):
        position = tuple(arguments.position) if name == WITH else ()
        segmenter = TrainableSegmenter(*kinds[features], position=position, **settings)
        layered[name] = segment_layers(segmenter, arguments.rounds, arguments.seeds)
        biased[name] = segment(image, labels, *kinds[features], position=position, **settings)
        values[f"layers/{features}/{name}/miou"] = layered[name].mious
        for figure in ("position_explains", "position_d2", "halves_difference"):
            values[f"biased/{features}/{name}/{figure}"] = [biased[name].figures.get(figure, 0.0)]
    return *mean_and_spread(values), position_panel(image, labels, layered, biased)


def position_panel(
    image: np.ndarray, labels: np.ndarray, layered: Mapping[str, Layered], biased: Mapping[str, Segmentation]
) -> Figure:
    """What was drawn, and predictions without and with position: of a coating above, of the given image below."""

    def tile(pixels: np.ndarray, classes: np.ndarray, caption: str = "") -> Tile:
        return image_tile(blend(pixels, classes, np.full(classes.shape, 0.5)), caption)

    (drawn_on, _), (seen, truth) = (make_image(LAYERS, seeds[0]) for seeds in (TRAIN, TEST))
    strokes = layered[WITHOUT].strokes
    rows = [
        [
            image_tile(blend(drawn_on, strokes, strokes > 0), "a coating: strokes"),
            tile(seen, truth + 1, "another one: truth"),
            *(tile(seen, found.prediction, f"mIoU {np.mean(found.mious):.3f}") for found in layered.values()),
        ],
        [
            image_tile(blend(image, labels, labels > 0), "labels in one place each"),
            image_tile(image, "the image"),
            *(
                tile(image, found.prediction, f"position explains {found.figures.get('position_explains', 0):.3f}")
                for found in biased.values()
            ),
        ],
    ]
    return panel(rows, ["", "", *(f"{name} position" for name in layered)])


def command(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The records that the options ask for; the picture, of the last model, is written on the way."""
    picture = read_image(arguments.image)
    image, labels = np.asarray(picture), read_mask(arguments.labels, str(arguments.labels))
    dataset, cache = describe_images(data_name(arguments.image.parent), [picture]), feature_cache(arguments)
    parameters = {
        "labels_sha256": hashlib.sha256(labels.tobytes()).hexdigest(),
        CLASSICAL: asdict(FILTERS),
        **{name: getattr(arguments, name) for name in ("position", "rounds", "seeds")},
        "layers": {"train": TRAIN, "test": TEST},
        **segmenter_settings(arguments),
    }
    records = []
    for backbone in named_backbones(arguments):
        stopwatch = Stopwatch()
        metrics, spread, figure = measure(backbone, image, labels, cache, arguments)
        record = make_record("position_features", metrics, dataset, backbone, parameters, arguments.seed, stopwatch)
        records.append(with_versions(record) | {"spread": spread})
        save_figure(figure, arguments.figure)
        print(backbone.name, *(f"{name:<48}{value:.3f}" for name, value in metrics.items()), sep="\n  ")
    return records


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = labelled_image_parser(__doc__)
    parser.add_argument("--position", nargs="+", choices=POSITIONS, default=["row", "column"])
    parser.add_argument("--rounds", type=int, default=3, help="strokes of each class on each of two made images")
    parser.add_argument("--seeds", type=int, default=3, help="how many users draw, with seeds 0, 1, …")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    run_records(make_parser(), command, argv)


if __name__ == "__main__":
    main()
