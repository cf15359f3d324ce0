# SPDX-License-Identifier: Apache-2.0
"""The slices of a stored image as 8-bit RGB: channels chosen, values made grey levels, transparency over white."""

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import TypeVar

import numpy as np

from alibi_dinov2.io.channels import Channel, choose_channels
from alibi_dinov2.io.damage import naming
from alibi_dinov2.io.stored_image import CHANNEL, REPEATED, StoredImage
from alibi_dinov2.io.tiles import Block
from modeling_alibi_dinov2.common_contrast import SAMPLE, evenly, sampled_blocks
from modeling_alibi_dinov2.contrast import AUTO, Contrast, Setting, as_contrast
from modeling_alibi_dinov2.pixels import over_white

REFUSE, MASK = "refuse", "mask"
SAMPLED_SLICES = 16  # of a larger series
BAND = 256  # rows that are read at once where all pixels are looked at

Self = TypeVar("Self", bound="SlicedImage")


class SlicedImage:
    """An image or a stack of which regions are read as 8-bit RGB, by one contrast.

    Args:
        images: as they are stored; of one kind, see `StoredImage.is_like`.
        name: what messages call the image.
        contrast: `auto`, `per-image`, `full-range`, `(low, high)`, or a `Contrast` that was found before.
        channel: number or name of the channel that is seen in grey, or of up to three seen as red, green and blue.
        nonfinite: what NaN and infinite pixels do: `refuse` raises an error, `mask` makes them black, see `mask`.

    Attributes:
        slices: how many images of equal shape there are.
        shape: height and width in pixels, upright.
        axes: what the slices are: lengths by letter (T time, Z depth, I images of a file), the last runs fastest.
        channels: names of all channels; their numbers if they have no names.
        pixel_size: height, width and unit of a pixel, or none.
        dtype: of the values.
        setting: the contrast that was asked for.

    Raises:
        ValueError: there is no such channel or contrast, or a channel must be chosen; the message lists them.
    """

    def __init__(
        self,
        images: Sequence[StoredImage],
        name: str,
        contrast: Setting = AUTO,
        channel: Channel = None,
        nonfinite: str = REFUSE,
    ) -> None:
        if nonfinite not in (REFUSE, MASK):
            raise ValueError(f"`nonfinite` is {nonfinite!r}; it must be {REFUSE!r} or {MASK!r}.")
        self.name, self.nonfinite, self.setting = name, nonfinite, as_contrast(contrast)
        self.kind = images[0]
        self.channels, self.planes = choose_channels(self.kind, channel, name)
        self.chosen = channel is not None
        self.places = [(image, place) for image in images for place in image.slice_places()]
        self.axes = {
            axis: length
            for axis, length in zip(self.kind.axes, self.kind.lengths, strict=True)
            if axis != CHANNEL and length > 1
        }
        if len(images) > 1:
            alike = all(image.lengths == self.kind.lengths for image in images)
            self.axes = {REPEATED: len(images), **self.axes} if alike else {REPEATED: len(self.places)}
        self.slices, self.shape, self.pixel_size = len(self.places), self.kind.shape, self.kind.pixel_size
        self.dtype = np.dtype(np.uint8) if self.kind.palette is not None else self.kind.dtype
        self.fitted: dict[int | None, Contrast] = {}

    @property
    def contrast(self) -> Contrast:
        """How values become grey levels: the same for all slices, or a rule that is applied to each of them."""
        return self.contrast_of(0) if self.setting.is_common else self.setting

    def contrast_of(self, index: int) -> Contrast:
        """The contrast of a slice; the first call finds it.

        Raises:
            ValueError: some pixels are NaN or infinite, too few grey levels would be left, or the contrast was found on
                values of another type or number of channels.
        """
        key = None if self.setting.is_common else index
        if key not in self.fitted:
            self.require_finite()
            try:
                self.setting.require_kind(self.dtype, self.ranges)
                fitted = self.setting
                if not fitted.is_fitted:
                    fitted = fitted.fit(self.sample(SAMPLE, key), self.bits)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}.") from error
            self.fitted[key] = fitted
        return self.fitted[key]

    @property
    def bits(self) -> int | None:
        """How many bits values use, if that is known and fewer than their type has."""
        return None if self.kind.palette is not None else self.kind.bits

    def with_contrast(self: Self, contrast: Setting) -> Self:
        """The same image seen with another contrast; the file stays that of both."""
        other = copy.copy(self)
        other.setting, other.fitted = as_contrast(contrast), {}
        return other

    def read(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """A region of a slice that lies inside it, `(h, w, 3)` uint8, RGB.

        Raises:
            ValueError: the file is damaged, or some pixels of it are NaN or infinite; the message names it.
        """
        values, opacity = self.values(index, rows, columns)
        levels = self.contrast_of(index).apply(values)
        if self.kind.white_is_zero:
            levels = 255 - levels
        if values.dtype.kind == "f" and self.nonfinite == MASK:
            levels[~np.isfinite(values).all(axis=-1)] = 0
        if levels.shape[-1] == 1:
            levels = np.repeat(levels, 3, axis=-1)
        elif levels.shape[-1] == 2:
            levels = np.concatenate([levels, np.zeros_like(levels[..., :1])], axis=-1)
        if opacity is None:
            return np.ascontiguousarray(levels)
        return over_white(levels, opacity, self.kind.premultiplied)

    def mask(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """Where a region has values, that is, none that is NaN or infinite, `(h, w)` bool."""
        values, _ = self.values(index, rows, columns)
        return np.isfinite(values).all(axis=-1) if values.dtype.kind == "f" else np.ones(values.shape[:2], bool)

    def values(self, index: int, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray | None]:
        """A region before its values become grey levels: `(h, w, C)`, one for each plane, and opacity `(h, w, 1)`."""
        channels = sorted({channel for channel, _ in self.planes})
        stored = {channel: self.stored(index, rows, columns, channel) for channel in channels}
        if self.kind.palette is not None:
            (pixels,) = stored.values()
            colours = self.kind.palette[np.minimum(pixels[..., 0], len(self.kind.palette) - 1)]
            return colours[..., :3], colours[..., 3:] if colours.shape[-1] == 4 else None
        if len(channels) == 1:
            pixels = stored[channels[0]]
            samples = [sample for _, sample in self.planes]
            values = pixels if samples == list(range(pixels.shape[-1])) else pixels[..., samples]
        else:
            values = np.stack([stored[channel][..., sample] for channel, sample in self.planes], axis=-1)
        if self.kind.opacity is None or self.chosen:
            return values, None
        return values, pixels[..., self.kind.opacity, None]

    def stored(self, index: int, rows: slice, columns: slice, channel: int = 0) -> np.ndarray:
        """A region of a slice as it is stored, `(h, w, S)` with all samples: those of a palette image as its indices.

        Args:
            index: of the slice.
            rows, columns: where it lies.
            channel: along the axis C; images without it have channel 0.
        """
        if not 0 <= index < self.slices:
            raise ValueError(f"{self.name} has no slice {index}; it has {self.slices}, counted from 0.")
        rows, columns = (
            slice(*span.indices(length)[:2]) for span, length in zip((rows, columns), self.shape, strict=True)
        )
        image, place = self.places[index]
        with naming(self.name):
            return image.read(tuple({**place, CHANNEL: channel}[axis] for axis in image.axes), rows, columns)

    def sample(self, limit: int, index: int | None = None) -> np.ndarray:
        """Values to find a contrast on, `(n, C)`; the same ones each time. NaN and infinite ones are left out.

        Colours have one range (C = 1), channels one each.

        Args:
            limit: about how many pixels; if there are no more, all of them.
            index: of a slice; of all of them if not given.
        """
        parts = []
        for number, (rows, columns) in self.sampled(limit, index):
            values, _ = self.values(number, rows, columns)
            values = values.reshape(-1, self.ranges)
            parts.append(values[np.isfinite(values).all(axis=-1)] if values.dtype.kind == "f" else values)
        return np.concatenate(parts)

    @property
    def are_colours(self) -> bool:
        """Whether what is seen are the colours of one picture, rather than channels, each with its own range."""
        return self.kind.palette is not None or not self.chosen or len({sample for _, sample in self.planes}) == 3

    @property
    def ranges(self) -> int:
        """How many ranges a contrast of it has: one for grey and for colours, one for each of several channels."""
        return 1 if self.are_colours else len(self.planes)

    def sampled(self, limit: int, index: int | None) -> Iterator[tuple[int, Block]]:
        """Slices and places in them that `sample` looks at."""
        wanted = list(range(self.slices)) if index is None else [index]
        if len(wanted) * self.shape[0] * self.shape[1] > limit:
            wanted = evenly(wanted, SAMPLED_SLICES)
        places = sampled_blocks(self.shape, limit // len(wanted))
        yield from product(wanted, places)

    def bands(self) -> list[Block]:
        """Rows and columns of all of a slice, some rows at a time."""
        height, width = self.shape
        return [(slice(top, min(top + BAND, height)), slice(0, width)) for top in range(0, height, BAND)]

    @cached_property
    def nonfinite_pixels(self) -> int:
        """How many pixels of all slices have a value that is NaN or infinite; it takes a pass over floating values."""
        if self.dtype.kind != "f":
            return 0
        return sum(
            int(np.count_nonzero(~self.mask(index, *block))) for index in range(self.slices) for block in self.bands()
        )

    def require_finite(self) -> None:
        """Raise a `ValueError` that says how many pixels are NaN or infinite, if they are not to be masked."""
        if self.nonfinite == REFUSE and self.nonfinite_pixels:
            size = self.slices * self.shape[0] * self.shape[1]
            raise ValueError(
                f"{self.name} has {self.nonfinite_pixels} NaN or infinite of {size} pixels. Mask them with "
                "nonfinite='mask', or replace them, for example with `numpy.nan_to_num`."
            )

    def describe(self) -> str:
        """One line: what the image is, what of it is seen, and how its values became grey levels."""
        size = f"{self.slices} slices of " if self.slices > 1 else ""
        facts = [f"{self.name}: {size}{self.shape[0]}×{self.shape[1]} {self.dtype}"]
        if self.chosen:
            numbers = [channel if self.kind.channel_count > 1 else sample for channel, sample in self.planes]
            facts.append("channel " + ", ".join(dict.fromkeys(self.channels[number] for number in numbers)))
        facts.append(f"contrast {self.contrast.describe()}")
        if self.nonfinite == MASK and self.nonfinite_pixels:
            facts.append(f"{self.nonfinite_pixels} NaN or infinite pixels masked")
        unseen = len(self.channels) - len(self.kind.visible) - (self.kind.opacity is not None)
        if not self.chosen and unseen > 0 and self.kind.palette is None:
            facts.append(f"left out: {', '.join(self.channels[-unseen:])} beside the colours")
        return "; ".join(facts)
