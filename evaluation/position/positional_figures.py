# SPDX-License-Identifier: Apache-2.0
"""Figures of positional bias, from arrays (arXiv 2603.16840, figures 2, 3 and S2 to S6)."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from alibi_dinov2.pictures.colours import VALUES, line_colours
from alibi_dinov2.pictures.plots import subplots

LOWEST = -2  # R² that is drawn


def channel_figure(
    channel_r2: np.ndarray, joint_r2: Mapping[str, np.ndarray], ramps: Sequence[str], layers: Sequence[str]
) -> Figure:
    """R² of each channel after each layer, a picture for each ramp, and beside it the channels together.

    Args:
        channel_r2: `(L, K, D)` of each channel alone; negative values are drawn as 0.
        joint_r2: by probe, `(L, K)` of all channels together.
        ramps, layers: names of the `K` ramps and `L` layers.
    """
    figure, axes = subplots(len(ramps), 2, width=11, height=0.25 + 1.6 * len(ramps), width_ratios=[4, 1.2])
    lowest = max(LOWEST, min(0, *(values.min() for values in joint_r2.values())))
    for row, (ramp, (picture, curves)) in enumerate(zip(ramps, axes, strict=True)):
        mesh = picture.imshow(channel_r2[:, row], VALUES, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        picture.set_ylabel(ramp)
        picture.set_yticks(range(len(layers)), [layer.removeprefix("layer") for layer in layers], fontsize=6)
        figure.colorbar(mesh, ax=picture, pad=0.01, label="R²")
        lines = {name: values[:, row] for name, values in joint_r2.items()}
        lines["best channel"] = channel_r2[:, row].max(axis=-1)
        for colour, (name, values) in zip(cycle(line_colours()), lines.items(), strict=False):
            curves.plot(values, ".-", color=colour, label=name)
        curves.set_ylim(lowest - 0.05, 1.05)
        curves.axhline(0, color="grey", linewidth=0.5)
        curves.set_xticks(
            range(len(layers)), [layer.removeprefix("layer") for layer in layers], fontsize=6, rotation=90
        )
    axes[0, 0].set_title("each channel alone, after each layer")
    axes[0, 1].set_title("all channels together")
    axes[0, 1].legend(fontsize=7)
    axes[-1, 0].set_xlabel("channel")
    return figure


def prediction_figure(
    predictions: np.ndarray, targets: Mapping[str, np.ndarray], joint_r2: np.ndarray, layers: Sequence[str]
) -> Figure:
    """The targets, and what all channels together predict for them after each layer, averaged over images.

    Args:
        predictions: `(L, T, side, side)`.
        targets: by name, `(side², 1 or 2)`, `T` in all.
        joint_r2: `(L, K)`.
        layers: names of the `L` layers.
    """
    rows = [
        (name if ramp.shape[1] == 1 else f"{name}: {axis}", k, target)
        for k, (name, ramp) in enumerate(targets.items())
        for axis, target in zip("xy", ramp.T, strict=False)
    ]
    figure, axes = subplots(len(rows), 1 + len(layers), width=1.1 * (1 + len(layers)), height=0.3 + 1.2 * len(rows))
    side = predictions.shape[-1]
    for row, (name, k, target) in enumerate(rows):
        show(axes[row, 0], target.reshape(side, side), vmin=0, vmax=1)
        axes[row, 0].set_ylabel(name)
        for column in range(len(layers)):
            show(axes[row, 1 + column], predictions[column, row], vmin=0, vmax=1)
            axes[row, 1 + column].set_xlabel(f"R² {joint_r2[column, k]:.2f}", fontsize=7)
    for axis, title in zip(axes[0], ["target", *layers], strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def worst_channel_figure(
    channel_r2: np.ndarray,
    channel_std: np.ndarray,
    ramps: Sequence[str],
    images: Sequence[Image.Image],
    features: Sequence[np.ndarray],
) -> Figure:
    """R² of each channel as a line, and the maps that the best channel of each ramp makes of some images.

    Args:
        channel_r2, channel_std: `(K, D)`, mean and standard deviation over images and draws.
        ramps: names of the `K` ramps.
        images: to show.
        features: `(h, w, D)` of each of these images.
    """
    ratios = [3.5] + [1.0] * len(images)
    figure, axes = subplots(1 + len(ramps), len(ratios), 1.5 * sum(ratios), 1.5 * (1 + len(ramps)), ratios)
    axes[0, 0].axis("off")
    for axis, image in zip(axes[0, 1:], images, strict=True):
        show(axis, np.asarray(image))
    for row, (ramp, mean, std) in enumerate(zip(ramps, channel_r2, channel_std, strict=True), start=1):
        worst, channels = int(mean.argmax()), np.arange(len(mean))
        line, dot = line_colours()[1], line_colours()[5]
        axes[row, 0].plot(channels, mean, color=line, linewidth=0.7)
        axes[row, 0].fill_between(channels, mean - std, mean + std, color=line, alpha=0.3, linewidth=0)
        axes[row, 0].plot(worst, mean[worst], "o", color=dot, markersize=4)
        axes[row, 0].set_ylim(-0.3, 1.05)
        axes[row, 0].set_ylabel(f"{ramp}\nR²")
        for axis, array in zip(axes[row, 1:], features, strict=True):
            show(axis, array[..., worst])
        if features:
            axes[row, 1].set_ylabel(f"channel {worst}")
    axes[-1, 0].set_xlabel("channel")
    return figure


def show(axis: Axes, values: np.ndarray, vmin: float | None = None, vmax: float | None = None) -> None:
    """A map without ticks."""
    axis.imshow(values, cmap=VALUES, vmin=vmin, vmax=vmax, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
