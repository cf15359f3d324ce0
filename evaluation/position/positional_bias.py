# SPDX-License-Identifier: Apache-2.0
"""Where in a backbone, and in which of its channels, the place of a patch can be read (arXiv 2603.16840, section 3).

    python -m evaluation.position.positional_bias --model teacher --images data/micrographs --output results/bias.json
    python -m evaluation.position.positional_bias --model teacher --noise 4 --output results/bias.json --figures figures
    python -m evaluation.position.positional_bias --model teacher --images data/micrographs --output results/mlp.json \\
        --probes mlp --layers output --ramps x_y

Probes predict ramps, functions of the place, from the features of single patches: from all channels together and from
each channel alone; after every layer, in its hidden state, and from the normalised output. All come from one forward
pass an image. The record has for every sampling, probe, ramp and layer the mean and standard deviation over images and
draws of R², over all patches (as published, those fitted on included) and over held-out ones. Beside it lies an archive
(.npz) with the R² of every image and draw, of every channel, and the mean predictions.

The linear probe has no penalty: where patches are hardly different, as in periodic images, its R² may fall below -1,000
and one image decide the mean. The ridge probe is the published one.

An MLP is fitted for every ramp, layer and draw anew: with all of them that takes minutes instead of seconds.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.dense_features import OUTPUT, Layer, dense_features
from alibi_dinov2.io.files import new_file, sha256_of
from alibi_dinov2.pictures.panels import save_figure
from evaluation.command import measured_backbone, record_parser, run_record
from evaluation.position.channel_probes import channel_r2
from evaluation.position.joint_probes import PROBES, predict_ramps, r_squared
from evaluation.position.patch_sampling import SAMPLINGS, TRAIN_FRACTION, PatchSample, sample_repeatedly
from evaluation.position.position_targets import RAMPS, ramp_targets
from evaluation.position.positional_figures import channel_figure, prediction_figure, worst_channel_figure
from evaluation.position.positional_probe import REPEATS, add_image_options, read_images
from evaluation.report.records import DatasetFacts, Stopwatch, make_record, mean_and_std

KINDS = ("all_patches", "held_out")
MAP_SIDE = 34  # to which predictions on grids of all sizes are brought before they are averaged, as published
WORST = 6  # channels that a record names
SHOWN = ("layers", "ramps", "samplings", "probes")  # settings that a table of a record needs
PREVIEWS = 4  # images on which their maps are shown
# Features whose patches differ by less than this share of their size are the same but for rounding.
CONSTANT = 1e-4


@dataclass(frozen=True)
class Settings:
    """What is probed, and how."""

    layers: tuple[Layer, ...]
    ramps: tuple[str, ...] = RAMPS
    samplings: tuple[str, ...] = ("random",)
    probes: tuple[str, ...] = ("linear", "ridge")
    repeats: int = REPEATS
    seed: int = 0


@dataclass(frozen=True)
class PositionalBias:
    """Results of probing, with axes S samplings, P probes, L layers, K ramps, D channels, and 2 kinds of R² (`KINDS`).

    Attributes:
        joint_r2: `(images, S, P, repeats, L, K, 2)`, of all channels together.
        channel_r2: `(S, L, K, D, 2)`, of each channel alone, by ridge regression: the mean over images and repeats.
        channel_r2_std: `(S, L, K, D, 2)`, the standard deviation over images and repeats.
        predictions: `(S, P, L, T, 34, 34)`, the mean over images and repeats of what all channels together predict for
            the `T` targets: one for each ramp in turn, two for x_y.
    """

    joint_r2: np.ndarray
    channel_r2: np.ndarray
    channel_r2_std: np.ndarray
    predictions: np.ndarray


def probe_features(maps: Iterable[np.ndarray], settings: Settings) -> PositionalBias:
    """Probe the features of images, one after the other.

    Args:
        maps: `(L, h, w, D)` for each image, of the settings' layers; grids may differ.
        settings: what to probe, and how.

    Raises:
        ValueError: there is no image; an image has too few patches; its features are the same all over it.
    """
    ramp_draws = np.random.default_rng([settings.seed, 1])
    sample_draws = {name: np.random.default_rng(settings.seed) for name in settings.samplings}
    joint, sums = [], None
    for number, layers in enumerate(maps):
        depth, rows, columns, width = layers.shape
        features = layers.reshape(depth, rows * columns, width)
        require_variation(features, number, settings.layers)
        targets = ramp_targets(settings.ramps, rows, columns, ramp_draws)
        results = []
        # For matrices this small a second thread is of no use, and on a busy machine it slows down the first.
        with threadpool_limits(1, user_api="blas"):
            for name, draws in sample_draws.items():
                sample = sample_repeatedly(name, rows, columns, settings.repeats, draws)
                r2, predictions = probe_jointly(features, targets, sample, settings)
                results.append((r2, resample(predictions, rows, columns), *probe_channels(features, targets, sample)))
        scores, *means = (np.stack(parts) for parts in zip(*results, strict=True))
        joint.append(scores)
        sums = means if sums is None else [total + mean for total, mean in zip(sums, means, strict=True)]
    if sums is None:
        raise ValueError("There is no image to probe; give one or more.")
    predictions, channels, squares = (total / len(joint) for total in sums)
    std = np.sqrt(np.maximum(squares - channels**2, 0))
    return PositionalBias(np.stack(joint), channels, std, predictions)


def require_variation(features: np.ndarray, number: int, layers: tuple[Layer, ...]) -> None:
    """Raise a `ValueError` if the features `(L, N, D)` of an image are the same for all patches, but for rounding.

    A probe would find no position, or that of rounding errors; neither says anything of the model.
    """
    spread = features.std(axis=1, dtype=np.float64).max(axis=-1)
    constant = spread <= CONSTANT * np.sqrt(np.mean(features**2, axis=(1, 2), dtype=np.float64))
    if constant.any():
        names = ", ".join(label(layer) for layer, same in zip(layers, constant, strict=True) if same)
        raise ValueError(
            f"The features of image {number + 1} ({names}) are the same for all patches, which tells nothing of the "
            "model's positional bias. Remove the image if it is blank, or check the model."
        )


def probe_jointly(
    features: np.ndarray, targets: Mapping[str, np.ndarray], sample: PatchSample, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """R² `(P, repeats, L, K, 2)` and mean predictions `(P, L, T, N)` of all channels of an image together.

    Args:
        features: `(L, N, D)`.
        targets: from `ramp_targets`.
        sample: from `sample_repeatedly`.
        settings: for the probes and their seed.
    """
    ramps = list(targets.values())
    expected = np.concatenate(ramps, axis=1)
    shape = (len(settings.probes), len(sample.train), len(features))
    r2 = np.empty((*shape, len(ramps), len(KINDS)))
    predictions = np.zeros((shape[0], shape[2], *expected.T.shape))
    for (p, probe), (r, train), (n, layer) in product(*map(enumerate, (settings.probes, sample.train, features))):
        predicted = predict_ramps(probe, layer, ramps, train, settings.seed + r)
        for kind, patches in enumerate((np.s_[:], sample.held_out[r])):
            r2[p, r, n, :, kind] = ramp_means(r_squared(predicted, expected, patches), targets)
        predictions[p, n] += predicted.T / len(sample.train)
    return r2, predictions


def probe_channels(
    features: np.ndarray, targets: Mapping[str, np.ndarray], sample: PatchSample
) -> tuple[np.ndarray, np.ndarray]:
    """R² of every channel alone and its square, means over repeats, `(L, K, D, 2)` each; arguments as before."""
    scores = channel_r2(features, np.concatenate(list(targets.values()), axis=1), sample.train, sample.held_out)
    r2 = ramp_means(np.stack([scores.all_patches, scores.held_out], axis=-1), targets, axis=2)
    return r2.mean(axis=1), (r2**2).mean(axis=1)


def ramp_means(values: np.ndarray, targets: Mapping[str, np.ndarray], axis: int = 0) -> np.ndarray:
    """Means over the targets of each ramp: `T` values along an axis -> `K`."""
    ends = np.cumsum([ramp.shape[1] for ramp in targets.values()])
    return np.stack([part.mean(axis=axis) for part in np.split(values, ends[:-1], axis=axis)], axis=axis)


def resample(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Maps `(P, L, T, rows·columns)` brought to `MAP_SIDE`×`MAP_SIDE` by bilinear interpolation."""
    grids = torch.from_numpy(maps).flatten(0, 1).unflatten(-1, (rows, columns))
    square = torch.nn.functional.interpolate(grids, (MAP_SIDE, MAP_SIDE), mode="bilinear")
    return square.numpy().reshape(*maps.shape[:3], MAP_SIDE, MAP_SIDE)


