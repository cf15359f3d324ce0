# SPDX-License-Identifier: Apache-2.0
"""Clusters of patch features, and whether a patch's cluster comes from its content or from its position.

    python -m evaluation.position.clusters --models teacher student --images data/micrographs --clusters 4 \\
        --records results --output clusters.png
    python -m evaluation.position.clusters --models teacher student --images data/superalloy/images \\
        --masks data/superalloy/masks --dataset superalloy --output clusters.png

k-means with 15 restarts on the standardised features of each image (figure 6b of arXiv 2603.16840).

How well x and y predict a cluster map would not tell what position does: they predict a true border between two
textures as well. So the content is moved. The image is rolled by half its height, half its width and both, and its
patches are put into the same clusters again. Where the places that a roll connects were in different clusters, position
and content disagree, and the patch's new cluster sides with one of them or with neither:

    position_explains    fraction of those patches with the cluster that this place had before the roll
    content_explains     fraction of them with the cluster that this content had before the roll

They are 1 and 0 where position alone decides, 0 and 1 where content alone does, and alike where neither does. With two
clusters they add up to 1. A model that a roll cannot change, such as ALiBi on a torus, has 0 and 1 by construction,
however poor its features: read `miou` beside them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone, patch_step, preprocess
from alibi_dinov2.features.dense_features import patch_features
from alibi_dinov2.io.files import write_json
from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.feature_colours import CONSTANT, relative_spread, resample
from alibi_dinov2.pictures.panels import Tile, image_tile, panel
from evaluation.command import command_line, figure_columns, figure_parser, image_paths, record_name, run_figure
from evaluation.position.rolls import roll_map
from evaluation.report.records import DatasetFacts, Stopwatch, data_name, describe_images, make_record
from evaluation.semantics.miou import VOID, confusion_matrix, mean_iou
from evaluation.semantics.segmentation_data import read_pairs

RESTARTS = 15
DEFAULT_COUNT = 4


@dataclass(frozen=True)
class ImageClusters:
    """What was found of an image.

    Args:
        labels: `(h, w)`, the cluster of each patch.
        conflicts: the sum of `count_conflicts` over the rolls.
        confusion: `(K, K)`, of its mask and the classes that clusters were matched to; None without a mask.
    """

    labels: np.ndarray
    conflicts: np.ndarray
    confusion: np.ndarray | None = None


def fit_clusters(features: np.ndarray, count: int, seed: int = 0) -> Pipeline:
    """k-means with 15 restarts on features `(h, w, D)`, each channel standardised; for `cluster_map`.

    Raises:
        ValueError: `count` is below 2 or above the number of patches, or all patches are alike.
    """
    patches = features.reshape(-1, features.shape[-1])
    if not 2 <= count <= len(patches):
        raise ValueError(f"{count} clusters of {len(patches)} patches were asked for; it must be 2 to {len(patches)}.")
    if relative_spread(patches) < CONSTANT:
        raise ValueError("The features are the same in all patches, so there is nothing to cluster; use other images.")
    return make_pipeline(StandardScaler(), KMeans(count, n_init=RESTARTS, random_state=seed)).fit(patches)


def cluster_map(clusters: Pipeline, features: np.ndarray) -> np.ndarray:
    """The cluster of each patch, `(h, w, D)` -> `(h, w)` integers from 0."""
    return clusters.predict(features.reshape(-1, features.shape[-1])).reshape(features.shape[:2])


def count_conflicts(labels: np.ndarray, rolled: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """How many patches' position and content want different clusters, and with which of the two they side.

    Args:
        labels: `(h, w)`, clusters of the image.
        rolled: `(h, w)`, clusters of the rolled image.
        carried: `(h, w)`, `labels` rolled like the image.

    Returns:
        `(4,)` integers: all patches, those in conflict, and of these those that side with position and with content.
    """
    conflict = carried != labels
    return np.array(
        [labels.size, conflict.sum(), (conflict & (rolled == labels)).sum(), (conflict & (rolled == carried)).sum()]
    )


def match_clusters(labels: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Name clusters after classes: one to one with the largest overlap (the Hungarian method); a cluster that is left
    over takes the class that it overlaps most.

    Args:
        labels: integers from 0.
        target: of the same shape; classes 0 to `num_classes` - 1, or `VOID`.

    Returns:
        `labels`, each cluster replaced by its class.
    """
    overlap = confusion_matrix(labels, target, max(int(labels.max()) + 1, num_classes))[:num_classes].T
    names = overlap.argmax(axis=1)
    clusters, classes = linear_sum_assignment(overlap, maximize=True)
    names[clusters] = classes
    return names[labels]


