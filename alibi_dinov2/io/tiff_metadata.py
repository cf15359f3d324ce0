# SPDX-License-Identifier: Apache-2.0
"""What a TIFF says about itself: the names of its channels and the size of its pixels."""

from typing import Any
from xml.etree import ElementTree

from alibi_dinov2.io.stored_image import PixelSize, in_micrometres

PRINTED = 20.0  # µm: pixels that are larger than this belong to a printer's resolution, which says nothing here


def pixel_size(file: Any, series: Any) -> PixelSize | None:
    """The size of a pixel from OME, ImageJ, the vendors' tags that tifffile knows, or a fine resolution."""
    for read in (ome_size, vendor_size, resolution_size):
        try:
            found = read(file, series)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ElementTree.ParseError):
            found = None  # of damaged metadata nothing is known; the pixels are read all the same
        if found:
            return found
    return None


def ome_pixels(file: Any, series: Any) -> Any:
    """The element `Pixels` of a series, or none."""
    if not (file.is_ome and series.kind == "ome"):
        return None
    root = ElementTree.fromstring(file.ome_metadata)
    elements = root.findall(".//{*}Image/{*}Pixels")
    number = file.series.index(series)
    return elements[number] if number < len(elements) else None


def ome_size(file: Any, series: Any) -> PixelSize | None:
    """From OME-XML."""
    pixels = ome_pixels(file, series)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    width = float(pixels.attrib["PhysicalSizeX"])
    height = float(pixels.attrib.get("PhysicalSizeY", width))
    return in_micrometres(height, width, pixels.attrib.get("PhysicalSizeXUnit", "µm"))


def vendor_size(file: Any, series: Any) -> PixelSize | None:
    """From the tags of microscopes."""
    if file.is_fei:
        scan = file.fei_metadata["Scan"]
        return in_micrometres(float(scan["PixelHeight"]), float(scan["PixelWidth"]), "m")
    if file.is_lsm:
        facts = file.lsm_metadata
        return in_micrometres(facts["VoxelSizeY"], facts["VoxelSizeX"], "m")
    if file.is_sem:
        _, size, unit = file.sem_metadata["ap_image_pixel_size"]
        return in_micrometres(float(size), float(size), unit)
    if file.is_sis:
        facts = file.sis_metadata
        return in_micrometres(facts["pixelsizey"], facts["pixelsizex"], "m")
    return None


def resolution_size(file: Any, series: Any) -> PixelSize | None:
    """From the resolution of a page: pixels per ImageJ's unit, per centimetre or per inch."""
    page = series.keyframe
    across, down = page.get_resolution()
    unit = (file.imagej_metadata or {}).get("unit", "") if file.is_imagej else ""
    if unit and unit != "pixel":
        return in_micrometres(1 / down, 1 / across, unit)
    unit = {"CENTIMETER": "cm", "INCH": "inch"}.get(page.resolutionunit.name, "")
    found = in_micrometres(1 / down, 1 / across, unit) if unit else None
    return found if found and max(found.height, found.width) < PRINTED else None


def channel_names(file: Any, series: Any) -> tuple[str, ...]:
    """Names of the channels from OME, ImageJ's slice labels or Zeiss's LSM; empty if there are none."""
    try:
        pixels = ome_pixels(file, series)
        if pixels is not None:
            return tuple(channel.attrib.get("Name", "") for channel in pixels.findall("{*}Channel"))
        if file.is_lsm:
            return tuple(file.lsm_metadata["ChannelColors"]["ColorNames"])
        if file.is_imagej:
            labels = (file.imagej_metadata or {}).get("Labels", [])
            count = (file.imagej_metadata or {}).get("channels", 1)
            return tuple(labels[:count]) if count > 1 else ()
        if file.is_shaped:
            found = file.shaped_metadata[0].get("Channel", {})
            return tuple(found.get("Name", ())) if isinstance(found, dict) else ()
    except (AttributeError, LookupError, TypeError, ValueError, ElementTree.ParseError):
        return ()
    return ()
