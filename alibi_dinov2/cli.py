# SPDX-License-Identifier: Apache-2.0
"""From scribbles to masks, and pictures of features, on the command line.

alibi-dinov2 fit --model M --images FOLDER --labels FOLDER --output SEGMENTER
alibi-dinov2 predict --segmenter SEGMENTER --images FOLDER --output FOLDER
alibi-dinov2 info SEGMENTER

Labels are images named like those they belong to: 0 unlabelled, 1, 2, … classes. For each image `predict` writes the
classes as a TIFF, a picture of them (PNG), and for all a table of the share of each class (fractions.csv), which grows
with every call. It may be stopped at any time: run again, it goes on. Images that are done are not done again.
"""

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from alibi_dinov2.command import run
from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import DEFAULT_FOLDER, FeatureCache
from alibi_dinov2.io.files import new_file, require_new_folder
from alibi_dinov2.io.fractions import Row, fraction_rows, print_table, update_table
from alibi_dinov2.io.image_files import open_image
from alibi_dinov2.io.labels import read_labels
from alibi_dinov2.io.pairing import named_paths, pair_by_name, result_names
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.overlays import overlay
from alibi_dinov2.segmentation.pixel_classifiers import savable_classifiers
from alibi_dinov2.segmentation.prediction import names_of, segment_file
from alibi_dinov2.segmentation.saved_segmenter import read_settings
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter


