# SPDX-License-Identifier: Apache-2.0
"""Image layers as the segmenter reads them: slices, channel, contrast, pixel size; and where the viewer looks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import Dims
from napari.layers import Image

from alibi_dinov2.io.sliced_image import SlicedImage
from alibi_dinov2.io.stored_image import PixelSize, in_micrometres, of_array
from alibi_dinov2.io.tiles import Block
from modeling_alibi_dinov2.contrast import AUTO, Setting

COLOURS = ("red", "green", "blue")
AXES = "ABDEFGHI"  # letters for axes of slices, of which nothing is known but their number
UNITS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "meter": "m", "angstrom": "Å"}  # pint's names


@dataclass(frozen=True)
class Seen:
    """What is seen of an image layer.

    Attributes:
        channel: the number of the one that is seen; none for all colours of a colour image, or where there are none.
        channels_first: whether the first axis has channels, and not slices.
        contrast: see `alibi_dinov2.open_image`.
    """

    channel: int | None = None
    channels_first: bool = False
    contrast: Setting = AUTO


def pixels_of(layer: Image) -> Any:
    """The array of an image layer, the finest one of a pyramid."""
    return layer.data[0] if layer.multiscale else layer.data


def stack_shape(layer: Image, channels_first: bool = False) -> tuple[int, ...]:
    """Of a labels layer on top of it: its shape without colours and channels."""
    shape = tuple(pixels_of(layer).shape)
    return shape[1 if channels_first else 0 : len(shape) - bool(layer.rgb)]


def channel_choices(layer: Image, channels_first: bool) -> list[str]:
    """Names of the channels among which one can be chosen; none of a grey image."""
    if layer.rgb:
        return ["all colours", *COLOURS]
    if channels_first:
        return [f"channel {number}" for number in range(pixels_of(layer).shape[0])]
    return []


def image_of(layer: Image, seen: Seen) -> SlicedImage:
    """An image layer as regions of 8-bit RGB. All axes but rows and columns are slices, the last runs fastest.

    Raises:
        ValueError: it has no such channel or contrast.
    """
    array = pixels_of(layer)
    leading = array.ndim - 2 - bool(layer.rgb)
    if seen.channels_first and leading < 1:
        raise ValueError(f"{layer.name} has no axis of channels; choose that its first axis has slices.")
    letters = ("C" if seen.channels_first else "") + AXES[: leading - seen.channels_first]
    stored = of_array(
        array,
        letters + "YX" + ("S" if layer.rgb else ""),
        coloured=bool(layer.rgb),
        opacity=3 if layer.rgb and array.shape[-1] == 4 else None,
        pixel_size=pixel_size(layer),
    )
    return SlicedImage([stored], layer.name, seen.contrast, seen.channel)


def pixel_size(layer: Image) -> PixelSize | None:
    """Height and width of a pixel, if the layer's scale has a physical unit."""
    (height, width), units = layer.scale[-2:], [str(unit) for unit in layer.units[-2:]]
    if units[0] != units[1] or units[0] not in UNITS:
        return None
    return in_micrometres(float(height), float(width), UNITS[units[0]])


def current_slice(layer: Image, dims: Dims, channels_first: bool = False) -> int:
    """The number of the slice that the viewer shows.

    Raises:
        ValueError: it shows another plane than rows and columns.
    """
    shape = stack_shape(layer, channels_first)
    if dims.ndisplay != 2 or list(dims.order[-2:]) != sorted(dims.order)[-2:]:
        raise ValueError("Strokes are drawn on rows and columns: show these, in two dimensions (Ctrl+Y, Ctrl+E).")
    place = [round(position) for position in layer.world_to_data(dims.point)][: layer.ndim - 2]
    place = place[1:] if channels_first else place
    if not place:
        return 0
    inside = [int(np.clip(position, 0, length - 1)) for position, length in zip(place, shape, strict=False)]
    return int(np.ravel_multi_index(inside, shape[:-2]))


def visible_block(layer: Image, shape: tuple[int, int], limit: int) -> Block:
    """Rows and columns that the viewer shows, cut to `limit` pixels around their middle.

    Args:
        layer: whose corners the viewer keeps.
        shape: height and width of a slice.
        limit: pixels at most.
    """
    (top, left), (bottom, right) = layer.corner_pixels[:, -2:].astype(int).tolist()
    if layer.multiscale:
        (top, left), (bottom, right) = (0, 0), shape
    spans = [
        slice(max(first, 0), min(last + 1, length))
        for first, last, length in zip((top, left), (bottom, right), shape, strict=True)
    ]
    # Outside of the image, or not drawn yet.
    spans = [span if span.start < span.stop else slice(0, length) for span, length in zip(spans, shape, strict=True)]
    area = (spans[0].stop - spans[0].start) * (spans[1].stop - spans[1].start)
    share = min(1.0, (limit / area) ** 0.5)
    cut = []
    for span in spans:
        length = max(1, int((span.stop - span.start) * share))
        start = (span.start + span.stop - length) // 2
        cut.append(slice(start, start + length))
    return cut[0], cut[1]
