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
from alibi_dinov2.io.stored_image import (
    CHANNEL,
    MICROMETRES,
    PixelSize,
    StoredImage,
    as_channels,
    in_micrometres,
    of_array,
)

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
# Gatan's numbers of types; 14 is what is 0 or 1, 8 and 23 are colours as blue, green, red and a byte without meaning.
DM_COLOURS = (8, 23)
DM_TYPES = {
    1: "<i2", 2: "<f4", 3: "<c8", 6: "u1", 7: "<i4", 8: "u1", 9: "i1", 10: "<u2", 11: "<u4", 12: "<f8", 13: "<c16",
    14: "?", 23: "u1",
}  # fmt: skip
# Letters of a CZI's dimensions -> ours, the last runs fastest: block, rotation, illumination, view, phase, time, depth.
CZI_PLANES = {"B": "B", "R": "R", "I": "L", "V": "V", "H": "H", "T": "T", "Z": "Z", "C": CHANNEL}
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
    planes = [axis for axis in CZI_PLANES if axis in bounds and bounds[axis][1] - bounds[axis][0] > 1]
    first = {axis: bounds[axis][0] for axis in CZI_PLANES if axis in bounds}
    metadata = document.metadata["ImageDocument"]["Metadata"]
    scenes = document.scenes_bounding_rectangle or {None: document.total_bounding_rectangle}

    def scene_image(scene: int | None, rectangle: Any) -> StoredImage:
        coloured = kind.startswith("Bgr")

        def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
            plane = {**first, **{axis: first[axis] + number for axis, number in zip(planes, place, strict=True)}}
            height, width = rows.stop - rows.start, columns.stop - columns.start
            roi = (rectangle.x + columns.start, rectangle.y + rows.start, width, height)
            pixels = document.read(roi=roi, plane=plane, scene=scene)
            return pixels[..., ::-1] if coloured else pixels

        return StoredImage(
            read,
            (rectangle.h, rectangle.w),
            np.dtype(CZI_SAMPLES[kind]),
            "".join(CZI_PLANES[axis] for axis in planes),
            tuple(bounds[axis][1] - bounds[axis][0] for axis in planes),
            3 if coloured else 1,
            coloured,
            channels=czi_channels(metadata) if CHANNEL in planes else (),
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
    images = [lif_image(image) for image in file.images if len(set(image.dims) & set("XYZ")) > 1]
    if not images:
        raise NotImplementedError("it has no image with rows and columns, only points or lines")
    return images


def lif_image(image: Any) -> StoredImage:
    """An image of a LIF. The last two dimensions of its planes are rows and columns, X and Z if it was scanned so."""
    dims = [axis for axis in image.dims if axis != "S"]
    others, (down, across) = dims[:-2], dims[-2:]
    # What stands in the plane for Y or X leaves its letter to them.
    axes = "".join({"Y": down, "X": across}.get(axis, axis) for axis in others)

    def read(place: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        pixels = np.asarray(image.frame(**dict(zip(others, place, strict=True))))
        return (pixels if pixels.ndim == 3 else pixels[..., None])[rows, columns].astype(dtype, copy=False)

    dtype = np.dtype(image.dtype).newbyteorder("=")
    samples = image.sizes.get("S", 1)
    return StoredImage(
        read,
        (image.sizes[down], image.sizes[across]),
        dtype,
        axes,
        tuple(image.sizes[axis] for axis in others),
        samples,
        samples == 3,
        pixel_size=lif_pixel_size(image, down, across),
        name=image.name,
    )


def lif_pixel_size(image: Any, *axes: str) -> PixelSize | None:
    """Height and width of a pixel, from where the first and the second one are, in metres."""
    try:
        height, width = (float(image.coords[axis][1] - image.coords[axis][0]) for axis in axes)
    except (IndexError, KeyError):
        return None
    return in_micrometres(height, width, "m")


def open_dm(source: Source, resources: ExitStack) -> list[StoredImage]:
    """Gatan DM3 and DM4, a series for each data set but thumbnails and spectra; mapped into memory."""
    path = require_path(source)
    file = resources.enter_context(library("ncempy.io.dm", EXTRA).fileDM(path))
    entries = [entry for entry in range(int(file.numObjects > 1), file.numObjects) if file.dataShape[entry] > 1]
    if not entries:
        raise NotImplementedError("it holds spectra or other curves, and no image")
    return [dm_image(file, path, entry) for entry in entries]


def dm_image(file: Any, path: Path, entry: int) -> StoredImage:
    """A data set of a Gatan file."""
    kind = int(file.dataType[entry])
    if kind not in DM_TYPES:
        raise NotImplementedError(f"its values are of Gatan's type {kind}; save real numbers or RGB")
    coloured = kind in DM_COLOURS
    shape = tuple(int(sizes[entry]) for sizes in (file.zSize2, file.zSize, file.ySize, file.xSize))
    shape += (4,) if coloured else ()
    array = np.memmap(path, DM_TYPES[kind], "r", int(file.dataOffset[entry]), shape)
    before = sum(file.dataShape[:entry])
    # Along X and then Y, each with a unit of its own.
    steps = zip(file.scale[before : before + 2], file.scaleUnit[before : before + 2], strict=True)
    width, height = (float(scale) * MICROMETRES.get(unit, 0) for scale, unit in steps)
    return of_array(
        array[..., 2::-1] if coloured else array,
        "TZYXS" if coloured else "TZYX",
        coloured=coloured,
        pixel_size=in_micrometres(height, width, "µm"),
    )


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
    """Images of Velox, `(H, W, frames)` under Data/Image; those of one kind are channels, such as its detectors."""
    titles = velox_titles(file)
    kinds: dict[object, list[StoredImage]] = {}
    for key, group in file.get("Data/Image", {}).items():
        facts = velox_facts(group)
        image = of_array(group["Data"], "YXT", name=titles.get(key, str(facts.get("Detector", key))))
        image = replace(image, pixel_size=velox_pixel_size(facts))
        kinds.setdefault((image.kind, image.pixel_size), []).append(image)
    yield from (as_channels(images) for images in kinds.values())


def velox_titles(file: Any) -> dict[str, str]:
    """What Velox calls its maps of elements, by the key of the image that a display shows."""
    titles = {}
    for display in file.get("Displays/ImageDisplay", {}).values():
        try:
            facts = json.loads(display[0])
            titles[json.loads(file[facts["data"]][0])["dataPath"].rpartition("/")[2]] = facts["title"]
        except (KeyError, TypeError, ValueError):
            continue  # a mixture of others, which has no data
    return titles


def velox_facts(group: Any) -> dict[str, Any]:
    """What is said of an image, in JSON that stands in the first column of a table of bytes."""
    try:
        facts = json.loads(bytes(group["Metadata"][:, 0]).rstrip(b"\0").decode())["BinaryResult"]
    except (KeyError, TypeError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def velox_pixel_size(facts: dict[str, Any]) -> PixelSize | None:
    """Height and width of a pixel."""
    try:
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
        data = group.get("data")
        if isinstance(data, h5py.Dataset) and 2 <= data.ndim <= 4:
            yield of_array(
                data, "TZYX"[-data.ndim :], name=group.name, pixel_size=berkeley_pixel_size(group, data.ndim)
            )


def berkeley_pixel_size(group: Any, axes: int) -> PixelSize | None:
    """Height and width of a pixel, from the first places along the last two axes and their units, such as `[n_m]`."""
    try:
        height, width = (group[f"dim{number}"] for number in (axes - 1, axes))
        units = {
            unit.decode() if isinstance(unit, bytes) else str(unit)
            for unit in (height.attrs["units"], width.attrs["units"])
        }
        (unit,) = {unit.strip("[]").replace("_", "") for unit in units}
        return in_micrometres(float(height[1] - height[0]), float(width[1] - width[0]), unit) if unit else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None
