# SPDX-License-Identifier: Apache-2.0
"""Dense features and trainable segmentation of images and stacks of any size.

alibi-dinov2 fit --model M --images FOLDER --labels FOLDER --output SEGMENTER
alibi-dinov2 validate --model M --images FOLDER --labels FOLDER
alibi-dinov2 predict --segmenter SEGMENTER --images FOLDER --output FOLDER
alibi-dinov2 info SEGMENTER
alibi-dinov2 features --model M --images FOLDER --output FOLDER
alibi-dinov2 pca --models M1 M2 --images FOLDER --output panel.png
alibi-dinov2 app --model ONNX_FOLDER
"""

import argparse
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from alibi_dinov2.app import serve
from alibi_dinov2.command import run
from alibi_dinov2.feature_panel import feature_panel
from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.columns import columns, named_backbones
from alibi_dinov2.features.feature_cache import DEFAULT_FOLDER, FeatureCache
from alibi_dinov2.features.feature_files import FORMATS, export_features
from alibi_dinov2.features.precision import BACKBONE_DTYPES
from alibi_dinov2.features.zoo import MODELS
from alibi_dinov2.io.files import require_new_folder
from alibi_dinov2.io.fractions import TABLE, add_fractions, fractions_of, fractions_text, read_fractions
from alibi_dinov2.io.images import read_image
from alibi_dinov2.io.pairing import named_paths, pair_by_name, result_names
from alibi_dinov2.pictures.confusion import confusion_figure
from alibi_dinov2.pictures.panels import save_figure
from alibi_dinov2.segmentation.fitting import LABEL_SUFFIXES, fit_files, validate_files
from alibi_dinov2.segmentation.labelled_pixels import OneImageWarning
from alibi_dinov2.segmentation.prediction import DTYPES, Outputs, predict_files, result_paths
from alibi_dinov2.segmentation.saved_segmenter import read_settings
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from alibi_dinov2.segmentation.validation import FOLDS, GROUPS
from alibi_dinov2.segmenter_options import add_dtype, add_settings, new_segmenter, own_device
from modeling_alibi_dinov2.contrast import AUTO, Contrast

SIZE = 518  # shortest side in pixels: what the model was trained at


def fit(arguments: argparse.Namespace) -> None:
    """Learn from labelled images and save the segmenter."""
    require_new_folder(arguments.output)
    pairs = labelled_pairs(arguments)
    segmenter = new_segmenter(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OneImageWarning)
        marked = fit_files(segmenter, pairs)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    segmenter.save(arguments.output)
    print(f"contrast: {segmenter.contrast_.describe()}")
    print(f"{arguments.output}: {len(segmenter.classes_)} classes from {marked} pixels of {len(pairs)} images")


def validate(arguments: argparse.Namespace) -> None:
    """Tell how well segmenters do on labelled images, or strokes, that they have not learned from."""
    pairs = labelled_pairs(arguments)
    validation = validate_files(new_segmenter(arguments), pairs, arguments.by, arguments.folds)
    print(validation.text([path.name for path, _ in pairs]))
    if arguments.figure:
        save_figure(confusion_figure(validation.confusion, validation.class_names), arguments.figure)
        print(f"\n{arguments.figure}: written")


def labelled_pairs(arguments: argparse.Namespace) -> list[tuple[Path, Path]]:
    """The images with labels, and their labels; the other images are named."""
    pairs, unlabelled = pair_by_name(arguments.images, arguments.labels, "labels", LABEL_SUFFIXES)
    if unlabelled:
        print(f"without labels, left out: {', '.join(map(str, unlabelled))}", file=sys.stderr)
    return pairs


def predict(arguments: argparse.Namespace) -> int:
    """Segment images; the exit status is 1 if some of them cannot be."""
    paths = named_paths(arguments.images, arguments.output)
    outputs = Outputs(
        arguments.overlay,
        arguments.probabilities,
        arguments.uncertainty,
        arguments.instances,
        tuple(arguments.instance_classes),
        arguments.min_size,
        arguments.fill_holes,
    )
    results, table = result_paths(paths, arguments.output), arguments.output / TABLE
    read_fractions(table)  # so that a wrong one fails before the long work
    device, saved = own_device(arguments.device), read_settings(arguments.segmenter).backbone
    segmenter = TrainableSegmenter.load(
        arguments.segmenter,
        saved.load(arguments.segmenter, device, arguments.model) if saved and arguments.model else None,
        cache=FeatureCache(arguments.cache),
        device=device,
        progress=True,
    )
    rows, failures = [], []
    try:
        for name, found in predict_files(segmenter, paths, results, outputs):
            if isinstance(found, dict):
                rows += fractions_of(name, found)
            else:
                failures.append(str(found))
    except BaseException:
        # What stopped the work is told, not that the table cannot be written either; its rows come with the next call.
        with suppress(OSError):
            add_fractions(table, rows)
        raise
    add_fractions(table, rows)
    if os.environ.get("RANK", "0") == "0":
        print(fractions_text(rows))
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return 1 if failures else 0


