# SPDX-License-Identifier: Apache-2.0
"""Microscopes' own files: CZI, ND2 and LIF of light microscopes, DM3, DM4, MRC and EMD of electron microscopes.

Each by the reader of its format, which the extra `microscopes` installs and which is loaded when such a file is opened.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from alibi_dinov2.io.extras import library
from alibi_dinov2.io.stored_image import CHANNEL, MICROMETRES, PixelSize, StoredImage, in_micrometres, of_array

Source: TypeAlias = Path | bytes
Reader: TypeAlias = Callable[[Source, ExitStack], list[StoredImage]]

EXTRA = "microscopes"
ND2_SIGNATURE = b"\xda\xce\xbe\x0a"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
CZI_SIGNATURE = b"ZISRAWFILE"
LIF_SIGNATURE, LIF_MARK = b"\x70\0\0\0", (8, b"\x2a")
MRC_MARK = (208, b"MAP ")
# Version, and where the byte order stands, which is 0 or 1.
DM_VERSIONS = {b"\0\0\0\3": 8, b"\0\0\0\4": 12}
CZI_PLANES = "TZC"
CZI_SAMPLES = {"Gray8": "u1", "Gray16": "u2", "Gray32Float": "f4", "Bgr24": "u1", "Bgr48": "u2", "Bgr96Float": "f4"}


def vendor_reader(head: bytes) -> Reader | None:
    """What reads a file of a microscope, by its first 512 bytes; none for other files."""
    if head.startswith(CZI_SIGNATURE):
        return open_czi
    if head.startswith(ND2_SIGNATURE):
        return open_nd2
    if head.startswith(LIF_SIGNATURE) and head[LIF_MARK[0] :].startswith(LIF_MARK[1]):
        return open_lif
    if head.startswith(HDF5_SIGNATURE):
        return open_emd
    if head[MRC_MARK[0] :].startswith(MRC_MARK[1]):
        return open_mrc
    order = DM_VERSIONS.get(head[:4])
    if order and head[order : order + 4] in (b"\0\0\0\0", b"\0\0\0\1"):
        return open_dm
    return None


def require_path(source: Source) -> Path:
    """Raise a `NotImplementedError` if a file is given as bytes that its reader wants on the disk."""
    if isinstance(source, bytes):
        raise NotImplementedError("files of this format are read from the disk; save the bytes and give the path")
    return source


def open_czi(source: Source, resources: ExitStack) -> list[StoredImage]:
    """Zeiss CZI, a series for each scene; a region of a mosaic is composed when it is read."""
    document = resources.enter_context(library("pylibCZIrw.czi", EXTRA).open_czi(str(require_path(source))))
    kinds = set(document.pixel_types.values())
    if len(kinds) != 1 or not kinds <= CZI_SAMPLES.keys():
        raise NotImplementedError(
            f"its channels are of {', '.join(sorted(kinds))}; one of {', '.join(CZI_SAMPLES)} is read"
        )
    (kind,) = kinds
    bounds = document.total_bounding_box
    axes = [axis for axis in CZI_PLANES if axis in bounds and bounds[axis][1] - bounds[axis][0] > 1]
    first = {axis: bounds[axis][0] for axis in CZI_PLANES if axis in bounds}
    metadata = document.metadata["ImageDocument"]["Metadata"]
    scenes = document.scenes_bounding_rectangle or {None: document.total_bounding_rectangle}

    def scene_image(scene: int | None, rectangle: Any) -> StoredImage:
        coloured = kind.startswith("Bgr")

        def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
            plane = {**first, **{axis: first[axis] + number for axis, number in zip(axes, place, strict=True)}}
            height, width = rows.stop - rows.start, columns.stop - columns.start
            roi = (rectangle.x + columns.start, rectangle.y + rows.start, width, height)
            pixels = document.read(roi=roi, plane=plane, scene=scene)
            return pixels[..., ::-1] if coloured else pixels

        return StoredImage(
            read,
            (rectangle.h, rectangle.w),
            np.dtype(CZI_SAMPLES[kind]),
            "".join(axes),
            tuple(bounds[axis][1] - bounds[axis][0] for axis in axes),
            3 if coloured else 1,
            coloured,
            channels=czi_channels(metadata) if CHANNEL in axes else (),
            pixel_size=czi_pixel_size(metadata),
            name="" if scene is None else f"scene {scene}",
        )

    return [scene_image(scene, rectangle) for scene, rectangle in scenes.items()]


def listed(value: Any) -> list[Any]:
    """What XML read as dictionaries gives for elements that may come several times."""
    return value if isinstance(value, list) else [] if value is None else [value]


def czi_channels(metadata: Any) -> tuple[str, ...]:
    """Names of the channels."""
    try:
        channels = listed(metadata["Information"]["Image"]["Dimensions"]["Channels"]["Channel"])
        return tuple(str(channel.get("@Name", "")) for channel in channels)
    except (AttributeError, KeyError, TypeError):
        return ()


def czi_pixel_size(metadata: Any) -> PixelSize | None:
    """Height and width of a pixel, which the file has in metres."""
    try:
        distances = {one["@Id"]: float(one["Value"]) for one in listed(metadata["Scaling"]["Items"]["Distance"])}
        return in_micrometres(distances["Y"], distances["X"], "m")
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def open_nd2(source: Source, resources: ExitStack) -> list[StoredImage]:
    """Nikon ND2; positions are slices."""
    file = resources.enter_context(library("nd2", EXTRA).ND2File(require_path(source)))
    axes = "".join(file.sizes)
    size = file.voxel_size()
    names = tuple(channel.channel.name for channel in getattr(file.metadata, "channels", None) or ())
    coloured = file.sizes.get("S", 1) == 3
    return [
        of_array(
            file.to_dask(wrapper=False),
            axes,
            coloured=coloured,
            channels=names if CHANNEL in axes else (),
            pixel_size=in_micrometres(size.y, size.x, "µm"),
        )
    ]


def open_lif(source: Source, resources: ExitStack) -> list[StoredImage]:
    """Leica LIF, a series for each image in it; a frame is read whole."""
    file = resources.enter_context(library("liffile", EXTRA).LifFile(require_path(source)))
    return [lif_image(image) for image in file.images if {"Y", "X"} <= set(image.dims)]


def lif_image(image: Any) -> StoredImage:
    """An image of a LIF, whose frames are planes along Y and X."""
    axes = "".join(image.dims)
    others = [axis for axis in axes if axis not in "YXS"]
    coloured = image.sizes.get("S", 1) == 3

    def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        pixels = np.asarray(image.frame(**dict(zip(others, place, strict=True))))
        return (pixels if pixels.ndim == 3 else pixels[..., None])[rows, columns].astype(dtype, copy=False)

    dtype = np.dtype(image.dtype).newbyteorder("=")
    return StoredImage(
        read,
        (image.sizes["Y"], image.sizes["X"]),
        dtype,
        "".join(others),
        tuple(image.sizes[axis] for axis in others),
        image.sizes.get("S", 1),
        coloured,
        pixel_size=lif_pixel_size(image),
        name=image.name,
    )


def lif_pixel_size(image: Any) -> PixelSize | None:
    """Height and width of a pixel, from where the first and the last ones are, in metres."""
    try:
        steps = [float(image.coords[axis][1] - image.coords[axis][0]) for axis in "YX"]
    except (IndexError, KeyError):
        return None
    return in_micrometres(steps[0], steps[1], "m")


def open_dm(source: Source, resources: ExitStack) -> list[StoredImage]:
    """Gatan DM3 and DM4, a series for each data set but the thumbnail; mapped into memory."""
    path = require_path(source)
    file = resources.enter_context(library("ncempy.io.dm", EXTRA).fileDM(path))
    thumbnail = int(file.numObjects > 1)
    return [dm_image(file, number, thumbnail) for number in range(file.numObjects - thumbnail)]


def dm_image(file: Any, number: int, thumbnail: int) -> StoredImage:
    """A data set of a Gatan file."""
    entry = number + thumbnail
    shape = tuple(int(sizes[entry]) for sizes in (file.zSize2, file.zSize, file.ySize, file.xSize))
    array = file.getMemmap(number).reshape(shape)
    before = sum(file.dataShape[:entry])
    # Along X and then Y, each with a unit of its own.
    steps = zip(file.scale[before : before + 2], file.scaleUnit[before : before + 2], strict=True)
    width, height = (float(scale) * MICROMETRES.get(unit, 0) for scale, unit in steps)
    return of_array(array, "TZYX", pixel_size=in_micrometres(height, width, "µm"))


def open_mrc(source: Source, resources: ExitStack) -> list[StoredImage]:
    """MRC and its kin; the sections of a volume are slices; mapped into memory."""
    file = resources.enter_context(library("mrcfile", EXTRA).mmap(require_path(source), mode="r"))
    axes = "VZYX"[-file.data.ndim :]
    voxel = file.voxel_size
    return [of_array(file.data, axes, pixel_size=in_micrometres(float(voxel.y), float(voxel.x), "Å"))]


def open_emd(source: Source, resources: ExitStack) -> list[StoredImage]:
    """EMD in HDF5, of Velox and of Berkeley, a series for each image in it."""
    h5py = library("h5py", EXTRA)
    file = resources.enter_context(h5py.File(BytesIO(source) if isinstance(source, bytes) else source, "r"))
    images = [*velox_images(file), *berkeley_images(file, h5py)]
    if not images:
        raise NotImplementedError("it is an HDF5 file with no image as EMD has them (Velox or Berkeley); save a TIFF")
    return images


def velox_images(file: Any) -> Iterator[StoredImage]:
    """Images of Velox: `(H, W, frames)` under Data/Image."""
    for key, group in file.get("Data/Image", {}).items():
        image = of_array(group["Data"], "YXT", name=key)
        yield replace(image, pixel_size=velox_pixel_size(group))


def velox_pixel_size(group: Any) -> PixelSize | None:
    """Height and width of a pixel, from JSON that stands in the first column of a table of bytes."""
    try:
        facts = json.loads(bytes(group["Metadata"][:, 0]).rstrip(b"\0").decode())["BinaryResult"]
        size, units = facts["PixelSize"], (facts["PixelUnitX"], facts["PixelUnitY"])
        return in_micrometres(float(size["height"]), float(size["width"]), units[0]) if len(set(units)) == 1 else None
    except (KeyError, TypeError, ValueError):
        return None


def berkeley_images(file: Any, h5py: Any) -> Iterator[StoredImage]:
    """Images of Berkeley's EMD: groups of type 1 whose data have two to four axes, the last ones rows and columns."""
    groups: list[Any] = []
    file.visititems(
        lambda _, item: groups.append(item) if isinstance(item, h5py.Group) and "emd_group_type" in item.attrs else None
    )
    for group in groups:
        if "data" in group and 2 <= group["data"].ndim <= 4:
            yield of_array(group["data"], "TZYX"[-group["data"].ndim :], name=group.name)
