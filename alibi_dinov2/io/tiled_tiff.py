# SPDX-License-Identifier: Apache-2.0
"""Results as tiled OME-TIFFs of any size, which keep the axes and the pixel size of the image that they are of."""

import json
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile, TiffWriter

from alibi_dinov2.io.damage import DAMAGE
from alibi_dinov2.io.files import new_file
from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.tiles import blocks

TILE = 256  # side in pixels
MAX_CLASSIC_BYTES = 4 * 10**9  # of a TIFF with offsets of 32 bits, with room for what is not pixels
CREATOR = "alibi-dinov2"
STACK_AXES = "TZ"  # that OME has for slices
# Units under the names that OME has for them, and how many centimetres they have.
UNITS = {"nm": ("nm", 1e-7), "um": ("µm", 1e-4), "mm": ("mm", 0.1), "cm": ("cm", 1.0), "m": ("m", 100.0)}
UNIT_NAMES = {
    "µm": "um",
    "μm": "um",
    "micron": "um",
    "microns": "um",
    "micrometer": "um",
    "micrometre": "um",
    "nanometer": "nm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}


@dataclass(frozen=True)
class Layout:
    """What the slices of an image are, and how large its pixels are.

    Attributes:
        axes: a letter for each axis that slices are counted along: T time, Z depth; none for a single image.
        lengths: of `axes`.
        pixel_size: height, width and unit of a pixel, if known.
    """

    axes: str = ""
    lengths: tuple[int, ...] = ()
    pixel_size: tuple[float, float, str] | None = None

    @classmethod
    def of(cls, image: ImageRegions) -> "Layout":
        """That of an image; slices that are counted along other axes than time and depth become one axis of depth."""
        slices, size = image.slices, getattr(image, "pixel_size", None)
        found = {axis: length for axis, length in (getattr(image, "axes", None) or {}).items() if length > 1}
        if prod(found.values()) != slices or not set(found) <= set(STACK_AXES):
            found = {"Z": slices} if slices > 1 else {}
        return cls("".join(found), tuple(found.values()), tuple(size) if size else None)

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return prod(self.lengths)


def write_result(
    path: str | Path,
    pages: np.ndarray,
    layout: Layout,
    description: dict[str, Any],
    colours: np.ndarray | None = None,
    channels: Sequence[str] = (),
) -> None:
    """Write a tiled and deflated OME-TIFF, whole or not at all; the same arguments give the same bytes.

    Args:
        path: of the file.
        pages: `(slices, H, W)`, or `(slices, C, H, W)` of several channels; may be mapped from a file.
        layout: of the slices.
        description: JSON values that are kept in the file; `read_description` gives them back.
        colours: of all values, `(256, 3)` uint8, for uint8 without channels.
        channels: names of them.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    text = json.dumps(description, allow_nan=False, sort_keys=True)
    metadata: dict[str, Any] = {
        "axes": layout.axes + ("C" if channels else "") + "YX",
        "Name": Path(path).name,
        "Description": text,
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, text)),
        "Creator": CREATOR,
    }
    if channels:
        metadata["Channel"] = {"Name": list(channels)}
    resolution = None
    unit = UNITS.get(UNIT_NAMES.get(layout.pixel_size[2], layout.pixel_size[2])) if layout.pixel_size else None
    if unit and layout.pixel_size:
        (height, width, _), (name, centimetres) = layout.pixel_size, unit
        metadata |= {"PhysicalSizeY": height, "PhysicalSizeX": width}
        metadata |= {"PhysicalSizeYUnit": name, "PhysicalSizeXUnit": name}
        resolution = 1 / (width * centimetres), 1 / (height * centimetres)
    with (
        new_file(path) as temporary,
        TiffWriter(temporary, ome=True, bigtiff=pages.nbytes > MAX_CLASSIC_BYTES) as writer,
    ):
        writer.write(
            tiles(pages),
            shape=(*layout.lengths, *pages.shape[1:]),
            dtype=pages.dtype,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack" if colours is None else "palette",
            colormap=None if colours is None else colours.T.astype(np.uint16) * 257,
            resolution=resolution,
            resolutionunit="CENTIMETER" if resolution else None,
            metadata=metadata,
            software=False,
        )


def tiles(pages: np.ndarray) -> Iterator[np.ndarray]:
    """All tiles of a file in its order, `(TILE, TILE)`; those at the border are padded with 0."""
    height, width = pages.shape[-2:]
    for place in np.ndindex(pages.shape[:-2]):
        for block in blocks((height, width), TILE):
            tile = np.zeros((TILE, TILE), dtype=pages.dtype)
            part = pages[place][block]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def read_description(path: str | Path) -> dict[str, Any] | None:
    """The description of a file that `write_result` wrote, or nothing if it is another file or not there."""
    try:
        with TiffFile(path) as file:
            text = ElementTree.fromstring(file.ome_metadata or "").findtext("{*}Image/{*}Description")
        description = json.loads(text or "")
    except DAMAGE:
        return None
    return description if isinstance(description, dict) else None


def read_page(path: str | Path, index: int) -> np.ndarray:
    """A slice `(H, W)` of a file of one channel that `write_result` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with TiffFile(path, is_ome=False) as file:
            return file.pages[index].asarray()
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read ({error}). Remove it, and make it again.") from error