def label(layer: Layer) -> str:
    """What records call a layer: `layer3`, or `output`."""
    return OUTPUT if layer == OUTPUT else f"layer{layer}"


def summarise(result: PositionalBias, settings: Settings) -> dict[str, float]:
    """Figures by the names that records use.

    `random/ridge/x_y/layer12/r2_held_out` is the mean over images and draws, and the same with `_std` the standard
    deviation; `random/channels/x_y/layer12/mean_r2_held_out` is the mean over channels of their own R².
    """
    metrics: dict[str, float] = {}
    layers = [label(layer) for layer in settings.layers]
    for (s, sampling), (k, ramp), (n, layer), (j, kind) in product(
        *map(enumerate, (settings.samplings, settings.ramps, layers, KINDS))
    ):
        for p, probe in enumerate(settings.probes):
            values = result.joint_r2[:, s, p, :, n, k, j]
            name = f"{sampling}/{probe}/{ramp}/{layer}/r2_{kind}"
            metrics |= mean_and_std({name: values})
        metrics[f"{sampling}/channels/{ramp}/{layer}/mean_r2_{kind}"] = float(result.channel_r2[s, n, k, :, j].mean())
    return {name: round(value, 6) for name, value in metrics.items()}


def worst_channels(result: PositionalBias, settings: Settings) -> dict[str, list[int]]:
    """The channels of the last layer that alone tell each ramp best, best first; by R² over all patches."""
    scores = result.channel_r2[0, -1, :, :, 0]
    return {ramp: np.argsort(-row)[:WORST].tolist() for ramp, row in zip(settings.ramps, scores, strict=True)}