def info(arguments: argparse.Namespace) -> None:
    """Print what a saved segmenter holds."""
    settings = read_settings(arguments.segmenter)
    parameters, backbone = settings.all_parameters, settings.backbone
    names = parameters["class_names"] or [f"class {number}" for number in settings.classes]
    classical = settings.classical or {}
    facts = {
        "classes": ", ".join(f"{number} {name}" for number, name in zip(settings.classes, names, strict=True)),
        "classifier": parameters["classifier"],
        "deep features": f"{backbone.name}, {parameters['components']} components at each scale"
        if backbone
        else "none",
        "scales": " ".join(map(str, parameters["scales"])) if backbone else "none",
        "backbone's folder": backbone.folder or "none" if backbone else "none",
        "backbone's dtype": backbone.dtype if backbone else "none",
        "backbone's checksum": backbone.fingerprint if backbone else "none",
        "classical features": ", ".join(f"{name} {value}" for name, value in classical.items()) or "none",
        "position": ", ".join(parameters["position"]) or "none",
        "guided filter": f"radius {parameters['guided_radius']}" if parameters["guided_radius"] else "none",
        "sees": "colour" if settings.colour else "grey",
        "contrast": Contrast.from_dict(settings.contrast).describe(),
        "channel": parameters["channel"] if parameters["channel"] is not None else "not chosen",
        "series": parameters["series"] if parameters["series"] is not None else "not chosen",
        "versions": ", ".join(f"{name} {version}" for name, version in settings.versions.items()),
        "identity": settings.checksum,
    }
    for name, value in facts.items():
        print(f"{name:<20}{value}")


def features(arguments: argparse.Namespace) -> None:
    """Write the dense features of images."""
    paths = named_paths(arguments.images, arguments.output)
    names = result_names(paths)
    targets = {name: arguments.output / names[name].with_suffix(f".{arguments.format}") for name in paths}
    backbone = load_backbone(arguments.model, own_device(arguments.device), dtype=BACKBONE_DTYPES[arguments.dtype])
    export_features(
        backbone,
        paths,
        targets,
        arguments.size,
        arguments.components,
        arguments.pixels,
        arguments.with_image,
        arguments.contrast,
        arguments.channel,
        arguments.series,
    )
    print(f"{arguments.output}: features of {len(paths)} images")


def pca(arguments: argparse.Namespace) -> None:
    """Draw the first three principal components of the features of images."""
    seen = {name: getattr(arguments, name) for name in ("contrast", "channel", "series")}
    images = [read_image(path, **seen) for path in named_paths(arguments.images).values()]
    dtype = BACKBONE_DTYPES[arguments.dtype]
    backbones = named_backbones(arguments.models, arguments.names, own_device(arguments.device), dtype)
    picture = feature_panel(
        images, columns(backbones, arguments.size), arguments.shared, arguments.standardise, arguments.foreground
    )
    save_figure(picture, arguments.output)
    print(f"{arguments.output}: {len(images)} images")


def app(arguments: argparse.Namespace) -> None:
    """Serve the page that segments in a browser."""
    serve(arguments.model, arguments.port)


