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
MAX_ASPECT = 4


@dataclass(frozen=True)
class CropRule:
    """How a square is cut from an image, and what is done to it afterwards; teacher and student see the same.

    Args:
        crop: `"random"` (a random resized crop) or `"center"` (the largest centred square).
        scale: smallest share of the image's area in a random crop.
        flip: whether half of the crops are mirrored.
        turn: whether crops are turned by a random multiple of 90°.
        roll: whether crops are rolled on the torus by random numbers of pixels.
        zoom: if given, a random crop shows a part of the image at its own proportions, enlarged as if the image's
            shortest side were between the crop's and so many pixels long.
    """

    crop: str = "random"
    scale: float = 0.25
    flip: bool = False
    turn: bool = False
    roll: bool = False
    zoom: int | None = None

    def cut(self, image: Image.Image, shape: tuple[int, int], random: np.random.Generator) -> torch.Tensor:
        """A crop of `shape`, height and width in pixels: `(3, height, width)` uint8."""
        height, width = shape
        if self.crop == "center":
            box = center_box(image.size, width / height)
        elif self.zoom is None:
            box = random_box(image.size, self.scale, random, width / height)
        else:
            box = zoomed_box(image.size, shape, self.zoom, random)
        pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
        if self.flip and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.turn:
            pixels = np.rot90(pixels, int(random.integers(4)))
        if self.roll:
            pixels = np.roll(pixels, random.integers(shape), axis=(0, 1))
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))


@dataclass(frozen=True)
class Shapes:
    """Heights and widths of a stage's crops: one for each batch, so that its crops can be stacked.

    Args:
        size: side of square crops in pixels.
        aspect: largest ratio of the sides.
        patch: side of a patch in pixels, of which sides are multiples unless crops are square.
        first: sample number at which the stage begins.
        batch: images of a forward pass, all processes together.
        seed: of the shapes.
    """

    size: int
    aspect: float = 1.0
    patch: int = 1
    first: int = 0
    batch: int = 1
    seed: int = 0

    def of(self, sample: int) -> tuple[int, int]:
        """Height and width of a sample's crop in pixels."""
        if self.aspect == 1:
            return self.size, self.size
        random = np.random.default_rng((self.seed, (sample - self.first) // self.batch, self.first))
        # Height over width: a square is as likely to become tall as wide.
        root = float(np.exp(random.uniform(-1, 1) * np.log(self.aspect) / 2))
        height, width = (max(round(self.size * factor / self.patch), 1) for factor in (root, 1 / root))
        return height * self.patch, width * self.patch


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
    """Crops of a stage: item `k` is a pure function of the images, the seed and the run's sample number.

    Each pass over the images has an order of its own. An image that cannot be read, or shows what an image kept for
    validation shows, gives way to the next of the order.

    Args:
        images: from `load_images`.
        shapes: heights and widths of the crops.
        start, stop: the run's sample numbers that this data set holds.
        seed: of order and crops.
        rule: how to cut.
        kept_out: recognises the images for validation.
        mixture: other images, of which a share of the samples is.
    """

    def __init__(
        self,
        images: datasets.Dataset,
        shapes: Shapes,
        start: int,
        stop: int,
        seed: int,
        rule: CropRule,
        kept_out: KnownImages | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        self.images, self.shapes, self.start, self.stop, self.seed, self.rule = images, shapes, start, stop, seed, rule
        self.kept_out, self.mixture = kept_out, mixture

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, item: int) -> dict[str, Any]:
        """`pixels` `(3, H, W)` uint8, and `unreadable` and `held_out`, the messages of images passed over."""
        sample = self.start + item
        images, number = self.source_of(sample)
        count = len(images)
        passed: dict[str, list[str]] = {"unreadable": [], "held_out": []}
        for attempt in range(count):
            epoch, position = divmod(number + attempt, count)
            row = int(order_of(count, self.seed, epoch)[position])
            image = trainable(images[row]["image"], f"row {row}", self.kept_out, passed)
            if image:
                return make_sample(image, sample, self.shapes.of(sample), self.seed, self.rule) | passed
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
    """Crops of the rows of a stream: what `StreamedRows` draws, cut.

    An image that cannot be read or is kept for validation gives way to the crop before it in the batch (see `collate`):
    nobody can look ahead.

    Args:
        shapes: heights and widths of the crops.
        seed: of the crops.
        rule: how to cut.
        kept_out: recognises the images for validation.
    """

    def __init__(self, shapes: Shapes, seed: int, rule: CropRule, kept_out: KnownImages | None = None) -> None:
        self.shapes, self.seed, self.rule, self.kept_out = shapes, seed, rule, kept_out

    def __getitem__(self, row: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        """As `Crops`; `pixels` is missing if the image gives way."""
        sample, entry = row
        passed: dict[str, list[str]] = {"unreadable": [], "held_out": []}
        image = trainable(entry["image"], f"sample {sample} of the stream", self.kept_out, passed)
        shape = self.shapes.of(sample)
        return (make_sample(image, sample, shape, self.seed, self.rule) if image else {}) | passed


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


def make_sample(image: Image.Image, sample: int, shape: tuple[int, int], seed: int, rule: CropRule) -> dict[str, Any]:
    """The crop of a sample number, and whether the image is smaller than it."""
    pixels = rule.cut(image, shape, np.random.default_rng((seed, sample)))
    return {"pixels": pixels, "enlarged": min(image.size) < min(shape)}


def center_box(size: tuple[int, int], ratio: float = 1.0) -> tuple[float, float, float, float]:
    """The largest centred box of `ratio`, width to height, in an image of `(width, height)`: left, top, right, bottom.

    Resizing a square to the crop's side equals resizing the image's shortest side and cropping its centre.
    """
    width, height = size
    box_width, box_height = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def zoomed_box(
    size: tuple[int, int], shape: tuple[int, int], zoom: int, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """A box at a random place of an image of `(width, height)` that shows it at a random scale.

    The image's shortest side would be between the crop's longest and `zoom` pixels long, all factors being as likely.

    Args:
        shape: height and width of the crop in pixels.
    """
    width, height = size
    longest = max(shape)
    side = longest * (max(zoom, longest) / longest) ** random.uniform()
    box_height, box_width = (pixels * min(size) / side for pixels in shape)
    left, top = random.uniform(0, width - box_width), random.uniform(0, height - box_height)
    return left, top, left + box_width, top + box_height


def random_box(
    size: tuple[int, int], scale: float, random: np.random.Generator, ratio: float = 1.0
) -> tuple[float, float, float, float]:
    """A box of random area (a share in [scale, 1]) and place in an image of `(width, height)`, its shape between 3:4
    and 4:3 times `ratio`, width to height."""
    width, height = size
    area = random.uniform(scale, 1) * width * height
    ratio = ratio * np.exp(random.uniform(*np.log(RATIO)))
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
