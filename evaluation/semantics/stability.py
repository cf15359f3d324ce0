# SPDX-License-Identifier: Apache-2.0
"""How quiet features are: does the same content get the same feature when nothing but the view of it changes?

    python -m evaluation.semantics.stability --model student --images data/micrographs --output results/stability.json

Of each image a square window is seen, and once more changed a little. The figures are mean cosines of the features of
what is the same in both:

    moved           the window is moved by a quarter of its side, and
    moved_border    of this the patches within two of a border of either window, where a seam would show, and
    moved_inside    all others
    half_patch      it is moved by half a patch: patches, and the mean of the two that each overlaps
    noise           normal noise of 4 grey levels is added
    jpeg            it is compressed as JPEG of quality 85
    same_phase      neighbouring patches inside one phase; with `--masks`
    any_two         two patches of a window at random, as a yardstick: where this is high too, little is told apart

Each is there once more with `_centred` after its name, of features from which the mean of the window is subtracted:
what is left tells the places of an image apart, and is what a picture of principal components shows. With `_placeless`
what the other images have in common at a patch's place is subtracted, too, as polynomials of row and column: what tells
the place looks stable when little moves, and is left out there.

    longest_token   the length of the longest patch token before the last layer norm, in the median of its image:
                    tokens of high norm ("Vision Transformers Need Registers", arXiv 2309.16588) have many times that
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone, patch_shape, patch_step
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_folder
from evaluation.command import measured_backbone, record_parser, run_record
from evaluation.report.records import DatasetFacts, Stopwatch, data_name, describe_images, make_record, mean_and_std
from evaluation.semantics.miou import VOID
from evaluation.semantics.segmentation_data import read_pairs

NOISE = 4.0  # grey levels
QUALITY = 85
BORDER = 2  # patches
PURE = 0.95  # share of a patch's pixels that are of one phase
DEGREE = 4  # of the polynomials of the place: few numbers, in which the content of the images averages out


def square(image: Image.Image, side: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """The centred square of an image, `side` pixels a side."""
    shortest = min(image.size)
    left, top = ((length - shortest) / 2 for length in image.size)
    return image.resize((side, side), resample, box=(left, top, left + shortest, top + shortest))


def move_of(size: int, patch: int) -> int:
    """A quarter of a window's side in whole patches."""
    return max(round(size / patch / 4), 1)


def views(image: Image.Image, size: int, patch: int, random: np.random.Generator) -> dict[str, Image.Image]:
    """The window of an image and its changes by name, RGB, `size` pixels a side."""
    move = move_of(size, patch) * patch
    whole = square(image.convert("RGB"), size + move)

    def window(left: int, top: int) -> Image.Image:
        return whole.crop((left, top, left + size, top + size))

    here, compressed = window(0, 0), io.BytesIO()
    here.save(compressed, "JPEG", quality=QUALITY)
    noisy = np.asarray(here) + random.normal(0, NOISE, (size, size, 1))
    return {
        "here": here,
        "moved": window(move, move),
        "half_patch": window(patch // 2, 0),
        "noise": Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)),
        "jpeg": Image.open(compressed).convert("RGB"),
    }


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of corresponding features `(…, D)`."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(axis=-1) / np.maximum(lengths, np.finfo(float).tiny)


def compare(maps: dict[str, np.ndarray], move: int, random: np.random.Generator) -> dict[str, float]:
    """The figures of one image that need no mask.

    Args:
        maps: features `(n, n, D)` of each of the `views`.
        move: of the moved window in patches.
    """
    here = maps["here"]
    moved = cosines(here[move:, move:], maps["moved"][:-move, :-move])
    near = np.zeros(moved.shape, dtype=bool)
    near[:BORDER] = near[:, :BORDER] = near[-BORDER:] = near[:, -BORDER:] = True
    between = (here[:, :-1] + here[:, 1:]) / 2
    patches = here.reshape(-1, here.shape[-1])
    return {
        "moved": float(moved.mean()),
        "moved_border": float(moved[near].mean()),
        "moved_inside": float(moved[~near].mean()),
        "half_patch": float(cosines(between, maps["half_patch"][:, :-1]).mean()),
        "noise": float(cosines(here, maps["noise"]).mean()),
        "jpeg": float(cosines(here, maps["jpeg"]).mean()),
        "any_two": float(cosines(patches, random.permutation(patches)).mean()),
    }