def table(metrics: Mapping[str, float], settings: Settings) -> str:
    """R² over all and over held-out patches as plain text, a line per layer and a column per ramp."""
    lines = []
    for sampling, probe in product(settings.samplings, settings.probes):
        lines += [f"{probe} probe, {sampling} patches: R² over all patches / held out"]
        lines += [f"{'':<8}" + "".join(f"{ramp:>14}" for ramp in settings.ramps)]
        for layer in map(label, settings.layers):
            names = [f"{sampling}/{probe}/{ramp}/{layer}/r2_" for ramp in settings.ramps]
            cells = [" / ".join(f"{metrics[name + kind]:5.2f}" for kind in KINDS) for name in names]
            lines += [f"{layer:<8}" + "".join(f"{cell:>14}" for cell in cells)]
    return "\n".join(lines)


def save_arrays(result: PositionalBias, settings: Settings, path: Path) -> None:
    """Write the results with the names along their axes as .npz, whole or not at all; `numpy.load` opens it."""
    names = {
        "samplings": settings.samplings,
        "probes": settings.probes,
        "layers": [label(layer) for layer in settings.layers],
        "ramps": settings.ramps,
        "kinds": KINDS,
    }
    arrays = {name: array.astype(np.float32) for name, array in vars(result).items()}
    with new_file(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays, **{k: np.array(v) for k, v in names.items()})


