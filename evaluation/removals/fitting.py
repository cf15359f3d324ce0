# SPDX-License-Identifier: Apache-2.0
"""A removal for a backbone: what has to be fitted is fitted, and what it costs is measured."""

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
from evaluation.removals import blank_channels, blank_svd, rasa
from evaluation.removals.flips_and_turns import FORWARDS, average_flips_and_turns
from evaluation.report.records import describe_images

# What each removal can be given, besides the backbone, and how many channels, rounds or directions it takes by default.
REMOVALS: dict[str, set[str]] = {
    "blank-channels": {"images", "channels", "count"},
    "flips-and-turns": set(),
    "rasa": {"images", "count"},
    "blank-svd": {"count"},
}
COUNTS = {"blank-channels": blank_channels.COUNT, "rasa": rasa.ROUNDS, "blank-svd": blank_svd.DIRECTIONS}
TIMED_RUNS = 3


def project_out(
    basis: np.ndarray, features_of: Callable[[torch.Tensor], np.ndarray], pixel_values: torch.Tensor
) -> np.ndarray:
    """Features without their part in the space of `basis`, `(k, D)` with orthonormal rows."""
    features = features_of(pixel_values)
    return features - (features @ basis.T) @ basis


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
        return Removal(name, {}, FORWARDS, average_flips_and_turns)
    blank = next(dense_features(backbone, [Image.new("RGB", (size, size))], size))
    count = count or len(channels) or COUNTS[name]
    features = list(dense_features(backbone, images, size, progress=bool(images)))
    parameters: dict[str, Any] = {"size": size}
    if images:
        facts = describe_images("", images)
        parameters["fitted_on"] = {"images": facts.images, "fingerprint": facts.fingerprint}
    if name == "blank-channels":
        parameters["channels"] = list(channels) or most_positional_channels(features, count)
        basis = blank_channels.channel_basis(parameters["channels"], blank.shape[-1])
    else:
        basis = rasa.rasa_basis(features, count) if name == "rasa" else blank_svd.leading_directions(blank, count)
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
