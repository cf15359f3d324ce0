# SPDX-License-Identifier: Apache-2.0
"""Layers on top of an image layer: strokes, classes, probabilities, uncertainty, features as colours, regions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils import DirectLabelColormap

from alibi_dinov2.pictures.colours import VALUES
from alibi_dinov2.segmentation.uncertainty import uncertainty
from napari_alibi_dinov2.images import stack_shape
from napari_alibi_dinov2.workbench import Part

Colours = Mapping[int, tuple[int, int, int]]  # of classes by number, 0 to 255
RESULT = {"napari-alibi-dinov2": "result"}  # metadata of layers that are no images to segment
OPACITY = 0.5  # of classes, through which the image is to be seen


def is_result(layer: Layer) -> bool:
    """Whether a layer was made here, and is none to draw on or to segment."""
    return layer.metadata.items() >= RESULT.items()


def colormap(colours: Colours) -> DirectLabelColormap:
    """Colours of classes for a labels layer; what has no class is transparent."""
    clear: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    return DirectLabelColormap(
        color_dict=clear | {number: (*(value / 255 for value in colour), 1) for number, colour in colours.items()}
    )


def place_of(image: Image, axes: int, pixels: float = 1) -> dict[str, Any]:
    """Scale and translation that put an array on an image layer.

    Args:
        image: the layer.
        axes: of the array, without colours: the last ones of the image.
        pixels: rows and columns of the image to one of the array.
    """
    scale = np.array(image.scale[-axes:], dtype=float)
    translate = np.array(image.translate[-axes:], dtype=float)
    translate[-2:] += scale[-2:] * (pixels - 1) / 2  # places are those of the middles of pixels
    scale[-2:] *= pixels
    return {"scale": scale, "translate": translate, "units": image.units[-axes:]}


def add_strokes(viewer: ViewerModel, image: Image, channels_first: bool, colours: Colours) -> Labels:
    """An empty labels layer to draw on."""
    shape = stack_shape(image, channels_first)
    layer = Labels(
        np.zeros(shape, dtype=np.uint8),
        name=f"{image.name}: strokes",
        colormap=colormap(colours),
        **place_of(image, len(shape)),
    )
    viewer.add_layer(layer)
    return layer


def require_fitting(strokes: Labels, image: Image, channels_first: bool) -> None:
    """Raise a `ValueError` unless a labels layer has the image's slices, rows and columns, and numbers up to 255."""
    wanted = stack_shape(image, channels_first)
    if strokes.data.shape != wanted:
        raise ValueError(
            f"The labels layer {strokes.name!r} has the shape {strokes.data.shape}, but {wanted} is needed for "
            f"{image.name!r}; choose another one, or press Draw for a new one."
        )
    if strokes.data.dtype.itemsize > 1 and int(strokes.data.max(initial=0)) > 255:
        raise ValueError(f"The labels layer {strokes.name!r} has numbers above 255; classes are 1 to 255.")


class Results:
    """The layers that show what was segmented of an image; made when they are needed, and again if they were removed.

    Args:
        viewer: that they are added to.
        image: that they lie on.
        shape: of the strokes: slices, rows and columns.
    """

    def __init__(self, viewer: ViewerModel, image: Image, shape: tuple[int, ...]) -> None:
        self.viewer, self.image, self.shape = viewer, image, shape
        self.layers: dict[str, Layer] = {}

    @property
    def classes(self) -> Labels | None:
        """The class of every pixel, if anything was segmented."""
        layer = self.layers.get("classes")
        return layer if layer in self.viewer.layers else None

    def write(self, part: Part, names: Mapping[int, str], colours: Colours, probable: bool, uncertain: bool) -> None:
        """Show a part.

        Args:
            part: of the image.
            names, colours: of the classes.
            probable, uncertain: whether probabilities and the uncertainty are wanted, too.
        """
        self.put("classes", part, part.classes, lambda name, data, place: self.class_layer(name, data, place, colours))
        if probable:
            planes = np.moveaxis(part.probabilities, -1, 0)
            for number, plane in zip(part.numbers, planes, strict=True):
                self.put(f"probability of {names.get(number, number)}", part, plane, self.value_layer)
        if uncertain:
            self.put("uncertainty", part, uncertainty(part.probabilities), self.value_layer)

    def put(self, kind: str, part: Part, values: np.ndarray, make: Any) -> None:
        """Write values into a layer."""
        if self.layers.get(kind) not in self.viewer.layers:
            # Pages of zeros take no memory before they are written to.
            data = np.zeros(self.shape, dtype=values.dtype)
            layer = make(f"{self.image.name}: {kind}", data, place_of(self.image, len(self.shape)))
            chosen = self.viewer.layers.selection.active
            # Below the strokes, so that these stay to be seen and drawn on.
            self.viewer.layers.insert(self.viewer.layers.index(self.image) + 1, layer)
            self.viewer.layers.selection.active = chosen
            self.layers[kind] = layer
        layer = self.layers[kind]
        layer.data.reshape(-1, *self.shape[-2:])[part.index][part.block] = values
        layer.refresh()

    @staticmethod
    def class_layer(name: str, data: np.ndarray, place: dict[str, Any], colours: Colours) -> Labels:
        return Labels(data, name=name, colormap=colormap(colours), opacity=OPACITY, metadata=dict(RESULT), **place)

    @staticmethod
    def value_layer(name: str, data: np.ndarray, place: dict[str, Any]) -> Image:
        return Image(
            data, name=name, colormap=VALUES, contrast_limits=(0, 1), visible=False, metadata=dict(RESULT), **place
        )

    def recolour(self, colours: Colours) -> None:
        """Give the classes other colours."""
        if self.classes is not None:
            self.classes.colormap = colormap(colours)


def add_patches(
    viewer: ViewerModel, image: Image, name: str, values: np.ndarray, index: int, shape: Sequence[int], patch: float
) -> Image:
    """Show something that each patch has, over the slice that it is of.

    Args:
        viewer: that the layer is added to; one of the same name gives way to it.
        image: that it lies on.
        name: of the layer.
        values: `(h, w)` or colours `(h, w, 3)`.
        index: of the slice.
        shape: of the strokes: slices, rows and columns.
        patch: side of a patch in pixels.
    """
    axes = len(shape)
    place = place_of(image, axes, patch)
    where = np.unravel_index(index, shape[:-2]) if axes > 2 else ()
    place["translate"][:-2] += np.array(where) * place["scale"][:-2]
    colours = values.ndim == 3
    data = values.reshape((1,) * (axes - 2) + values.shape)
    title = f"{image.name}: {name}"
    if title in viewer.layers:
        viewer.layers.remove(title)
    options = {"rgb": True} if colours else {"colormap": VALUES, "contrast_limits": (-1, 1)}
    layer = Image(data, name=title, opacity=0.7, blending="translucent", metadata=dict(RESULT), **options, **place)
    chosen = viewer.layers.selection.active
    viewer.layers.insert(viewer.layers.index(image) + 1, layer)
    viewer.layers.selection.active = chosen
    return layer


def add_regions(viewer: ViewerModel, image: Image, labels: np.ndarray, table: dict[str, list[Any]]) -> Labels:
    """Show regions, each in a colour of its own, with their table as the layer's features."""
    features = pd.DataFrame(table | {"index": table["label"]})
    title = f"{image.name}: regions"
    if title in viewer.layers:
        viewer.layers.remove(title)
    layer = Labels(labels, name=title, features=features, metadata=dict(RESULT), **place_of(image, labels.ndim))
    viewer.add_layer(layer)
    return layer
