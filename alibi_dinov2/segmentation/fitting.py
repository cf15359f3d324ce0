# SPDX-License-Identifier: Apache-2.0
"""From image files and files of labels to a fitted segmenter, or to what can be expected of one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.imagej_rois import ROI_SUFFIXES, read_rois
from alibi_dinov2.io.images import IMAGE_SUFFIXES
from alibi_dinov2.io.labels import read_labels, require_shape
from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from alibi_dinov2.segmentation.validation import Validation, validate

LABEL_SUFFIXES = (*IMAGE_SUFFIXES, *ROI_SUFFIXES)


def labels_of(path: Path, image: ImageRegions, image_name: str) -> np.ndarray:
    """Labels of an image, `(H, W)` uint8 or `(slices, H, W)`, from a label image or from ImageJ's regions.

    Raises:
        ValueError: the file holds no labels, or they do not fit the image; the message names both files.
        ImportError: it holds ImageJ's regions, and roifile is not installed.
        FileNotFoundError: there is no such file.
    """
    if path.suffix.lower() in ROI_SUFFIXES:
        return read_rois(path, image.slices, image.shape)
    labels = read_labels(path)
    require_shape(labels, image, str(path), image_name)
    return labels


@contextmanager
def opened(
    pairs: Sequence[tuple[Path, Path]], segmenter: TrainableSegmenter
) -> Iterator[tuple[list[ImageRegions], list[np.ndarray]]]:
    """Images as a segmenter sees them and their labels from pairs of files, as long as the context lasts.

    Raises:
        ValueError: a file cannot be read, or labels do not fit their image.
        ImportError, FileNotFoundError: as for `labels_of`.
    """
    with ExitStack() as stack:
        images: list[ImageRegions] = [
            stack.enter_context(open_image(path, channel=segmenter.channel, series=segmenter.series))
            for path, _ in pairs
        ]
        yield images, [labels_of(path, image, str(name)) for (name, path), image in zip(pairs, images, strict=True)]


def fit_files(segmenter: TrainableSegmenter, pairs: Sequence[tuple[Path, Path]]) -> int:
    """Fit a segmenter to pairs of image and label files; gives how many pixels are labelled.

    Raises:
        ValueError: what `opened` or `TrainableSegmenter.fit` raises.
        ImportError, FileNotFoundError: as for `labels_of`.
    """
    with opened(pairs, segmenter) as (images, labels):
        segmenter.fit(images, labels)
    return sum(int(np.count_nonzero(found)) for found in labels)


def validate_files(
    segmenter: TrainableSegmenter, pairs: Sequence[tuple[Path, Path]], by: str | None, folds: int
) -> Validation:
    """`validate` for pairs of image and label files; raises what `fit_files` and it raise."""
    with opened(pairs, segmenter) as (images, labels):
        return validate(segmenter, images, labels, by, folds)
