# SPDX-License-Identifier: Apache-2.0
"""From image files and files of labels to a fitted segmenter."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.imagej_rois import ROI_SUFFIXES, read_rois
from alibi_dinov2.io.images import IMAGE_SUFFIXES
from alibi_dinov2.io.labels import read_labels, require_shape
from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

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


def fit_files(segmenter: TrainableSegmenter, pairs: Sequence[tuple[Path, Path]]) -> int:
    """Fit a segmenter to pairs of image and label files; gives how many pixels are labelled.

    Raises:
        ValueError: a file cannot be read, labels do not fit their image, or what `TrainableSegmenter.fit` raises.
        ImportError, FileNotFoundError: as for `labels_of`.
    """
    with ExitStack() as stack:
        images = [stack.enter_context(open_image(path, channel=segmenter.channel)) for path, _ in pairs]
        labels = [labels_of(path, image, str(name)) for (name, path), image in zip(pairs, images, strict=True)]
        segmenter.fit(images, labels)
    return sum(int(np.count_nonzero(found)) for found in labels)
