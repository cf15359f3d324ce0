# SPDX-License-Identifier: Apache-2.0
"""What frozen features know of classes: mIoU of a linear head (arXiv 2603.16840, tables S2 and S3).

    python -m evaluation.semantics.linear_segmentation --model student --data VOCdevkit/VOC2012 \\
        --output results/voc12.json
    python -m evaluation.semantics.linear_segmentation --model student --data animals --classes 0 8 10 12 \\
        --others-void --output results/animals.json --robustness --panel animals.png --save-head segmenter

Every image goes through the backbone once, and its features are kept (`--cache`). A run that was stopped goes on where
it was. mIoU is over all pixels of all validation images, at the size of their masks. With `--robustness` the images are
transformed, their features turned back, and the predictions of the same head compared with the same masks.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone, patch_step, preprocess
from alibi_dinov2.features.dense_features import patch_features
from alibi_dinov2.features.feature_cache import FeatureCache, backbone_fingerprint
from alibi_dinov2.io.files import require_new_folder
from alibi_dinov2.pictures.panels import save_figure
from evaluation.command import add_cache_options, feature_cache, measured_backbone, record_parser, run_record
from evaluation.position.rolls import roll_map
from evaluation.report.records import Stopwatch, make_record
from evaluation.semantics.miou import VOID, class_figures, confusion_matrix, iou_per_class, mean_iou, pixel_accuracy
from evaluation.semantics.segmentation_data import Labels, SegmentationData, describe, open_data
from evaluation.semantics.segmentation_head import (
    HeadSettings,
    LinearHead,
    predict,
    require_alibi,
    save_segmenter,
    train_head,
)
from evaluation.semantics.segmentation_panel import segmentation_panel

TRANSFORMS = ("none", "flip-ud", "roll", "rot90")


def transform_pixels(pixels: torch.Tensor, transform: str, shift: tuple[int, int]) -> torch.Tensor:
    """Pixels `(B, 3, H, W)` upside down, rolled by a number of pixels along both axes, or turned to the left."""
    if transform == "flip-ud":
        return pixels.flip(-2)
    if transform == "rot90":
        return pixels.rot90(1, (-2, -1))
    if transform == "roll":
        return pixels.roll(shift, (-2, -1))
    return pixels


def restore_features(features: np.ndarray, transform: str, shift: tuple[int, int], backbone: Backbone) -> np.ndarray:
    """Features `(h, w, D)` of transformed pixels, with every patch back in its place.

    Args:
        shift: by how many patches the pixels were rolled.
    """
    if transform == "flip-ud":
        return features[::-1]
    if transform == "rot90":
        return np.rot90(features, -1)
    if transform == "roll":
        return roll_map(features, (-shift[0], -shift[1]), backbone)
    return features


def transformed_features(backbone: Backbone, image: Image.Image, size: int, transform: str = "none") -> np.ndarray:
    """Features `(h, w, D)` of an image that the backbone sees transformed, every patch in its place in the image.

    A roll is by half the image along both axes, in whole steps of patches.
    """
    pixels, steps = preprocess(backbone, [image], size), patch_step(backbone)
    down, right = (side // step // 2 for side, step in zip(pixels.shape[-2:], steps, strict=True))
    seen = transform_pixels(pixels, transform, (down * steps[0], right * steps[1]))
    return restore_features(patch_features(backbone, seen)[0], transform, (down, right), backbone)


class Features(Sequence[np.ndarray]):
    """The features `(h, w, D)` of a data set's images, taken from a cache or computed, when they are asked for.

    Args:
        backbone: from `load_backbone`.
        data: the images.
        size: shortest side in pixels at which the backbone sees them.
        cache: what was computed goes there. If its limit is too low for the data set, features are computed again.
        transform: one of `TRANSFORMS`.
    """

    def __init__(
        self, backbone: Backbone, data: SegmentationData, size: int, cache: FeatureCache, transform: str = "none"
    ) -> None:
        self.backbone, self.data, self.size, self.cache, self.transform = backbone, data, size, cache, transform
        self.fingerprint = backbone_fingerprint(backbone)
        self.keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index):
        if index not in self.keys:
            image = self.data.image(index)
            self.keys[index] = self.cache.key(
                self.fingerprint, image, size=self.size, layers=None, transform=self.transform
            )
        return self.cache.get(self.keys[index], partial(self.compute, index))

    def compute(self, index: int) -> np.ndarray:
        """The features of an image."""
        return transformed_features(self.backbone, self.data.image(index), self.size, self.transform)

    def extract(self) -> "Features":
        """Have all of them in the cache, with a bar; returns itself."""
        name = f"features of {self.backbone.name}, {self.data.split}, {self.transform}"
        for index in tqdm(range(len(self)), name, unit="img"):
            self[index]
        return self


class TrainingSamples(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Features and masks of a data set, read when asked for.

    Args:
        features: of the images.
        pixels: height and width in pixels that a patch has in a mask; masks are reduced by nearest neighbour.
    """

    def __init__(self, features: Features, pixels: tuple[int, int]) -> None:
        self.features, self.pixels = features, pixels

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index):
        features = self.features[index]
        height, width = (side * length for side, length in zip(features.shape[:2], self.pixels, strict=True))
        mask = Image.fromarray(self.features.data.mask(index)).resize((width, height), Image.Resampling.NEAREST)
        return features, np.array(mask)


