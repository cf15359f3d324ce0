# SPDX-License-Identifier: Apache-2.0
"""Images with masks: folders, VOC, ADE20K and data sets of the Hub, read one image at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset, load_dataset
from datasets import Image as ImageColumn
from PIL import Image
from tqdm.auto import tqdm

from alibi_dinov2.io.images import read_image
from alibi_dinov2.io.labels import read_labels
from alibi_dinov2.io.pairing import by_stem, listed, pair_by_name
from evaluation.report.records import DatasetFacts
from evaluation.semantics.miou import VOID

VALIDATION_SPLITS = ("validation", "val", "test")
VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)
ADE20K_CLASSES = 150


@dataclass(frozen=True)
class Labels:
    """Which values in a mask file are which class: class k is `values[k]`.

    Args:
        values: of the classes, different numbers from 0 to 255.
        names: of the classes; their values if not given.
        void: values of pixels that do not count.
        others_void: whether all other values count as void too; if not, they are an error.

    Raises:
        ValueError: the classes are fewer than 2, a value is out of range, twice there or void, or names do not match.
    """

    values: tuple[int, ...]
    names: tuple[str, ...] = ()
    void: tuple[int, ...] = (VOID,)
    others_void: bool = False

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len({*self.values, *self.void}) != len(self.values) + len(self.void):
            raise ValueError(
                f"The classes are {list(self.values)} and {list(self.void)} is void; give 2 or more classes, each "
                "value once."
            )
        if not all(0 <= value <= 255 for value in (*self.values, *self.void)):
            raise ValueError(f"The classes are {list(self.values)}; values in a mask are 0 to 255.")
        if self.names and len(self.names) != len(self.values):
            raise ValueError(f"There are {len(self.names)} names for {len(self.values)} classes; give one each.")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.names or tuple(map(str, self.values))

    def to_classes(self, mask: np.ndarray, name: str) -> np.ndarray:
        """Values `(H, W)` uint8 -> classes `(H, W)` uint8: 0 to K − 1, or `VOID`.

        Raises:
            ValueError: a value is neither that of a class nor void; the message names the mask, which is `name`.
        """
        table = np.full(256, VOID if self.others_void else -1, dtype=np.int16)
        table[list(self.void)] = VOID
        table[list(self.values)] = range(len(self))
        classes = table[mask]
        if (classes < 0).any():
            unknown = ", ".join(map(str, np.unique(mask[classes < 0])[:10]))
            raise ValueError(
                f"{name} has unknown labels: {unknown}. The classes are {', '.join(map(str, self.values))}, and "
                f"{', '.join(map(str, self.void))} is void. Name all classes, or make all others void."
            )
        return classes.astype(np.uint8)


@dataclass(frozen=True)
class Sample:
    """An image and its mask, as paths or as the bytes of files, and what messages call the two."""

    image: Path | bytes
    mask: Path | bytes
    image_name: str
    mask_name: str


@dataclass(frozen=True)
class SegmentationData:
    """Images with masks; nothing is read before it is asked for, and nothing is kept.

    Args:
        name, split: what records call it.
        samples: where the images and masks are.
        labels: which values of the masks are which class.
    """

    name: str
    split: str
    samples: Sequence[Sample] = field(repr=False)
    labels: Labels

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> Image.Image:
        """An image as 8-bit RGB; raises what `read_image` raises."""
        sample = self.samples[index]
        return read_image(sample.image, sample.image_name)

    def mask(self, index: int) -> np.ndarray:
        """A mask, `(H, W)` uint8: classes 0 to K − 1, or `VOID`; raises what `read_mask` and `to_classes` raise."""
        sample = self.samples[index]
        return self.labels.to_classes(read_mask(sample.mask, sample.mask_name), sample.mask_name)

    def pair(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """An image and its mask.

        Raises:
            ValueError: the two differ in size, or one cannot be read.
        """
        image, mask = self.image(index), self.mask(index)
        require_size_of(image, mask, self.samples[index].mask_name)
        return image, mask


def describe(data: SegmentationData, progress: bool = False) -> DatasetFacts:
    """Facts of a data set, every image and mask of which is read and checked; the fingerprint covers both, in order.

    Raises:
        ValueError: there is no image, or an image or a mask is wrong; the message names it.
    """
    if not len(data):
        raise ValueError(f"{data.name} has no image in its split {data.split}.")
    digest = hashlib.sha256()
    for index in tqdm(range(len(data)), desc=f"checking {data.name} {data.split}", unit="img", disable=not progress):
        image, mask = data.pair(index)
        digest.update(f"{image.size} ".encode() + image.tobytes() + mask.tobytes())
    return DatasetFacts(data.name, data.split, len(data), digest.hexdigest())


def read_mask(source: Path | bytes, name: str) -> np.ndarray:
    """The values of a mask, `(H, W)` uint8; raises what `read_labels` raises, and a `ValueError` for a stack."""
    mask = read_labels(source, name)
    if mask.ndim != 2:
        raise ValueError(f"{name} is a stack of {len(mask)} slices; a mask is one image.")
    return mask


def require_size_of(image: Image.Image, mask: np.ndarray, name: str) -> None:
    """Raise a `ValueError` that names the mask unless it has the size of its image."""
    if mask.shape != (image.height, image.width):
        raise ValueError(
            f"{name} has {mask.shape[1]}×{mask.shape[0]} pixels, its image {image.width}×{image.height}. A mask has a "
            "label for every pixel of its image."
        )


def open_data(
    source: str | Path,
    labels: Labels | None = None,
    train_names: Sequence[str] = (),
    columns: tuple[str, str] = ("image", "mask"),
) -> tuple[SegmentationData, SegmentationData]:
    """Training and validation images.

    Args:
        source: a folder or a Hub id. A folder is one year of a VOC devkit (`JPEGImages`, `SegmentationClass` and
            `ImageSets`), ADE20K (`images` and `annotations`), has `images` and `masks`, either itself or each in
            `train` and `validation`, or is something else that `datasets` reads.
        labels: of the masks; those of VOC and ADE20K are known.
        train_names: for a folder without splits, names of the images to train on, without suffix; the others validate.
        columns: names of the image and the mask column of a data set that `datasets` reads.

    Raises:
        ValueError: a mask is missing or superfluous, or `labels`, `train_names` or `columns` do not fit.
        OSError: there is no such data set.
    """
    folder = Path(source)
    name = folder.resolve().name if folder.is_dir() else str(source)
    splits: dict[str, Sequence[Sample]]
    if (folder / "ImageSets" / "Segmentation").is_dir():
        labels = labels or Labels(tuple(range(len(VOC_NAMES))), VOC_NAMES)
        splits = {split: voc_samples(folder, split) for split in ("train", "val")}
    elif (folder / "annotations").is_dir():
        labels = labels or Labels(tuple(range(1, ADE20K_CLASSES + 1)), void=(0,))
        splits = {
            split: folder_samples(folder / "images" / split, folder / "annotations" / split)
            for split in ("training", "validation")
        }
    elif (folder / "images").is_dir():
        splits = divide(folder_samples(folder / "images", folder / "masks"), train_names, name)
    elif (folder / "train" / "images").is_dir():
        names = ("train", validation_split([path.name for path in folder.iterdir()], name))
        splits = {split: folder_samples(folder / split / "images", folder / split / "masks") for split in names}
    else:
        tables = load_dataset(str(source))
        names = ("train", validation_split(list(tables), name))
        splits = {split: TableSamples(tables[split], f"{name} {split}", *columns) for split in names}
    if labels is None:
        raise ValueError(f"The classes of {name} are not known; say which values in its masks are classes.")
    train, validation = (SegmentationData(name, split, samples, labels) for split, samples in splits.items())
    return train, validation


def folder_samples(images: Path, masks: Path) -> list[Sample]:
    """Images and masks of the same names but for the suffix, in the order of the images.

    Raises:
        FileNotFoundError: there is no such folder, or it has no image.
        ValueError: an image has no mask, a mask no image, or one name two files.
    """
    pairs, lonely = pair_by_name([images], [masks], "masks")
    require_masks(lonely)
    return [path_sample(*pair) for pair in pairs]


def read_pairs(images: Sequence[Path], masks: Path) -> tuple[list[Image.Image], list[np.ndarray]]:
    """Images, and the values of their masks, `(H, W)` uint8 each.

    Args:
        images: files and folders.
        masks: folder with a mask of the name of each image, but for the suffix; it may have others, too.

    Raises:
        FileNotFoundError: there is no such file or folder, or a folder without an image.
        ValueError: an image has no mask, or one of another size; or one cannot be read.
    """
    found, files = by_stem(images, "masks"), by_stem([masks], "masks")
    require_masks([path for stem, path in found.items() if stem not in files])
    pictures = [read_image(path) for path in found.values()]
    labels = [read_mask(files[stem], str(files[stem])) for stem in found]
    for stem, image, mask in zip(found, pictures, labels, strict=True):
        require_size_of(image, mask, str(files[stem]))
    return pictures, labels


def require_masks(lonely: Sequence[Path]) -> None:
    """Raise a `ValueError` unless no image is without a mask."""
    if lonely:
        raise ValueError(
            f"{listed([str(path) for path in lonely])}: there is no mask of the same name. Add it, or remove the image."
        )


def path_sample(image: Path, mask: Path) -> Sample:
    """A sample of two files, called by their paths."""
    return Sample(image, mask, str(image), str(mask))


def voc_samples(folder: Path, split: str) -> list[Sample]:
    """The images of a split of a VOC devkit, in its own order.

    Raises:
        FileNotFoundError: there is no list of the split.
        ValueError: an image or mask of the list is missing.
    """
    list_file = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    samples = [
        path_sample(folder / "JPEGImages" / f"{name}.jpg", folder / "SegmentationClass" / f"{name}.png")
        for name in list_file.read_text(encoding="utf-8").split()
    ]
    for sample in samples:
        for name in (sample.image_name, sample.mask_name):
            if not Path(name).is_file():
                raise ValueError(f"{name} is missing, although {list_file} has it.")
    return samples


def divide(samples: Sequence[Sample], train_names: Sequence[str], name: str) -> dict[str, Sequence[Sample]]:
    """Split samples by the names of those to train on.

    Raises:
        ValueError: a name is not that of an image, or a split would be empty.
    """
    stems = [Path(sample.image_name).stem for sample in samples]
    unknown = sorted(set(train_names) - set(stems))
    if unknown:
        raise ValueError(f"{name} has no images {', '.join(unknown)}; images are {', '.join(stems[:5])}, …")
    chosen = [stem in set(train_names) for stem in stems]
    if all(chosen) or not any(chosen):
        raise ValueError(
            f"{name} has no splits: name some, not all, of its {len(samples)} images as those to train on, or put them "
            "into folders train/ and validation/."
        )
    return {
        "train": [sample for sample, train in zip(samples, chosen, strict=True) if train],
        "validation": [sample for sample, train in zip(samples, chosen, strict=True) if not train],
    }


def validation_split(names: Sequence[str], source: str) -> str:
    """The one of a data set's splits to validate on.

    Raises:
        ValueError: there is none, or none to train on.
    """
    found = [split for split in VALIDATION_SPLITS if split in names]
    if "train" not in names or not found:
        raise ValueError(
            f"{source} has {', '.join(sorted(names))}; it needs train and one of {', '.join(VALIDATION_SPLITS)}."
        )
    return found[0]


class TableSamples(Sequence[Sample]):
    """The rows of a table of `datasets` as samples.

    Args:
        table: with a column of images and one of masks.
        name: of the table, for messages.
        image, mask: names of the columns.

    Raises:
        ValueError: there is no such column.
    """

    def __init__(self, table: Dataset, name: str, image: str, mask: str) -> None:
        missing = [column for column in (image, mask) if column not in table.column_names]
        if missing:
            raise ValueError(f"{name} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}.")
        # The bytes of the files: images are read like those of folders.
        raw = ImageColumn(decode=False)
        self.table = table.cast_column(image, raw).cast_column(mask, raw).select_columns([image, mask])
        self.name, self.columns = name, (image, mask)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index):
        row, names = self.table[index], [f"{column} {index} of {self.name}" for column in self.columns]
        for column, name in zip(self.columns, names, strict=True):
            if row[column] is None:
                raise ValueError(f"There is no {name}, it is null; remove the row.")
        files = (row[column]["bytes"] or Path(row[column]["path"]) for column in self.columns)
        return Sample(*files, *names)
