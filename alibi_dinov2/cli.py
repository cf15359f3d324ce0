# SPDX-License-Identifier: Apache-2.0
"""Trainable segmentation of micrographs: learn from scribbles, classify every pixel of images and stacks of any size.

python -m alibi_dinov2.cli fit --model M --images FOLDER --labels FOLDER --output SEGMENTER
python -m alibi_dinov2.cli predict --segmenter SEGMENTER --images FOLDER --output FOLDER
python -m alibi_dinov2.cli info SEGMENTER

Labels are images named like those they belong to: 0 unlabelled, 1, 2, … classes. For each image `predict` writes the
classes as a TIFF, a picture of them (PNG), and for all a table of the share of each class (fractions.csv). It may be
stopped at any time: run again, it goes on. Images that are done are not done again.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import logging

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import DEFAULT_FOLDER, FeatureCache
from alibi_dinov2.io.files import new_file, require_new_folder, sha256_of
from alibi_dinov2.io.images import find_images
from alibi_dinov2.io.labels import read_labels
from alibi_dinov2.io.open_image import ImageFile, open_image
from alibi_dinov2.io.tiled_tiff import TiledPrediction, read_description
from alibi_dinov2.io.tiles import blocks
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.overlays import overlay
from alibi_dinov2.segmentation.pixel_classifiers import savable_classifiers
from alibi_dinov2.segmentation.segmenter import BLOCK, TrainableSegmenter, folder_identity, read_settings

TABLE = "fractions.csv"
COLUMNS = ("file", "slice", "class", "name", "pixels", "fraction")
Row = tuple[str, int, int, str, int, float]


def named_paths(given: Sequence[Path], output: Path | None = None) -> dict[Path, Path]:
    """Images by what they are called: files by their name, those of folders by their path in them.

    Args:
        given: files and folders.
        output: folder for results; what lies in it is left out.

    Raises:
        FileNotFoundError: there is no such file or folder, or a folder without an image.
        ValueError: two different images have one name, or a file or folder lies in `output`.
    """
    found: dict[Path, Path] = {}
    for source in given:
        if output and output.resolve() in (source.resolve(), *source.resolve().parents):
            raise ValueError(f"{source} lies in {output}, where results would be mixed up with it; choose another.")
        for path in [source] if source.is_file() else find_images(source):
            if output and output.resolve() in path.resolve().parents:
                continue
            name = Path(path.name) if path == source else path.relative_to(source)
            other = found.setdefault(name, path)
            if other.resolve() != path.resolve():
                raise ValueError(f"{other} and {path} are both called {name}; segment them one after the other.")
    return found


def result_names(names: Iterable[Path]) -> dict[Path, Path]:
    """What the class maps of images are called: with `.tif` instead of their suffix, or after it to be unambiguous.

    Raises:
        ValueError: two of them would still have one name.
    """
    stems = {name: str(name.with_suffix("")).casefold() for name in names}
    count = Counter(stems.values())
    results = {
        name: name.with_name((name.stem if count[stem] == 1 else name.name) + ".tif") for name, stem in stems.items()
    }
    owners: dict[str, Path] = {}
    for name, result in results.items():
        other = owners.setdefault(str(result).casefold(), name)
        if other != name:
            raise ValueError(f"The results of {other} and {name} would both be called {result}; rename one of them.")
    return results


def pair_labels(images: Sequence[Path], labels: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Images with their labels, of the same name but for the suffix, and the images that have none.

    A single image goes with a single file of labels, whatever the two are called.

    Raises:
        ValueError: labels have no image, or two files differ in the suffix only.
        FileNotFoundError: as for `named_paths`.
    """
    if len(images) == len(labels) == 1 and images[0].is_file() and labels[0].is_file():
        return [(images[0], labels[0])], []
    by_stem: list[dict[Path, Path]] = []
    for given in (images, labels):
        found = named_paths(given)
        by_stem.append({name.with_suffix(""): path for name, path in found.items()})
        if len(by_stem[-1]) < len(found):
            twice = [str(stem) for stem, count in Counter(name.with_suffix("") for name in found).items() if count > 1]
            raise ValueError(
                f"{', '.join(twice)}: files differ in the suffix only; images and labels go together by name."
            )
    image_paths, label_paths = by_stem
    lonely = [str(path) for stem, path in label_paths.items() if stem not in image_paths]
    if lonely:
        raise ValueError(f"{', '.join(lonely)}: there is no image of the same name. Add it, or remove the labels.")
    pairs = [(path, label_paths[stem]) for stem, path in image_paths.items() if stem in label_paths]
    return pairs, [path for stem, path in image_paths.items() if stem not in label_paths]


def fit(arguments: argparse.Namespace) -> int:
    """Learn from labelled images and save the segmenter."""
    require_new_folder(arguments.output)
    pairs, unlabelled = pair_labels(arguments.images, arguments.labels)
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
        try:
            description = segment_file(segmenter, path, arguments.output / results[name], arguments.overlay)
        except (ValueError, FileNotFoundError) as error:
            failures.append(str(error))
        else:
            rows += fraction_rows(name, description)
    write_table(arguments.output / TABLE, rows)
    print_table(rows)
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return 1 if failures else 0


