# SPDX-License-Identifier: Apache-2.0
"""Images -> crops: sample number `k` of a run is always the same crop of the same image."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from training.images import decode, name_of
from training.known_images import KnownImages

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


@dataclass(frozen=True)
class Mixture:
    """Images of which some samples are.

    Args:
        images: from `load_images`.
        share: of the samples, in (0, 1).
    """

    images: datasets.Dataset
    share: float

    def before(self, sample: int) -> int:
        """How many of the samples before this one are of these images; one more after each that is."""
        return int(sample * self.share)


class Crops(Dataset):
    """Square crops of a stage: item `k` is a pure function of the images, the seed and the run's sample number.

    Each pass over the images has an order of its own. An image that cannot be read, or shows what an image kept for
    validation shows, gives way to the next of the order.

    Args:
        images: from `load_images`.
        size: side of the crops in pixels.
        start, stop: the run's sample numbers that this data set holds.
        seed: of order and crops.
        rule: how to cut.
        kept_out: recognises the images for validation.
        mixture: other images, of which a share of the samples is.
    """

    def __init__(
        self,
        images: datasets.Dataset,
        size: int,
        start: int,
        stop: int,
        seed: int,
        rule: CropRule,
        kept_out: KnownImages | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        self.images, self.size, self.start, self.stop, self.seed, self.rule = images, size, start, stop, seed, rule
        self.kept_out, self.mixture = kept_out, mixture

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, item: int) -> dict[str, Any]:
        """`pixels` `(3, size, size)` uint8, and `unreadable` and `held_out`, the messages of images passed over."""
        sample = self.start + item
        images, number = self.source_of(sample)
        count = len(images)
        passed: dict[str, list[str]] = {"unreadable": [], "held_out": []}
        for attempt in range(count):
            epoch, position = divmod(number + attempt, count)
            row = int(order_of(count, self.seed, epoch)[position])
            image = trainable(images[row]["image"], f"row {row}", self.kept_out, passed)
            if image:
                return make_sample(image, sample, self.size, self.seed, self.rule) | passed
        raise ValueError(f"None of the {count} images can be trained on. {describe(passed)}")

    def source_of(self, sample: int) -> tuple[datasets.Dataset, int]:
        """The images that a sample is of, and how many samples before it are of them."""
        if self.mixture is None:
            return self.images, sample
        before, after = self.mixture.before(sample), self.mixture.before(sample + 1)
        return (self.mixture.images, before) if after > before else (self.images, sample - before)


@lru_cache(maxsize=4)  # two passes, each over the images and over those that are mixed in
def order_of(count: int, seed: int, epoch: int) -> np.ndarray:
    """Order of so many images in one pass."""
    return np.random.default_rng((seed, epoch)).permutation(count)


class StreamedCrops(Dataset):
    """Square crops of the rows of a stream: what `StreamedRows` draws, cut.

    An image that cannot be read or is kept for validation gives way to the crop before it in the batch (see `collate`):
    nobody can look ahead.

    Args:
        size: side of the crops in pixels.
        seed: of the crops.
        rule: how to cut.
        kept_out: recognises the images for validation.
    """

    def __init__(self, size: int, seed: int, rule: CropRule, kept_out: KnownImages | None = None) -> None:
        self.size, self.seed, self.rule, self.kept_out = size, seed, rule, kept_out

    def __getitem__(self, row: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        """As `Crops`; `pixels` is missing if the image gives way."""
        sample, entry = row
        passed: dict[str, list[str]] = {"unreadable": [], "held_out": []}
        image = trainable(entry["image"], f"sample {sample} of the stream", self.kept_out, passed)
        return (make_sample(image, sample, self.size, self.seed, self.rule) if image else {}) | passed


def trainable(
    entry: dict[str, Any] | None, row: str, kept_out: KnownImages | None, passed: dict[str, list[str]]
) -> Image.Image | None:
    """An image to train on; of one that must be passed over nothing, and a message in `passed`."""
    try:
        image = decode(entry, row)
    except ValueError as error:
        passed["unreadable"].append(str(error))
        return None
    twin = kept_out.find(image) if kept_out else None
    if twin is None:
        return image
    passed["held_out"].append(f"{name_of(entry, row)} shows what {twin} shows, which is kept for validation.")
    return None


def describe(passed: dict[str, list[str]]) -> str:
    """How many images were passed over for which reason, and the first of them."""
    unreadable, held_out = passed["unreadable"], passed["held_out"]
    first = (unreadable or held_out)[0]
    return f"{len(unreadable)} cannot be read, {len(held_out)} are kept for validation; the first: {first}"


def make_sample(image: Image.Image, sample: int, size: int, seed: int, rule: CropRule) -> dict[str, Any]:
    """The crop of a sample number, and whether the image had to be enlarged for it."""
    pixels = rule.cut(image, size, np.random.default_rng((seed, sample)))
    return {"pixels": pixels, "enlarged": min(image.size) < size}


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
    """A batch: `pixels` `(B, 3, size, size)` uint8, the messages of all samples, and how many images were enlarged.

    Raises:
        ValueError: no image of the batch can be trained on.
    """
    passed = {kind: [message for sample in samples for message in sample[kind]] for kind in ("unreadable", "held_out")}
    readable = [sample for sample in samples if "pixels" in sample]
    if not readable:
        raise ValueError(f"None of the {len(samples)} images of a batch can be trained on. {describe(passed)}")
    crops: list[torch.Tensor] = []
    for sample in samples:
        crops.append(sample["pixels"] if "pixels" in sample else (crops or [readable[0]["pixels"]])[-1])
    enlarged = sum(sample["enlarged"] for sample in readable)
    return {"pixels": torch.stack(crops), "enlarged": enlarged} | passed