def fit(arguments: argparse.Namespace) -> int:
    """Learn from labelled images and save the segmenter."""
    require_new_folder(arguments.output)
    pairs, unlabelled = pair_by_name(arguments.images, arguments.labels)
    if unlabelled:
        print(f"without labels, left out: {', '.join(map(str, unlabelled))}", file=sys.stderr)
    segmenter = TrainableSegmenter(
        load_backbone(arguments.model, arguments.device) if arguments.model else None,
        None if arguments.no_classical else ClassicalFeatures(),
        arguments.classifier,
        components=arguments.components,
        shifts=arguments.shifts,
        per_image=arguments.per_image,
        cache=FeatureCache(arguments.cache),
        class_names=arguments.class_names,
        seed=arguments.seed,
        progress=True,
    )
    with ExitStack() as stack:
        images = [stack.enter_context(open_image(path)) for path, _ in pairs]
        labels = [read_labels(path) for _, path in pairs]
        for (path, label_path), image, found in zip(pairs, images, labels, strict=True):
            if found.shape != (image.shape if image.slices == 1 else (image.slices, *image.shape)):
                raise ValueError(
                    f"{label_path} has shape {found.shape}, {path} has {image.slices} slices of {image.shape}; labels "
                    "have a number for each pixel."
                )
        segmenter.fit(images, labels)
    segmenter.save(arguments.output)
    marked = sum(int((found > 0).sum()) for found in labels)
    print(f"{arguments.output}: {len(segmenter.classes_)} classes from {marked} pixels of {len(pairs)} images")
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Segment images; the exit status is 1 if some of them cannot be."""
    paths = named_paths(arguments.images, arguments.output)
    results = result_names(paths)
    segmenter = TrainableSegmenter.load(
        arguments.segmenter,
        load_backbone(arguments.model, arguments.device) if arguments.model else None,
        cache=FeatureCache(arguments.cache),
        device=arguments.device,
        progress=True,
    )
    rows: list[Row] = []
    failures = []
    for name, path in tqdm(paths.items(), "images", unit="img"):
        result = arguments.output / results[name]
        try:
            description, new = segment_file(segmenter, path, result, class_colours())
            if arguments.overlay:
                draw_overlay(path, result, description, new)
        except (ValueError, FileNotFoundError) as error:
            failures.append(str(error))
        else:
            rows += fraction_rows(name, description)
    update_table(arguments.output, rows)
    print_table(rows)
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return 1 if failures else 0


def draw_overlay(path: Path, result: Path, description: Mapping[str, Any], new: bool) -> None:
    """Draw the class map of an image's middle slice over it, unless that picture is there and the map is not new."""
    picture = result.with_suffix(".png")
    if picture.exists() and not new:
        return
    with open_image(path) as image, open_image(result) as classes, new_file(picture) as temporary:
        drawn = overlay(image, classes, image.slices // 2, description["classes"], description["class_names"])
        drawn.save(temporary, format="PNG")


def info(arguments: argparse.Namespace) -> int:
    """Print what a saved segmenter holds."""
    settings = read_settings(arguments.segmenter)
    parameters, backbone, classical = settings.parameters, settings.backbone, settings.classical
    names = names_of(settings.classes, parameters["class_names"])
    facts = {
        "classes": ", ".join(f"{number} {name}" for number, name in zip(settings.classes, names, strict=True)),
        "classifier": parameters["classifier"],
        "deep features": f"{backbone.name}, {parameters['components']} components" if backbone else "none",
        "backbone's checksum": backbone.fingerprint if backbone else "none",
        "classical features": ", ".join(f"{name} {value}" for name, value in classical.items())
        if classical
        else "none",
        "sees": "colour" if settings.colour else "grey",
        "versions": ", ".join(f"{name} {version}" for name, version in settings.versions.items()),
        "identity": settings.checksum,
    }
    for name, value in facts.items():
        print(f"{name:<20}{value}")
    return 0


def segment_parser() -> argparse.ArgumentParser:
    """The parser of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--images", nargs="+", type=Path, required=True, help="images and folders of images")
    shared.add_argument("--device", default="cpu", help="where the backbone runs, such as cpu or cuda")
    shared.add_argument("--cache", type=Path, default=DEFAULT_FOLDER, help="folder for features; may be removed later")

    fitting = commands.add_parser("fit", parents=[shared], help="learn from labelled images")
    fitting.add_argument(
        "--labels", nargs="+", type=Path, required=True, help="label images and folders of them, named like the images"
    )
    features = fitting.add_mutually_exclusive_group(required=True)
    features.add_argument("--model", help="Hub id or folder of the backbone")
    features.add_argument("--no-deep", action="store_true", help="use classical features alone")
    fitting.add_argument("--no-classical", action="store_true", help="use deep features alone")
    fitting.add_argument("--classifier", choices=savable_classifiers(), default="xgboost")
    fitting.add_argument("--class-names", nargs="+", help="one for each class, in the order of their numbers")
    fitting.add_argument(
        "--components", type=int, default=DeepFeatures.components, help="principal components of the deep features"
    )
    fitting.add_argument(
        "--shifts",
        type=int,
        default=DeepFeatures.shifts,
        help="patches per patch length: 2 makes deep features twice as fine",
    )
    fitting.add_argument(
        "--per-image",
        action=argparse.BooleanOptionalAction,
        default=DeepFeatures.per_image,
        help="standardise deep features in each image; --no-per-image where images show different phases",
    )
    fitting.add_argument("--seed", type=int, default=0, help="of everything random")
    fitting.add_argument("--output", type=Path, required=True, help="folder for the segmenter; must not exist")
    fitting.set_defaults(command=fit)

    predicting = commands.add_parser("predict", parents=[shared], help="classify every pixel of images")
    predicting.add_argument("--segmenter", type=Path, required=True, help="folder that fit wrote")
    predicting.add_argument(
        "--model", help="the backbone, if it is no longer where it was when the segmenter was fitted"
    )
    predicting.add_argument(
        "--overlay", action=argparse.BooleanOptionalAction, default=True, help="draw the classes over each image"
    )
    predicting.add_argument("--output", type=Path, required=True, help="folder for the results")
    predicting.set_defaults(command=predict)

    describing = commands.add_parser("info", help="print what a saved segmenter holds")
    describing.add_argument("segmenter", type=Path, help="folder that fit wrote")
    describing.set_defaults(command=info)
    return parser


def main() -> None:
    """The console script `alibi-dinov2`."""
    run(segment_parser(), lambda arguments: arguments.command(arguments))


if __name__ == "__main__":
    main()
