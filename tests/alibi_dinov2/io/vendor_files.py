# SPDX-License-Identifier: Apache-2.0
"""Small files as microscopes write them, laid out byte by byte where no library writes the format."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Gatan's numbers: of the types of numbers in tags, and of those of images.
TAG_TYPES = {"<u2": 4, "<u4": 5, "<f4": 6, "|u1": 10}
DM_IMAGES = {"int16": 1, "float32": 2, "complex64": 3, "uint8": 6, "uint16": 10, "bool": 14}
DM_COLOURS = 23
LIF_DIMENSIONS = {"X": 1, "Y": 2, "Z": 3, "T": 4}


def write_dm3(path: Path, images: Sequence[np.ndarray], steps: Sequence[tuple[float, str]] = ()) -> None:
    """Write a Gatan DM3: a thumbnail, and arrays `(…, Y, X)`, or colours `(Y, X, 3)` if they are uint8 with three axes.

    Args:
        path: of the file.
        images: the arrays.
        steps: size and unit of a pixel along X and Y, of all images.
    """
    entries = [{"ImageData": dm_image(image, steps)} for image in (np.zeros((2, 2, 3), np.uint8), *images)]
    root = dm_group({"ImageList": entries})
    path.write_bytes(struct.pack(">3I", 3, len(root), 1) + root + bytes(8))


def dm_image(image: np.ndarray, steps: Sequence[tuple[float, str]]) -> dict[str, Any]:
    """The tags of an image, in Gatan's order."""
    if image.dtype == np.uint8 and image.ndim == 3:
        kind, unit, sizes = DM_COLOURS, "<u4", image.shape[1::-1]
        image = np.concatenate([image[..., ::-1], np.full_like(image[..., :1], 77)], axis=-1)
    else:
        kind, sizes = DM_IMAGES[image.dtype.name], image.shape[::-1]
        unit = image.dtype.str if image.dtype.str in TAG_TYPES else "|u1"
    given = [*steps, *[(1.0, "")] * len(sizes)][: len(sizes)]
    return {
        "Calibrations": {
            "Dimension": [
                {
                    "Origin": np.float32(0),
                    "Scale": np.float32(step),
                    "Units": np.frombuffer(length.encode("utf-16-le"), "<u2"),
                }
                for step, length in given
            ]
        },
        "Data": np.frombuffer(image.tobytes(), unit),
        "DataType": np.uint32(kind),
        "Dimensions": [np.uint32(size) for size in sizes],
    }


def dm_group(tags: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """A group of tags, with names or without."""
    named = list(tags.items()) if isinstance(tags, Mapping) else [("", tag) for tag in tags]
    return struct.pack(">2BI", 1, 0, len(named)) + b"".join(dm_tag(name, value) for name, value in named)


def dm_tag(name: str, value: Any) -> bytes:
    """A tag: a group, an array or a number."""
    group = isinstance(value, Mapping | list)
    head = struct.pack(">BH", 20 if group else 21, len(name)) + name.encode()
    if group:
        return head + dm_group(value)
    kind = TAG_TYPES[np.asarray(value).dtype.newbyteorder("<").str]
    facts = (20, kind, value.size) if value.ndim else (kind,)
    return head + b"%%%%" + struct.pack(f">I{len(facts)}I", len(facts), *facts) + value.tobytes()


def write_lif(path: Path, images: Mapping[str, tuple[str, np.ndarray]], step: float = 1e-7) -> None:
    """Write a Leica LIF.

    Args:
        path: of the file.
        images: dimensions, the last runs fastest, and uint8 values by name.
        step: between neighbours along every dimension, in metres or seconds.
    """
    images = {name: (dims, np.ascontiguousarray(image)) for name, (dims, image) in images.items()}
    elements = "".join(lif_element(name, *image, step) for name, image in images.items())
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project" UniqueID="0">'
        f'<Memory Size="0" MemoryBlockID="none"/><Children>{elements}</Children></Element></LMSDataContainerHeader>'
    )
    blocks = b"".join(lif_block(name, image.tobytes()) for name, (_, image) in images.items())
    path.write_bytes(struct.pack("<2IBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le") + blocks)


def lif_element(name: str, dims: str, image: np.ndarray, step: float) -> str:
    """What the XML says of an image."""
    described = "".join(
        f'<DimensionDescription DimID="{LIF_DIMENSIONS[axis]}" NumberOfElements="{length}" Origin="0" '
        f'Length="{(length - 1) * step}" Unit="m" BytesInc="{stride}" BitInc="0"/>'
        for axis, length, stride in zip(dims, image.shape, image.strides, strict=True)
    )
    return (
        f'<Element Name="{name}" UniqueID="{name}"><Data><Image><ImageDescription><Channels><ChannelDescription '
        'DataType="0" ChannelTag="0" Resolution="8" NameOfMeasuredQuantity="" Min="0" Max="255" Unit="" LUTName="Gray" '
        f'IsLUTInverted="0" BytesInc="0" BitInc="0"/></Channels><Dimensions>{described}</Dimensions></ImageDescription>'
        f'</Image></Data><Memory Size="{image.nbytes}" MemoryBlockID="MemBlock_{name}"/></Element>'
    )


def lif_block(name: str, values: bytes) -> bytes:
    """The values of an image."""
    label = f"MemBlock_{name}"
    head = struct.pack("<2IBQBI", 0x70, 2 * len(label) + 14, 0x2A, len(values), 0x2A, len(label))
    return head + label.encode("utf-16-le") + values


def velox_image(group: Any, key: str, image: np.ndarray, detector: str, step: float = 2e-9, unit: str = "m") -> Any:
    """Add an image `(H, W, frames)` as Velox has it to the root of an HDF5 file."""
    found = group.create_group(f"Data/Image/{key}")
    found["Data"] = image
    facts = {"Detector": detector, "PixelSize": {"width": str(step), "height": str(step)}}
    text = json.dumps({"BinaryResult": facts | {"PixelUnitX": unit, "PixelUnitY": unit}}).encode()
    found["Metadata"] = np.frombuffer(text.ljust(600, b"\0"), np.uint8)[:, None]
    return found


def berkeley_image(group: Any, name: str, image: np.ndarray, step: float, unit: str) -> None:
    """Add an array as Berkeley's EMD has it, with a step along the last two axes."""
    found = group.create_group(f"data/{name}")
    found.attrs["emd_group_type"] = 1
    found["data"] = image
    for number, length in enumerate(image.shape, start=1):
        found[f"dim{number}"] = np.arange(length) * (step if number > image.ndim - 2 else 1)
        found[f"dim{number}"].attrs["units"] = unit