def save_figures(
    result: PositionalBias,
    settings: Settings,
    images: Sequence[Image.Image],
    features: Sequence[np.ndarray],
    folder: Path,
) -> None:
    """Draw `channels.png`, `predictions.png` and `worst_channels.png`, of the first sampling and R² over all patches.

    Args:
        images: to show the worst channels on.
        features: `(h, w, D)` of the last layer for each of these images.
    """
    layers = [label(layer) for layer in settings.layers]
    joint = dict(zip(settings.probes, result.joint_r2[:, 0, ..., 0].mean(axis=(0, 2)), strict=True))
    targets = ramp_targets(settings.ramps, MAP_SIDE, MAP_SIDE, np.random.default_rng([settings.seed, 1]))
    # As published, where it was asked for.
    probe = "ridge" if "ridge" in settings.probes else settings.probes[0]
    predictions = result.predictions[0, settings.probes.index(probe)]
    channels, std = result.channel_r2[0, ..., 0], result.channel_r2_std[0, ..., 0]
    figures = {
        "channels": channel_figure(channels, joint, settings.ramps, layers),
        "predictions": prediction_figure(predictions, targets, joint[probe], layers),
        "worst_channels": worst_channel_figure(channels[-1], std[-1], settings.ramps, images, features),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")


def measure(
    backbone: Backbone,
    images: Sequence[Image.Image],
    dataset: DatasetFacts,
    size: int,
    settings: Settings,
    output: Path,
    figures: Path | None = None,
) -> dict[str, Any]:
    """Images -> features -> probes -> result record, and beside `output` the archive.

    Args:
        output: file that the record is for; the archive has its name, ending in .npz.
        figures: folder for pictures; none are drawn if not given.
    """
    stopwatch = Stopwatch()
    shown: list[np.ndarray] = []
    maps = dense_features(backbone, images, size, progress=True, layers=settings.layers)
    result = probe_features(remember_first(maps, shown), settings)
    archive = output.with_suffix(".npz")
    save_arrays(result, settings, archive)
    if figures:
        save_figures(result, settings, images[:PREVIEWS], shown, figures)
    parameters = {"size": size, "train_fraction": TRAIN_FRACTION} | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(settings).items()
        if name != "seed"
    }
    record = make_record(
        "positional_bias", summarise(result, settings), dataset, backbone, parameters, settings.seed, stopwatch
    )
    return record | {
        "worst_channels": worst_channels(result, settings),
        "archive": {"file": archive.name, "sha256": sha256_of(archive)},
    }


def remember_first(maps: Iterable[np.ndarray], memory: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass `(L, h, w, D)` arrays on, and append the last layer of the first `PREVIEWS` to `memory`."""
    for number, layers in enumerate(maps):
        if number < PREVIEWS:
            memory.append(layers[-1])
        yield layers


def all_layers(backbone: Backbone) -> list[Layer]:
    """Every layer and the output; the output alone if the model does not say how many layers it has, or is changed
    after the last."""
    depth = 0 if backbone.removal is not None else getattr(backbone.model.config, "num_hidden_layers", 0)
    return [*range(1, depth + 1), OUTPUT]


def parse_layer(text: str) -> Layer:
    """A layer's number, or `output`."""
    return OUTPUT if text == OUTPUT else int(text)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = record_parser(__doc__)
    add_image_options(parser)
    parser.add_argument(
        "--layers",
        nargs="+",
        type=parse_layer,
        help="numbers, 0 for the embeddings, and output; all but 0 if not given",
    )
    parser.add_argument("--ramps", nargs="+", choices=RAMPS, default=list(RAMPS), help="what is to be predicted")
    parser.add_argument(
        "--samplings", nargs="+", choices=SAMPLINGS, default=["random"], help="which patches are fitted on"
    )
    parser.add_argument(
        "--probes", nargs="+", choices=PROBES, default=["linear", "ridge"], help="of all channels together"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, help="draws of patches per image")
    parser.add_argument("--figures", type=Path, help="folder for pictures (PNG)")
    return parser


def command(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record that the options ask for."""
    images, dataset = read_images(arguments)
    backbone = measured_backbone(arguments)
    given = (arguments.layers or all_layers(backbone), arguments.ramps, arguments.samplings, arguments.probes)
    layers, ramps, samplings, probes = (tuple(dict.fromkeys(names)) for names in given)
    settings = Settings(layers, ramps, samplings, probes, arguments.repeats, arguments.seed)
    return measure(backbone, images, dataset, arguments.size, settings, arguments.output, arguments.figures)


def show(record: dict[str, Any]) -> None:
    """Print a record's figures as a table, and the channels that it names."""
    print(f"{record['model']['name']} on {record['dataset']['name']} ({record['dataset']['images']} images)")
    parameters = record["parameters"]
    print(table(record["metrics"], Settings(**{name: parameters[name] for name in SHOWN})))
    for ramp, channels in record["worst_channels"].items():
        print(f"channels that tell {ramp} best: {', '.join(map(str, channels))}")


def main(argv: Sequence[str] | None = None) -> None:
    run_record(make_parser(), command, argv, show)


if __name__ == "__main__":
    main()
