# SPDX-License-Identifier: Apache-2.0
"""Labels of pixels: what users may give, as arrays or as files, and the files they are written to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tifffile import PHOTOMETRIC, imwrite

from alibi_dinov2.io.files import new_file
from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.open_image import open_image

MAX_CLASS = 255  # predictions have 8 bits


def read_labels(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """A file of labels, or its bytes, as `(H, W)` uint8, of a stack `(slices, H, W)`.

    What the numbers mean is the caller's: for the segmenter 0 is unlabelled and 1 to 255 are classes, masks of a
    benchmark may have a class 0 and mark with 255 what does not count. Palette images give their indices, masks of one
    bit 0 and 1, images of equal colour channels one of them. Images are turned upright as their EXIF says.

    Args:
        source: integers, or whole numbers in a floating type, from 0 to 255.
        name: what messages call the labels; the path if there is one.

    Raises:
        ValueError: the file has colours or other values than labels, is lossy or damaged; the message names it.
        FileNotFoundError: there is no such file.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "the labels")
    with open_image(source, name) as image:
        if image.lossy:
            raise ValueError(
                f"{name} is of the format {image.lossy}, which changes values; save labels as PNG or TIFF."
            )
        pages = [image.stored(index, slice(None), slice(None)) for index in range(image.slices)]
    maps = [to_labels(grey_values(page, name), page.shape[:2], name) for page in pages]
    return np.stack(maps) if len(maps) > 1 else maps[0]


def grey_values(page: np.ndarray, name: str) -> np.ndarray:
    """The one number of each pixel of a page `(H, W, C)`, `(H, W)`; transparency does not count.

    Raises:
        ValueError: the channels differ.
    """
    colours = page[..., :-1] if page.shape[-1] in (2, 4) else page
    if (colours != colours[..., :1]).any():
        raise ValueError(
            f"{name} has colours; labels are one number for each pixel, 0 for unlabelled. Save them as a greyscale or "
            "palette image."
        )
    return colours[..., 0]


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write labels as a file that `read_labels` gives back unchanged.

    Args:
        path: ends in .tif or .tiff, or, for a single slice, in .png.
        labels: `(H, W)` or `(slices, H, W)` uint8.

    Raises:
        ValueError: the path ends otherwise, or the labels are of another type or shape.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if labels.dtype != np.uint8 or labels.ndim not in (2, 3):
        raise ValueError(
            f"Labels of {labels.dtype} and shape {labels.shape} were given; (H, W) or (slices, H, W) uint8."
        )
    suffix = path.suffix.lower()
    if suffix not in (".tif", ".tiff", ".png") or (suffix == ".png" and labels.ndim == 3):
        raise ValueError(f"{path}: labels are written as .tif or .tiff, those of a single slice as .png too.")
    with new_file(path) as temporary:
        if suffix == ".png":
            Image.fromarray(labels).save(temporary, format="PNG")
        else:
            imwrite(temporary, labels, compression="zlib", photometric=PHOTOMETRIC.MINISBLACK)


def to_labels(labels: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Labels of an image as `(H, W)` uint8: 0 unlabelled, 1 to 255 a class.

    Args:
        labels: of any integer or boolean type, or of whole numbers in a floating type.
        shape: of the image.
        name: what messages call the labels.

    Raises:
        ValueError: another shape, fractions, NaN, or values outside 0 to 255.
    """
    labels = np.asarray(labels)
    if labels.shape != tuple(shape):
        raise ValueError(
            f"{name} has shape {labels.shape}, its image {tuple(shape)}; labels are one number for each pixel."
        )
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"{name} is of {labels.dtype}; labels are integers, 0 for unlabelled pixels.")
    if labels.dtype.kind == "f" and not (labels == np.floor(labels)).all():
        raise ValueError(f"{name} has fractions or NaN; labels are whole numbers, 0 for unlabelled pixels.")
    if labels.min() < 0 or labels.max() > MAX_CLASS:
        raise ValueError(
            f"{name} has values from {labels.min()} to {labels.max()}; 0 is unlabelled, classes are 1 to {MAX_CLASS}."
        )
    return labels.astype(np.uint8)


def as_label_maps(labels: Any, images: Sequence[ImageRegions]) -> list[np.ndarray]:
    """Labels of every slice of every image, `(H, W)` uint8.

    Args:
        labels: for each image `(H, W)`, for a stack `(slices, H, W)`; for a single image also without a list round it.
            Arrays, tensors, nested lists, whatever NumPy makes an array of.
        images: that they belong to.

    Raises:
        ValueError: there are not as many as images, or what `require_shape` and `to_labels` raise.
    """
    if len(images) == 1:
        only = as_array(labels, "The labels")
        given = [only[0] if only.ndim > 2 and only.shape[:-2] in ((1,), (1, images[0].slices)) else only]
    else:
        given = list(labels)
        if len(given) != len(images):
            raise ValueError(f"There are labels for {len(given)} images, and {len(images)} images; give one for each.")
    maps = []
    for number, (image, found) in enumerate(zip(images, given, strict=True), 1):
        found = as_array(found, f"The label image {number}")
        require_shape(found, image, f"The label image {number}", f"image {number}")
        pages = found.reshape(image.slices, *image.shape)
        maps += [to_labels(page, image.shape, f"The label image {number}") for page in pages]
    return maps


def as_array(labels: Any, name: str) -> np.ndarray:
    """An array from whatever NumPy makes one of.

    Raises:
        ValueError: it has rows of different lengths, or holds what are no numbers.
    """
    try:
        return np.asarray(labels)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{name} cannot be read as an array of labels ({error}); give one number for each pixel."
        ) from error


def require_shape(labels: np.ndarray, image: ImageRegions, name: str, image_name: str) -> None:
    """Raise a `ValueError` unless labels have a number for each pixel of an image or a stack."""
    shape = tuple(image.shape)
    wanted = shape if image.slices == 1 else (image.slices, *shape)
    # A stack of one slice may say so.
    if labels.shape != wanted and labels.shape != (image.slices, *shape):
        what = (
            f"is one of {shape[0]}×{shape[1]} pixels"
            if image.slices == 1
            else (f"is a stack of {image.slices} slices of {shape[0]}×{shape[1]} pixels")
        )
        raise ValueError(
            f"{name} has shape {labels.shape}, but {image_name} {what} (height × width): its labels have the shape "
            f"{wanted}."
        )