def add_fit(commands: argparse._SubParsersAction, shared: list[argparse.ArgumentParser]) -> None:
    """The arguments of `fit`."""
    parser = commands.add_parser("fit", parents=shared, help="learn from labelled images")
    add_settings(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the segmenter; must not exist")
    parser.set_defaults(command=fit)


def add_validate(commands: argparse._SubParsersAction, shared: list[argparse.ArgumentParser]) -> None:
    """The arguments of `validate`."""
    parser = commands.add_parser(
        "validate",
        parents=shared,
        help="tell how well labels that are left out are predicted from the others",
        description="Fits a segmenter to all labelled images but one, compares its prediction with the labels of that "
        "one, and so on, and prints how often classes are right and what they are confused with.",
    )
    add_settings(parser)
    parser.add_argument(
        "--by", choices=GROUPS, help="what is left out; if not given, the first of these that there are several of"
    )
    parser.add_argument("--folds", type=int, default=FOLDS, help="how often something is left out, at most")
    parser.add_argument("--figure", type=Path, help="file for a picture of the confusion table (PNG)")
    parser.set_defaults(command=validate)


def add_predict(commands: argparse._SubParsersAction, shared: list[argparse.ArgumentParser]) -> None:
    """The arguments of `predict`."""
    parser = commands.add_parser(
        "predict",
        parents=shared,
        help="classify every pixel of images",
        description="Writes for each image its classes as a TIFF, and for all the share of each class (fractions.csv), "
        "a table that grows with every call. It may be stopped at any time: run again, it goes on, and what is done is "
        "not done again. Started several times on the same folders, by hand or by `accelerate launch -m "
        "alibi_dinov2.cli predict …`, the processes share the work.",
    )
    parser.add_argument("--segmenter", type=Path, required=True, help="folder that fit wrote")
    parser.add_argument("--model", help="the backbone, if it is no longer where it was when the segmenter was fitted")
    parser.add_argument(
        "--overlay", action=argparse.BooleanOptionalAction, default=True, help="draw the classes over each image"
    )
    parser.add_argument("--probabilities", choices=DTYPES, help="write those of all classes, as a TIFF of this type")
    parser.add_argument(
        "--uncertainty", action="store_true", help="write 1 − margin as a TIFF, and a table of where to draw next"
    )
    parser.add_argument("--instances", action="store_true", help="label connected regions, and measure them in a table")
    parser.add_argument(
        "--instance-classes", type=int, nargs="+", default=[], help="classes whose regions are wanted; all if not given"
    )
    parser.add_argument("--min-size", type=int, default=1, help="pixels that a region has at least")
    parser.add_argument("--fill-holes", action="store_true", help="of regions, where no other region is")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.set_defaults(command=predict)


def add_features(commands: argparse._SubParsersAction, shared: list[argparse.ArgumentParser]) -> None:
    """The arguments of `features`."""
    parser = commands.add_parser(
        "features",
        parents=shared,
        help="write dense features of images",
        description="Axes are rows, columns, channels; before them, of a stack, slices.",
    )
    parser.add_argument("--model", required=True, help=f"Hub id or folder of the backbone, or {', '.join(MODELS)}")
    add_dtype(parser)
    parser.add_argument("--size", type=int, default=SIZE, help="shortest side in pixels at which the model sees images")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="h5 is HDF5, for ilastik")
    parser.add_argument("--components", type=int, help="principal components that all images have in common")
    parser.add_argument("--pixels", action="store_true", help="features of pixels, bilinear, and not of patches")
    parser.add_argument(
        "--with-image",
        action="store_true",
        help="with --pixels: the image itself as the first channel, or three, 0 to 1",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.set_defaults(command=features)


def add_pca(commands: argparse._SubParsersAction, shared: list[argparse.ArgumentParser]) -> None:
    """The arguments of `pca`."""
    parser = commands.add_parser(
        "pca",
        parents=shared,
        help="draw features of images as colours",
        description="The first three principal components are red, green and blue. Each image has components of its "
        "own, turned so that like colours mean like things in all models.",
    )
    parser.add_argument("--models", nargs="+", required=True, help="Hub ids or folders of backbones, a column each")
    parser.add_argument("--names", nargs="+", help="what to call the models; Hub ids or folder names if not given")
    parser.add_argument(
        "--size",
        nargs="+",
        type=int,
        default=[SIZE],
        help="shortest side in pixels at which the models see images; of several, each gives every model a column",
    )
    add_dtype(parser)
    parser.add_argument("--shared", action="store_true", help="one basis for all images of a model, not one for each")
    parser.add_argument("--foreground", action="store_true", help="components of the foreground; background is black")
    parser.add_argument("--standardise", action="store_true", help="bring every channel to variance 1 first")
    parser.add_argument("--output", type=Path, required=True, help="file for the picture (PNG)")
    parser.set_defaults(command=pca)


def add_app(commands: argparse._SubParsersAction) -> None:
    """The arguments of `app`."""
    parser = commands.add_parser(
        "app",
        help="segment in a browser",
        description="Serves a page on this machine, for this machine alone; images never leave the browser.",
    )
    parser.add_argument("--model", required=True, help="folder that training.export_onnx wrote, or a Hub id of one")
    parser.add_argument("--port", type=int, default=8765, help="of the address; 0 for any that is free")
    parser.set_defaults(command=app)


def main_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        "alibi-dinov2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    images = argparse.ArgumentParser(add_help=False)
    images.add_argument("--images", nargs="+", type=Path, required=True, help="images and folders of images")
    seen = argparse.ArgumentParser(add_help=False)
    seen.add_argument(
        "--contrast",
        default=AUTO,
        help="how values become grey levels: auto (8-bit values as they are, others stretched), per-image, "
        "full-range, or low,high",
    )
    seen.add_argument("--channel", help="name or number of the channel that is seen, or of up to three, with commas")
    seen.add_argument("--series", help="name or number of the image that is seen, of files with several kinds of them")
    images.add_argument("--device", default="cpu", help="where the backbone runs, such as cpu or cuda")
    cache = argparse.ArgumentParser(add_help=False)
    cache.add_argument("--cache", type=Path, default=DEFAULT_FOLDER, help="folder for features; may be removed later")
    add_fit(commands, [images, seen, cache])
    add_validate(commands, [images, seen, cache])
    add_predict(commands, [images, cache])
    describing = commands.add_parser("info", help="print what a saved segmenter holds")
    describing.add_argument("segmenter", type=Path, help="folder that fit wrote")
    describing.set_defaults(command=info)
    add_features(commands, [images, seen])
    add_pca(commands, [images, seen])
    add_app(commands)
    return parser


def main() -> None:
    run(main_parser(), lambda arguments: arguments.command(arguments))


if __name__ == "__main__":
    main()