def segment_file(segmenter: TrainableSegmenter, path: Path, result: Path, with_overlay: bool) -> dict[str, Any]:
    """Write the class maps of an image or a stack, unless they are there, and a picture of its middle slice.

    Returns:
        The description that the maps carry: the classes, their names, and how many pixels of each slice are of each.

    Raises:
        ValueError: the image cannot be segmented, or another file has the name of the result.
        OSError: the result cannot be written.
    """
    identity = prediction_identity(segmenter, path)
    description = read_description(result)
    if result.exists() and "identity" not in (description or {}):
        raise ValueError(f"{result} is there and is no result of this command; move it, or choose another folder.")
    picture = result.with_suffix(".png")
    with open_image(path) as image:
        if description is None or description["identity"] != identity:
            picture.unlink(missing_ok=True)
            description = write_classes(segmenter, image, result, identity)
        if with_overlay and not picture.exists():
            with open_image(result) as classes, new_file(picture) as temporary:
                drawn = overlay(image, classes, image.slices // 2, description["classes"], description["class_names"])
                drawn.save(temporary, format="PNG")
    return description


def write_classes(segmenter: TrainableSegmenter, image: ImageFile, result: Path, identity: str) -> dict[str, Any]:
    """Segment block by block, going on from what an earlier run did, and write the file; see `segment_file`."""
    prediction = TiledPrediction(result, image.slices, image.shape, identity)
    total = image.slices * len(blocks(image.shape, BLOCK))
    with tqdm(
        total=total,
        initial=len(prediction.finished),
        desc=image.path.name,
        unit="block",
        leave=False,
        disable=total == 1,
    ) as bar:
        for index in range(image.slices):
            wanted = segmenter.predict_blocks(image, index, partial(prediction.done, index))
            for number, block, probabilities in wanted:
                prediction.write(index, number, *block, segmenter.classes_[probabilities.argmax(axis=-1)])
                bar.update()
    description = {
        "identity": identity,
        "image": image.path.name,
        "classes": segmenter.classes_.tolist(),
        "class_names": names_of(segmenter.classes_.tolist(), segmenter.class_names),
        "pixels": prediction.counts()[:, segmenter.classes_].tolist(),
    }
    prediction.finish(description, class_colours())
    return description


def prediction_identity(segmenter: TrainableSegmenter, path: Path) -> str:
    """SHA-256 of all that the classes of an image depend on."""
    facts = [segmenter.identity, sha256_of(path), BLOCK]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def names_of(classes: Sequence[int], names: Sequence[str] | None) -> list[str]:
    """Names of the classes, their numbers if they have none."""
    return list(names) if names else [f"class {number}" for number in classes]


def fraction_rows(name: Path, description: dict[str, Any]) -> list[Row]:
    """A row of the table for each slice and class."""
    return [
        (name.as_posix(), index, number, class_name, pixels, pixels / sum(counts))
        for index, counts in enumerate(description["pixels"])
        for number, class_name, pixels in zip(description["classes"], description["class_names"], counts, strict=True)
    ]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the share of each class in each slice as CSV, whole or not at all."""
    with new_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:-1], f"{row[-1]:.6f}") for row in rows)


def print_table(rows: Sequence[Row]) -> None:
    """Print the share of each class in each file, over all its slices."""
    totals: dict[tuple[str, str], int] = Counter()
    for file, _, _, name, pixels, _ in rows:
        totals[file, name] += pixels
    of_file: dict[str, int] = Counter()
    for (file, _), pixels in totals.items():
        of_file[file] += pixels
    width = max((len(file) for file in of_file), default=0)
    for (file, name), pixels in totals.items():
        print(f"{file:<{width}}  {name:<20}{pixels / of_file[file]:8.4f}")


def info(arguments: argparse.Namespace) -> int:
    """Print what a saved segmenter holds."""
    settings = read_settings(arguments.segmenter)
    deep, classical = settings["deep"], settings["classical"]
    names = names_of(settings["classes"], settings["class_names"])
    facts = {
        "classes": ", ".join(f"{number} {name}" for number, name in zip(settings["classes"], names, strict=True)),
        "classifier": settings["classifier"],
        "deep features": f"{deep['backbone']}, {deep['components']} components" if deep else "none",
        "backbone's checksum": deep["fingerprint"] if deep else "none",
        "classical features": ", ".join(f"{name} {value}" for name, value in classical.items())
        if classical
        else "none",
        "sees": "colour" if settings["colour"] else "grey",
        "versions": ", ".join(f"{name} {version}" for name, version in settings["versions"].items()),
        "identity": folder_identity(arguments.segmenter),
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
    logging.disable_progress_bar()
    parser = segment_parser()
    arguments = parser.parse_args()
    try:
        status = arguments.command(arguments)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