def class_pixels(data: SegmentationData) -> np.ndarray:
    """How many pixels of each class the masks have, `(K,)`.

    Raises:
        ValueError: all pixels are void.
    """
    counts = np.zeros(256, dtype=np.int64)
    for index in range(len(data)):
        counts += np.bincount(data.mask(index).ravel(), minlength=256)
    counts = counts[: len(data.labels)]
    if not counts.any():
        raise ValueError(f"All pixels of the masks of {data.name} {data.split} are void; check the classes.")
    return counts


def score(head: LinearHead, features: Features) -> np.ndarray:
    """Confusion matrix `(K, K)` of a head on all images of a data set, at the size of their masks."""
    data = features.data
    matrix = np.zeros((len(data.labels),) * 2, dtype=np.int64)
    for index in range(len(data)):
        mask = data.mask(index)
        matrix += confusion_matrix(predict(head, features[index], mask.shape), mask, len(data.labels))
    return matrix


def measure(
    backbone: Backbone,
    train: SegmentationData,
    validation: SegmentationData,
    size: int,
    cache: FeatureCache,
    settings: HeadSettings | None = None,
    transforms: Sequence[str] = TRANSFORMS[:1],
    seed: int = 0,
) -> tuple[dict[str, Any], LinearHead]:
    """Images -> features -> head -> result record; the head comes with it.

    Args:
        backbone: from `load_backbone`.
        train, validation: with the same classes.
        size: shortest side in pixels at which the backbone sees images.
        cache: for features and for the state of the head.
        settings: of the head's training.
        transforms: of the validation images, of `TRANSFORMS`; `"none"` is measured in any case.
        seed: of the head's training.

    Raises:
        ValueError: an image or a mask is wrong, or all are void; the message names it.
    """
    stopwatch, settings = Stopwatch(), settings or HeadSettings()
    train_facts, facts = (describe(data, progress=True) for data in (train, validation))
    trained_on, _ = (class_pixels(data) > 0 for data in (train, validation))
    parameters = {"size": size, "classes": train.labels.class_names, "train": vars(train_facts), **asdict(settings)}
    identity = json.dumps([backbone_fingerprint(backbone), parameters, seed])
    checkpoint = cache.folder / "heads" / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"

    pixels = (settings.pixels_per_patch,) * 2 if settings.pixels_per_patch else patch_step(backbone)
    samples = TrainingSamples(Features(backbone, train, size, cache).extract(), pixels)
    head = train_head(samples, len(train.labels), settings, seed, checkpoint, backbone.model.device, progress=True)
    metrics: dict[str, float] = {}
    absent: list[int] = []
    for transform in dict.fromkeys(("none", *transforms)):
        matrix = score(head, Features(backbone, validation, size, cache, transform).extract())
        if transform == "none":
            metrics |= summarise(matrix, train.labels.class_names)
            absent = np.flatnonzero(np.isnan(iou_per_class(matrix))).tolist()
        else:
            metrics[f"miou_{transform.replace('-', '_')}"] = mean_iou(matrix)
    parameters |= {
        "transforms": list(transforms),
        "classes_left_out": [train.labels.class_names[index] for index in absent],
        "classes_not_trained": [train.labels.class_names[index] for index in np.flatnonzero(~trained_on)],
    }
    return make_record("linear_segmentation", metrics, facts, backbone, parameters, seed, stopwatch), head


