# SPDX-License-Identifier: Apache-2.0
"""Images -> crops: sample number `k` of a run is always the same crop of the same image."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from common.images import find_images, read_image

RATIO = (3 / 4, 4 / 3)  # of random crops, width to height, as in Inception and DINOv2
CROPS = ("random", "center")


@dataclass(frozen=True)
class CropRule:
    """How a square is cut from an image, and what is done to it afterwards; teacher and student see the same.

    Args:
        crop: `"random"` (a random resized crop) or `"center"` (the largest centred square).
        scale: smallest share of the image's area in a random crop.
        flip: whether half of the crops are mirrored.
        turn: whether crops are turned by a random multiple of 90°.
        roll: whether crops are rolled on the torus by random numbers of pixels.
    """

    crop: str = "random"
    scale: float = 0.25
    flip: bool = False
    turn: bool = False
    roll: bool = False

    def cut(self, image: Image.Image, size: int, random: np.random.Generator) -> torch.Tensor:
        """A crop of `size` pixels a side, `(3, size, size)` uint8."""
        box = random_box(image.size, self.scale, random) if self.crop == "random" else center_box(image.size)
        pixels = np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
        if self.flip and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.turn:
            pixels = np.rot90(pixels, int(random.integers(4)))
        if self.roll:
            pixels = np.roll(pixels, random.integers(size, size=2), axis=(0, 1))
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))


def load_images(source: str, split: str = "train") -> datasets.Dataset:
    """A data set with an `image` column of undecoded images.

    Args:
        source: folder of images, parquet file or folder of parquet files, or Hub id.
        split: split of a Hub data set.

    Raises:
        FileNotFoundError: a folder holds neither images nor parquet files.
        ValueError: the data set has no column `image`, or is empty.
    """
    path = Path(source)
    tables = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet"))
    if tables:
        images = datasets.load_dataset("parquet", data_files=[str(table) for table in tables], split="train")
    elif path.is_dir():
        images = datasets.Dataset.from_dict({"image": [str(file) for file in find_images(path)]})
    else:
        images = datasets.load_dataset(source, split=split)
    if "image" not in images.column_names or not len(images):
        raise ValueError(
            f"{source} has {len(images)} rows with columns {images.column_names}; it needs images in 'image'."
        )
    return images.select_columns("image").cast_column("image", datasets.Image(decode=False))


class Crops(Dataset):
    """Square crops of a stage: item `k` is a pure function of the images, the seed and the run's sample number.

    Each pass over the images has an order of its own. An image that cannot be read gives way to the next of the order.

    Args:
        images: from `load_images`.
        size: side of the crops in pixels.
        start, stop: the run's sample numbers that this data set holds.
        seed: of order and crops.
        rule: how to cut.
    """

    def __init__(self, images: datasets.Dataset, size: int, start: int, stop: int, seed: int, rule: CropRule) -> None:
        self.images, self.size, self.start, self.stop, self.seed, self.rule = images, size, start, stop, seed, rule
        self.order = lru_cache(maxsize=2)(self.order)  # type: ignore[method-assign]

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, item: int) -> dict[str, Any]:
        """`pixels` `(3, size, size)` uint8, and `unreadable`, the messages of images passed over."""
        sample = self.start + item
        count = len(self.images)
        unreadable = []
        for attempt in range(count):
            epoch, position = divmod(sample + attempt, count)
            try:
                image = decode(self.images[int(self.order(epoch)[position])]["image"])
            except ValueError as error:
                unreadable.append(str(error))
                continue
            random = np.random.default_rng((self.seed, sample))
            return {"pixels": self.rule.cut(image, self.size, random), "unreadable": unreadable}
        raise ValueError(f"None of the {count} images can be read; the first: {unreadable[0]}")

    def order(self, epoch: int) -> np.ndarray:
        """Order of the images in one pass."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.images))


def decode(entry: dict[str, Any]) -> Image.Image:
    """An undecoded entry of a `datasets` image column as 8-bit RGB."""
    return read_image(entry["bytes"] or entry["path"], name=entry["path"] or "an image of the data set")


def center_box(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred square of an image of `(width, height)`: left, top, right, bottom.

    Resizing it to the crop's side equals resizing the image's shortest side and cropping its centre.
    """
    width, height = size
    side = min(size)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def random_box(size: tuple[int, int], scale: float, random: np.random.Generator) -> tuple[float, float, float, float]:
    """A box of random area (a share in [scale, 1]), shape (3:4 to 4:3) and place in an image of `(width, height)`."""
    width, height = size
    area = random.uniform(scale, 1) * width * height
    ratio = np.exp(random.uniform(*np.log(RATIO)))
    box_width, box_height = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    left, top = random.uniform(0, width - box_width), random.uniform(0, height - box_height)
    return left, top, left + box_width, top + box_height


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: `pixels` `(B, 3, size, size)` uint8, and the messages of all samples."""
    return {
        "pixels": torch.stack([sample["pixels"] for sample in samples]),
        "unreadable": [message for sample in samples for message in sample["unreadable"]],
    }


def center_crops(images: datasets.Dataset, size: int) -> torch.Tensor:
    """Centre crops of all images, `(N, 3, size, size)` uint8; raises a `ValueError` for one that cannot be read."""
    rule, random = CropRule("center"), np.random.default_rng(0)
    return torch.stack([rule.cut(decode(row["image"]), size, random) for row in images])