def by_place(features: np.ndarray) -> np.ndarray:
    """The part of features `(n, n, D)` that is polynomials of row and column, of the same shape; least squares."""
    along = np.linspace(-1, 1, len(features))
    rows, columns = along[:, None], along[None]
    powers = [rows**i * columns**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    basis = np.linalg.qr(np.stack(powers, axis=-1).reshape(-1, len(powers)))[0]
    flat = features.reshape(len(basis), -1)
    return (basis @ (basis.T @ flat)).reshape(features.shape)


def phases_of_patches(mask: np.ndarray, patch: int) -> np.ndarray:
    """The class of each patch of a mask `(H, W)`, `(H / patch, W / patch)`; -1 where no class fills it."""
    rows, columns = (length // patch for length in mask.shape)
    pixels = mask[: rows * patch, : columns * patch].reshape(rows, patch, columns, patch).swapaxes(1, 2)
    phases = np.full((rows, columns), -1)
    for value in set(np.unique(mask)) - {VOID}:
        phases[(pixels == value).mean(axis=(2, 3)) >= PURE] = value
    return phases


def same_phase(features: np.ndarray, phases: np.ndarray) -> list[float]:
    """Cosines of features `(n, n, D)` of right and lower neighbours inside one phase, from `phases_of_patches`."""
    found: list[float] = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        inside = (phases[one] == phases[other]) & (phases[one] >= 0)
        found += cosines(features[one], features[other])[inside].tolist()
    return found


def longest_token(backbone: Backbone, window: Image.Image, size: int) -> float:
    """The length of an image's longest patch token in that of its median one, before the last layer norm."""
    (layers,) = dense_features(backbone, [window], size, layers=[backbone.model.config.num_hidden_layers])
    lengths = np.linalg.norm(layers[0], axis=-1)
    return float(lengths.max() / np.median(lengths))


def measure(
    backbone: Backbone,
    images: Sequence[Image.Image],
    dataset: DatasetFacts,
    size: int,
    masks: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Images -> views -> features -> result record; means over images and their standard deviation.

    A backbone with a removal, which is of its output, has no `longest_token`.

    Args:
        size: side of the window in pixels, a multiple of the patch's.
        masks: `(H, W)` integer classes of each image, of its size, or `VOID`; if there are any.
        seed: of the noise.

    Raises:
        ValueError: the size does not fit the patches, patches are not square or overlap, or no two neighbouring patches
            lie in one phase.
    """
    stopwatch, patch = Stopwatch(), patch_shape(backbone)[0]
    if {*patch_shape(backbone), *patch_step(backbone)} != {patch}:
        raise ValueError(f"The patches of {backbone.source} must be square and lie side by side.")
    if size % patch or size < 4 * BORDER * patch:
        raise ValueError(
            f"The size is {size}; it must be a multiple of the patch size, {patch} pixels, of {4 * BORDER} patches or "
            f"more, such as {37 * patch}."
        )
    move, figures = move_of(size, patch), dict[str, list[float]]()
    maps: list[dict[str, np.ndarray]] = []  # 10 MB an image at 518 px
    for number, image in enumerate(tqdm(images, f"views of {backbone.name}", unit="img")):
        seen = views(image, size, patch, np.random.default_rng((seed, number)))
        maps.append(dict(zip(seen, dense_features(backbone, seen.values(), size), strict=True)))
        if backbone.removal is None:
            figures.setdefault("longest_token", []).append(longest_token(backbone, seen["here"], size))
    means = [entry["here"].mean(axis=(0, 1), dtype=np.float64) for entry in maps]
    places = [by_place(entry["here"] - mean) for entry, mean in zip(maps, means, strict=True)]
    place_sum = np.sum(places, axis=0)
    for number, (entry, mean) in enumerate(zip(maps, means, strict=True)):
        offsets = {"": 0.0, "_centred": mean}
        if len(maps) > 1:
            offsets["_placeless"] = mean + (place_sum - places[number]) / (len(maps) - 1)
        phases = None
        if masks is not None:
            whole = Image.fromarray(masks[number].astype(np.int32))
            mask = np.asarray(square(whole, size + move * patch, Image.Resampling.NEAREST))[:size, :size]
            phases = phases_of_patches(mask, patch)
        for suffix, offset in offsets.items():
            shifted = {name: features - offset for name, features in entry.items()}
            found = compare(shifted, move, np.random.default_rng((seed, number, 1)))
            if phases is not None:
                pairs = same_phase(shifted["here"], phases)
                found |= {"same_phase": float(np.mean(pairs))} if pairs else {}
            for name, value in found.items():
                figures.setdefault(name + suffix, []).append(value)
    if masks is not None and "same_phase" not in figures:
        raise ValueError(f"No two neighbouring patches lie in one phase at {size} pixels; raise the size.")
    parameters = {"size": size, "noise": NOISE, "jpeg_quality": QUALITY, "moved_patches": move, "border": BORDER}
    return make_record("stability", mean_and_std(figures), dataset, backbone, parameters, seed, stopwatch)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = record_parser(__doc__)
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--masks", type=Path, help="folder of their masks, with the same names")
    return parser


def command(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record that the options ask for."""
    if arguments.masks:
        images, masks = read_pairs([Path(arguments.images)], arguments.masks)
    else:
        images, masks = read_folder(arguments.images), None
    dataset = describe_images(data_name(arguments.images), images)
    return measure(measured_backbone(arguments), images, dataset, arguments.size, masks, arguments.seed)


def main(argv: Sequence[str] | None = None) -> None:
    run_record(make_parser(), command, argv)


if __name__ == "__main__":
    main()
