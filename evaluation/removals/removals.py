# SPDX-License-Identifier: Apache-2.0
"""What else could be done about positional bias: removals that need no new backbone (paper, table 2, and beyond).

    python -m evaluation.position.positional_probe --model teacher --removal rasa --removal-images data/micrographs \\
        --images data/micrographs --output results/rasa.json

`blank-channels`    the most positional channels are set to zero (paper, table 2).
`flips-and-turns`   features are averaged over the 8 flips and quarter turns of the image, each turned back.
`rasa`              directions that tell row and column are removed, again and again (Franca, arXiv 2507.14137).
`blank-svd`         the leading directions of a blank image's features are removed (INSID3, arXiv 2603.28480).

Two things differ from the published code. RASA's predictors of position are trained there by gradient descent through
a sigmoid; here each is the least-squares solution, the same prediction linearised at the centre: exact, without a
random start, and a hundred times faster. INSID3 normalises features before and after the projection; here they keep
their scale, which changes no cosine between them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from alibi_dinov2.features.backbone import Backbone, Removal, preprocess
from alibi_dinov2.features.dense_features import dense_features, patch_features
from evaluation.position.channel_probes import most_positional_channels
from evaluation.position.noise import noise_images
from evaluation.position.position_targets import position_targets
from evaluation.report.records import describe_images

FeatureMap = Callable[[torch.Tensor], np.ndarray]

# What each removal can be given, besides the backbone, and how many channels, rounds or directions it takes by default:
# the channels that the paper zeroed, the rounds of RASA's configuration, the directions of the paper's code for ViT-S.
REMOVALS: dict[str, set[str]] = {
    "blank-channels": {"images", "channels", "count"},
    "flips-and-turns": set(),
    "rasa": {"images", "count"},
    "blank-svd": {"count"},
}
COUNTS = {"blank-channels": 4, "rasa": 9, "blank-svd": 16}
NEGLIGIBLE = 1e-9  # of the variance of position; a predictor that explains less is rounding
ROUNDING = 1e-4  # of the features' length; float32 through a dozen layers
TIMED_RUNS = 3


def project_out(basis: np.ndarray, features_of: FeatureMap, pixel_values: torch.Tensor) -> np.ndarray:
    """Features without their part in the space of `basis`, `(k, D)` with orthonormal rows."""
    features = features_of(pixel_values)
    return features - (features @ basis.T) @ basis


def average_flips_and_turns(features_of: FeatureMap, pixel_values: torch.Tensor) -> np.ndarray:
    """Mean of the features of an image flipped and turned in all 8 ways, each turned and flipped back."""
    parts = []
    for turns in range(4):
        turned = torch.rot90(pixel_values, turns, (-2, -1))
        features = features_of(turned) + features_of(turned.flip(-1))[:, :, ::-1]
        parts.append(np.rot90(features, -turns, (1, 2)))
    return np.sum(parts, axis=0) / 8


def channel_basis(channels: Sequence[int], width: int) -> np.ndarray:
    """Unit vectors of some of `width` channels, `(k, D)` float32: removing them sets the channels to zero.

    Raises:
        ValueError: there is no such channel.
    """
    if not channels or not all(0 <= channel < width for channel in channels):
        raise ValueError(f"Channels {list(channels)} cannot be blanked; the features have 0 to {width - 1}.")
    return np.eye(width, dtype=np.float32)[sorted(set(channels))]


def rasa_basis(features: Sequence[np.ndarray], rounds: int) -> np.ndarray:
    """The directions that RASA removes, `(k, D)` float32 with orthonormal rows; k is 2 per round at most.

    In each round row and column are predicted from what the rounds before have left of the features, linearly and
    without intercept, from −½ to ½; the plane of the two predictors' weights is removed. When nothing is left that
    predicts them, the rounds end.

    Args:
        features: one `(h, w, D)` array per image.
        rounds: at most.
    """
    width = features[0].shape[-1]
    gram, cross, variance = np.zeros((width, width)), np.zeros((width, 2)), 0.0
    for image in features:
        inputs, targets = image.reshape(-1, width).astype(np.float64), position_targets(*image.shape[:2]) - 0.5
        gram += inputs.T @ inputs
        cross += inputs.T @ targets
        variance += (targets**2).sum()
    basis = np.zeros((0, width))
    for _ in range(rounds):
        rest = np.eye(width) - basis.T @ basis
        weights = np.linalg.lstsq(rest @ gram @ rest, rest @ cross)[0]
        if (weights * cross).sum() <= NEGLIGIBLE * variance:
            break
        directions, sizes, _ = np.linalg.svd(rest @ weights, full_matrices=False)
        basis = np.concatenate([basis, directions.T[sizes > NEGLIGIBLE * sizes[0]]])
    return basis.astype(np.float32)


def leading_directions(features: np.ndarray, count: int) -> np.ndarray:
    """The first singular directions of an image's normalised, centred features, `(k, D)` with orthonormal rows.

    Directions in which the features do not vary are left out, so k may be less than `count`: the features of a model
    that knows no position are the same all over a blank image.

    Args:
        features: `(h, w, D)`.
        count: how many at most.

    Raises:
        ValueError: there are not more patches and channels than that.
    """
    rows, columns, width = features.shape
    if not 0 < count < min(rows * columns, width):
        raise ValueError(
            f"{count} directions were asked for; {rows}×{columns} patches of {width} channels allow 1 to "
            f"{min(rows * columns, width) - 1}."
        )
    inputs = features.reshape(-1, width)
    inputs = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    _, sizes, directions = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)
    return directions[:count][sizes[:count] > ROUNDING * np.sqrt(len(inputs))]


def fit_removal(
    name: str,
    backbone: Backbone,
    size: int,
    images: Sequence[Image.Image] = (),
    count: int | None = None,
    channels: Sequence[int] = (),
) -> Removal:
    """A removal for a backbone. What has to be fitted is fitted here, on images or on a blank one.

    Args:
        name: one of `REMOVALS`.
        backbone: without a removal.
        size: shortest side in pixels at which it sees images.
        images: what `rasa` finds its directions on, and `blank-channels` its channels.
        count: of channels, rounds or directions; see `COUNTS` for the default.
        channels: what `blank-channels` sets to zero, instead of the most positional ones.

    Raises:
        ValueError: the removal is unknown, lacks what it needs, or is given what it does not take.
    """
    given = {"images": images, "count": count is not None, "channels": channels}
    require_options(name, {option for option, value in given.items() if value})
    if count is not None and count < 1:
        raise ValueError(f"{name} was asked to remove {count}; it must be 1 or more.")
    if name == "flips-and-turns":
        return Removal(name, {}, 8, average_flips_and_turns)
    blank = next(dense_features(backbone, [Image.new("RGB", (size, size))], size))
    count = count or len(channels) or COUNTS[name]
    features = list(dense_features(backbone, images, size, progress=bool(images)))
    parameters: dict[str, Any] = {"size": size}
    if images:
        facts = describe_images("", images)
        parameters["fitted_on"] = {"images": facts.images, "fingerprint": facts.fingerprint}
    if name == "blank-channels":
        parameters["channels"] = list(channels) or most_positional_channels(features, count)
        basis = channel_basis(parameters["channels"], blank.shape[-1])
    else:
        basis = rasa_basis(features, count) if name == "rasa" else leading_directions(blank, count)
    parameters |= {"count": count, "directions": len(basis)}
    return Removal(name, parameters, 1, partial(project_out, basis))


def require_options(name: str, given: set[str]) -> None:
    """Raise a `ValueError` unless a removal is known and given what it needs, and nothing else."""
    if name not in REMOVALS:
        raise ValueError(f"There is no removal {name!r}; choose from {', '.join(REMOVALS)}.")
    if superfluous := given - REMOVALS[name]:
        allowed = ", ".join(sorted(REMOVALS[name])) or "nothing"
        raise ValueError(f"{name} takes {allowed}, not {', '.join(sorted(superfluous))}.")
    needed = REMOVALS[name] - {"count"}
    if needed and not given & needed:
        raise ValueError(f"{name} needs {' or '.join(sorted(needed, reverse=True))}.")
    if "channels" in given and len(given) > 1:
        raise ValueError(f"{name} takes either channels, or images to find them on and their count.")


def with_removal(backbone: Backbone, removal: Removal, size: int) -> Backbone:
    """A backbone whose features are those after a removal, whose cost is measured on an image of noise.

    Args:
        size: of the image, in pixels.
    """
    cleaned = replace(backbone, removal=removal)
    pixels = preprocess(backbone, noise_images(1, size), size)
    # Alternately, so that both see the same load of the machine.
    runs = [[seconds(one, pixels) for one in (backbone, cleaned)] for _ in range(TIMED_RUNS)]
    plain, removed = np.median(runs, axis=0).tolist()
    cost = {"seconds_per_image": round(removed, 4), "relative_seconds": round(removed / plain, 3)}
    return replace(cleaned, removal=replace(removal, cost=cost))


def seconds(backbone: Backbone, pixels: torch.Tensor) -> float:
    """Seconds that a backbone takes for the features of some pixels."""
    started = time.perf_counter()
    patch_features(backbone, pixels)
    return time.perf_counter() - started