def summarise(matrix: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """mIoU, pixel accuracy and the IoU of each class that occurs, under the names that records use."""
    return {"miou": mean_iou(matrix), "pixel_accuracy": pixel_accuracy(matrix)} | class_figures(matrix, names)


def draw_panel(
    output: Path, backbone: Backbone, head: LinearHead, data: SegmentationData, size: int, count: int
) -> None:
    """Write a PNG of predictions for `count` images spread over a data set."""
    indices = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)).tolist()
    images, truths = zip(*(data.pair(index) for index in indices), strict=True)
    predictions = [
        predict(head, transformed_features(backbone, image, size), truth.shape)
        for image, truth in zip(images, truths, strict=True)
    ]
    save_figure(segmentation_panel(images, truths, predictions, data.labels.class_names), output)


def command(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record that the options ask for; head and picture are written on the way."""
    labels = None
    if arguments.classes:
        names = tuple(arguments.class_names or ())
        labels = Labels(tuple(arguments.classes), names, tuple(arguments.void), arguments.others_void)
    train, validation = open_data(arguments.data, labels, arguments.train_images, tuple(arguments.columns))
    backbone = measured_backbone(arguments)
    if arguments.save_head:
        require_alibi(backbone)
        require_new_folder(arguments.save_head)
    settings = HeadSettings(arguments.epochs, arguments.batch_size, pixels_per_patch=arguments.pixels_per_patch)
    transforms = TRANSFORMS if arguments.robustness else TRANSFORMS[:1]
    record, head = measure(
        backbone, train, validation, arguments.size, feature_cache(arguments), settings, transforms, arguments.seed
    )
    for key, what in (("classes_left_out", "never occur; left out"), ("classes_not_trained", "not in training masks")):
        if record["parameters"][key]:
            print(f"{what}: {', '.join(record['parameters'][key])}")
    if arguments.save_head:
        save_segmenter(arguments.save_head, backbone, head, arguments.size, train.labels.class_names, settings.dropout)
    if arguments.panel:
        draw_panel(arguments.panel, backbone, head, validation, arguments.size, arguments.panel_images)
    return record


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = record_parser(__doc__)
    parser.add_argument(
        "--data", required=True, help="folder (VOC, ADE20K, images/ and masks/, parquet) or Hub id with masks"
    )
    parser.add_argument(
        "--classes", type=int, nargs="+", help="values of the classes in the masks, if not VOC or ADE20K"
    )
    parser.add_argument("--class-names", nargs="+", help="their names; the values if not given")
    parser.add_argument("--void", type=int, nargs="*", default=[VOID], help="values of pixels that do not count")
    parser.add_argument("--others-void", action="store_true", help="let no other value count; if not, it is an error")
    parser.add_argument("--train-images", nargs="+", default=[], help="names of the training images, without splits")
    parser.add_argument("--columns", nargs=2, default=["image", "mask"], help="of a data set of the Hub")
    parser.add_argument("--epochs", type=int, default=HeadSettings.epochs)
    parser.add_argument("--batch-size", type=int, default=HeadSettings.batch_size, help="images per step of the head")
    parser.add_argument("--pixels-per-patch", type=int, help="resolution of the loss; that of the images if not given")
    parser.add_argument("--robustness", action="store_true", help=f"measure {', '.join(TRANSFORMS[1:])} too")
    add_cache_options(parser)
    parser.add_argument("--save-head", type=Path, help="folder for the segmenter; ALiBi-DINOv2 only")
    parser.add_argument("--panel", type=Path, help="PNG file for a picture of predictions")
    parser.add_argument("--panel-images", type=int, default=6, help="how many images it shows")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    run_record(make_parser(), command, argv)


if __name__ == "__main__":
    main()