def mask_confusion(labels: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix `(K, K)` of a mask and the clusters `(h, w)`, drawn at its size and matched to its classes."""
    return confusion_matrix(match_clusters(resample(labels, *mask.shape), mask, num_classes), mask, num_classes)


def cluster_image(backbone: Backbone, image: Image.Image, size: int, count: int, seed: int = 0) -> ImageClusters:
    """Clusters of an image, and what becomes of them when it is rolled; raises what `fit_clusters` raises."""
    pixels = preprocess(backbone, [image], size)
    (features,) = patch_features(backbone, pixels)
    clusters = fit_clusters(features, count, seed)
    labels = cluster_map(clusters, features)
    down, right = labels.shape[0] // 2, labels.shape[1] // 2
    height, width = patch_step(backbone)
    conflicts = np.zeros(4, dtype=int)
    for rows, columns in ((down, 0), (0, right), (down, right)):
        (rolled,) = patch_features(backbone, torch.roll(pixels, (rows * height, columns * width), dims=(-2, -1)))
        carried = roll_map(labels, (rows, columns), backbone)
        conflicts += count_conflicts(labels, cluster_map(clusters, rolled), carried)
    return ImageClusters(labels, conflicts)


def summarise(found: Sequence[ImageClusters]) -> dict[str, float]:
    """The figures of one or more images, under the names that records use; images count by their patches and pixels.

    `in_conflict` is the fraction of patches that the other two are fractions of; if it is 0, they are left out. With
    masks there is `miou`.
    """
    patches, conflicts, position, content = (
        int(count) for count in np.sum([image.conflicts for image in found], axis=0)
    )
    metrics = {"in_conflict": conflicts / patches}
    if conflicts:
        metrics |= {"position_explains": position / conflicts, "content_explains": content / conflicts}
    confusions = [image.confusion for image in found if image.confusion is not None]
    if confusions:
        metrics["miou"] = mean_iou(np.sum(confusions, axis=0))
    return metrics


def measure(
    backbone: Backbone,
    images: Sequence[Image.Image],
    dataset: DatasetFacts,
    size: int,
    count: int,
    masks: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], list[ImageClusters]]:
    """Images -> features -> clusters -> result record, and the clusters of each image.

    Args:
        masks: `(H, W)` integers for each image: classes 0 to K - 1, or `VOID`. Clusters are matched to classes image
            by image.

    Raises:
        ValueError: position and content disagree nowhere, or as `fit_clusters`.
    """
    stopwatch = Stopwatch()
    bar = tqdm(images, desc=f"clusters of {backbone.name}", unit="img")
    found = [cluster_image(backbone, image, size, count, seed) for image in bar]
    if masks:
        classes = count_classes(masks)
        found = [
            replace(image, confusion=mask_confusion(image.labels, mask, classes))
            for image, mask in zip(found, masks, strict=True)
        ]
    metrics = summarise(found)
    if not metrics["in_conflict"]:
        raise ValueError(
            "Every cluster map is the same before and after a roll by half the image, so nothing tells position and "
            "content apart. Use other images or more clusters."
        )
    parameters = {"size": size, "clusters": count, "restarts": RESTARTS, "rolls": "half height, half width, both"}
    return make_record("clusters", metrics, dataset, backbone, parameters, seed, stopwatch), found


def count_classes(masks: Sequence[np.ndarray]) -> int:
    """Number of classes K of masks whose labels are 0 to K - 1, or `VOID`.

    Raises:
        ValueError: all is void.
    """
    labels = np.concatenate([mask[mask != VOID] for mask in masks])
    if not len(labels):
        raise ValueError(f"The masks have no label but {VOID}, which is void; use masks of classes, or none.")
    return int(labels.max()) + 1


def label_colours(labels: np.ndarray) -> np.ndarray:
    """Labels `(h, w)` from 0 as uint8 colours `(h, w, 3)`, those of the classes from 1; `VOID` is black."""
    return class_colours()[np.where(labels == VOID, 0, labels % VOID + 1)]


def figures_text(metrics: dict[str, float]) -> str:
    """The figures that stand under a cluster map."""
    names = {"position_explains": "position", "content_explains": "content", "miou": "mIoU"}
    return ", ".join(f"{short} {metrics[name]:.2f}" for name, short in names.items() if name in metrics)


def cluster_panel(
    images: Sequence[Image.Image],
    columns: Sequence[tuple[str, Sequence[ImageClusters]]],
    masks: Sequence[np.ndarray] | None = None,
) -> Figure:
    """A row per image: the image, its mask, and the clusters of each model over their figures; at the end all together.

    Args:
        images: as the models saw them.
        columns: a label, and what was found of each image.
        masks: as in `measure`. Clusters have the colours of the classes, or of the first column's clusters.
    """
    references = masks or [found.labels for found in columns[0][1]]
    classes = count_classes(references)
    rows = []
    for index, (image, reference) in enumerate(zip(images, references, strict=True)):
        row = [image_tile(np.asarray(image))] + ([Tile(label_colours(reference), image.size)] if masks else [])
        for _, found in columns:
            matched = match_clusters(resample(found[index].labels, *reference.shape), reference, classes)
            text = figures_text(summarise(found[index : index + 1]))
            row.append(Tile(label_colours(matched), image.size, text))
        rows.append(row)
    footer = [
        f"{len(images)} images:",
        *([""] if masks else []),
        *(figures_text(summarise(found)) for _, found in columns),
    ]
    return panel(rows, ["image", *(["mask"] if masks else []), *(label for label, _ in columns)], footer)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = figure_parser(__doc__)
    parser.add_argument("--clusters", type=int, help="how many; by default as many as classes, or 4 without masks")
    parser.add_argument("--masks", type=Path, help="folder of masks named like the images: 0 to K - 1, 255 is void")
    parser.add_argument("--dataset", help="what records call the images; by default the name of their folder")
    parser.add_argument("--records", type=Path, help="folder for a result record (JSON) of each model and size")
    return parser


def command(arguments: argparse.Namespace) -> Figure:
    """The picture that the options ask for; the records are written on the way."""
    paths = image_paths(arguments)
    masks = None
    if arguments.masks:
        images, masks = read_pairs(arguments.images, arguments.masks)
    else:
        images = [read_image(path) for path in paths]
    count = arguments.clusters or (count_classes(masks) if masks else DEFAULT_COUNT)
    dataset = describe_images(arguments.dataset or data_name(paths[0].parent), images)
    words, columns = command_line(command, make_parser(), arguments), []
    for column in figure_columns(arguments):
        record, found = measure(column.backbone, images, dataset, column.size, count, masks, arguments.seed)
        columns.append((column.label, found))
        print(f"{column.label} on {dataset.name}: {figures_text(record['metrics'])}")
        if arguments.records:
            write_json(arguments.records / record_name(record), record | {"command": words})
    return cluster_panel(images, columns, masks)


def main(argv: Sequence[str] | None = None) -> None:
    run_figure(make_parser(), command, argv)


if __name__ == "__main__":
    main()
