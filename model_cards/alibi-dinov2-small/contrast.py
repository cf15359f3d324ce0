# SPDX-License-Identifier: Apache-2.0
"""How values of any type become 8-bit grey levels: a named setting, found once for a series, saved, and told."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias, Union

import numpy as np

AUTO, PER_IMAGE, FULL_RANGE, RANGE = "auto", "per-image", "full-range", "range"
RULES = (AUTO, PER_IMAGE, FULL_RANGE)
# Per cent of the values that become black, and as many white: the first that keeps enough grey levels is taken.
TAILS = (0.1, 0.5, 1.0, 2.0, 5.0, 0.0)
MIN_LEVELS = 0.6  # of the distinct values, or of 64 if there are more
COUNTED_LEVELS = 64
CHUNK = 2**20  # values that are converted at once
SMALL = 2  # bytes of types that are converted by a table

Setting: TypeAlias = Union[str, Sequence[float], dict[str, Any], "Contrast"]


@dataclass(frozen=True)
class Contrast:
    """How values become grey levels: linearly, from `low`, which is black, to `high`, which is white.

    Attributes:
        rule: `auto`, `per-image`, `full-range`, or `range` for one that the user has given.
        low, high: one for all channels, or one for each; empty as long as nothing was found.
        dtype: of the values they were found on, which are the only ones they are good for; none for `range`.
        tail: per cent of values that were taken to be black, and as many white.
    """

    rule: str = AUTO
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dtype: str | None = None
    tail: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in (*RULES, RANGE):
            raise ValueError(f"The contrast is {self.rule!r}; {ALLOWED}.")
        if len(self.low) != len(self.high):
            raise ValueError(f"The contrast goes from {self.low} to {self.high}; give as many ends as beginnings.")
        pairs = list(zip(self.low, self.high, strict=True))
        if not all(math.isfinite(end) for pair in pairs for end in pair) or any(low > high for low, high in pairs):
            raise ValueError(f"The contrast goes from {self.low} to {self.high}; give finite numbers, the lower first.")
        if self.rule == RANGE and (len(pairs) != 1 or self.low == self.high):
            raise ValueError(f"The contrast goes from {self.low} to {self.high}; give two different numbers.")

    @property
    def is_fitted(self) -> bool:
        """Whether it is known what is black and white."""
        return bool(self.low)

    @property
    def is_common(self) -> bool:
        """Whether it is one for a whole series, rather than each image's own."""
        return self.rule != PER_IMAGE or self.is_fitted

    @property
    def keeps_values(self) -> bool:
        """Whether 8-bit values stay what they are."""
        return self.dtype in ("uint8", None) and self.low == (0,) and self.high == (255,)

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `from_dict` makes the same contrast of."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def to_setting(self) -> "Setting":
        """The shortest of the JSON values that `as_contrast` makes the same contrast of."""
        if self.rule == RANGE:
            return [*self.low, *self.high]
        return self.to_dict() if self.is_fitted else self.rule

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Contrast":
        """What `to_dict` gave.

        Raises:
            ValueError: it is damaged.
        """
        try:
            facts: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            return cls(**facts)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{values} is no contrast ({error}); find it anew.") from error

    def fit(self, values: np.ndarray, bits: int | None = None) -> "Contrast":
        """The same rule with `low` and `high` found on values.

        `auto` and `per-image` leave values of up to 8 bits as they are and stretch others between percentiles, so that
        at least 60 % of the distinct values, or of 64 if there are more, stay distinct. `full-range` takes all that the
        type can hold; of floating values [0, 1] if they lie in it but for rounding, otherwise from the least to the
        greatest.

        Args:
            values: `(n, C)` finite values; with C columns each gets its own range.
            bits: that they use, if fewer than those of their type.

        Raises:
            ValueError: too few grey levels would be left, or more columns than there are ranges to find.
        """
        if self.rule == RANGE:
            return self
        ranges = [self.found(column, bits) for column in values.T]
        if len(set(ranges)) == 1:
            ranges = ranges[:1]  # the same for all channels, and for images with another number of them
        low, high, tails = zip(*ranges, strict=True)
        return replace(self, low=low, high=high, dtype=values.dtype.name, tail=max(tails))

    def found(self, values: np.ndarray, bits: int | None) -> tuple[float, float, float]:
        """Low, high and tail for `(n,)` values."""
        dtype = values.dtype
        bits = 1 if dtype.kind == "b" else bits
        unsigned = dtype.kind in "bu"
        if unsigned and (bits or 8 * dtype.itemsize) <= 8:
            return 0, 2 ** (bits or 8) - 1, 0.0
        if self.rule == FULL_RANGE and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            return (0, 2**bits - 1, 0.0) if bits and unsigned else (int(limits.min), int(limits.max), 0.0)
        if not len(values):
            return 0, 0, 0.0
        if self.rule == FULL_RANGE:
            least, greatest = float(values.min()), float(values.max())
            rounding = 2 * float(np.finfo(dtype).eps)
            return (0, 1, 0.0) if -rounding <= least <= greatest <= 1 + rounding else (least, greatest, 0.0)
        return stretched(values)

    def levels(self, values: np.ndarray) -> int:
        """How many grey levels are left of `(n,)` values."""
        return len(np.unique(self.apply(values[:, None])))

    def require_kind(self, dtype: np.dtype, ranges: int) -> None:
        """Raise a `ValueError` unless it is good for values of a type, and of an image that has so many ranges."""
        if self.dtype not in (None, dtype.name):
            raise ValueError(
                f"it has values of {dtype}, the contrast ({self.describe()}) was found on {self.dtype}. Choose the "
                "contrast per-image, or one range for both"
            )
        if len(self.low) not in (0, 1, ranges):
            raise ValueError(
                f"the contrast was found for {len(self.low)} channels, but {ranges} are seen. Choose as many as then"
            )

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Grey levels `(…, C)` uint8 of values `(…, C)`; those beyond the range are black or white, NaN is black."""
        if self.keeps_values and values.dtype == np.uint8:
            return values
        result = np.empty(values.shape, np.uint8)
        channels = values.shape[-1]
        # One range is for all channels.
        together = [slice(None)] if len(self.low) == 1 else [slice(number, number + 1) for number in range(channels)]
        for part, low, high in zip(together, self.low, self.high, strict=True):
            if values.dtype.itemsize <= SMALL and values.dtype.kind in "biu":
                result[..., part] = table(values.dtype, low, high)[unsigned_view(values[..., part])]
            else:
                rows = max(CHUNK // max(values[0].size, 1), 1) if values.ndim > 1 else CHUNK
                for start in range(0, len(values), rows):
                    piece = np.s_[start : start + rows, ..., part]
                    result[piece] = grey_levels(values[piece], low, high)
        return result

    def describe(self) -> str:
        """One line about what is done."""
        if not self.is_fitted:
            return f"{self.rule}: each image stretched by itself" if self.rule == PER_IMAGE else self.rule
        if self.rule != RANGE and self.keeps_values:
            return f"{self.rule}: 8-bit values as they are"
        ranges = ", ".join(f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True))
        if self.low == self.high:
            return f"{self.rule}: all values are {self.low[0]:g}, which is black"
        tail = f", {self.tail:g} % of the values below and above" if self.tail else ""
        return f"{self.rule}: {self.dtype + ' ' if self.dtype else ''}{ranges} from black to white{tail}"


ALLOWED = f"it must be one of {', '.join(RULES)}, two numbers (low, high), or a contrast that was saved"


def as_contrast(setting: Setting) -> Contrast:
    """A contrast from its name, from two numbers `(low, high)`, as a tuple or a text `low,high`, from itself, or saved.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(setting, Contrast):
        return setting
    if isinstance(setting, dict):
        return Contrast.from_dict(setting)
    if isinstance(setting, str) and "," not in setting:
        return Contrast(setting)
    try:
        low, high = (as_number(end) for end in (setting.split(",") if isinstance(setting, str) else setting))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The contrast is {setting!r}; {ALLOWED}.") from error
    return Contrast(RANGE, (low,), (high,))


def as_number(value: Any) -> float:
    """A whole number as an int of any size, others as a float."""
    number = float(value)
    if not number.is_integer():
        return number
    try:
        return int(value)  # not by way of a float, which does not hold all integers of 64 bits
    except ValueError:
        return number


def stretched(values: np.ndarray) -> tuple[float, float, float]:
    """Percentiles of `(n,)` values that keep enough grey levels: low, high, and per cent beyond each of them.

    Raises:
        ValueError: none do.
    """
    distinct, cumulative = distribution(values)
    needed = MIN_LEVELS * min(COUNTED_LEVELS, len(distinct))
    total = int(cumulative[-1])
    best = 0
    for tail in TAILS:
        cut = int(total * tail / 100)
        low = distinct[np.searchsorted(cumulative, cut, side="right")].item()
        high = distinct[np.searchsorted(cumulative, total - cut, side="left")].item()
        left = Contrast(RANGE, (low,), (high,)).levels(distinct) if low < high else 1
        if left >= needed:
            return low, high, tail
        best = max(best, left)
    raise ValueError(
        f"of {len(distinct)} different values from {distinct[0]} to {distinct[-1]} only {best} would stay different "
        "grey levels: they are spread too unevenly. Choose the contrast per-image if these are several images, or what "
        "is to be seen with the contrast (low, high)"
    )


def distribution(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, ascending, and how many values are not greater than each."""
    if values.dtype.kind in "iu" and values.dtype.itemsize <= SMALL:
        least = int(np.iinfo(values.dtype).min)
        counts = np.bincount(values.astype(np.int64) - least)
        present = np.flatnonzero(counts)
        return (present + least).astype(values.dtype), np.cumsum(counts[present])
    distinct, counts = np.unique(values, return_counts=True)
    return distinct, np.cumsum(counts)


def unsigned_view(values: np.ndarray) -> np.ndarray:
    """The bits of small integers as indices of a `table`."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def table(dtype: np.dtype, low: float, high: float) -> np.ndarray:
    """The grey level of each pattern of bits of a small integer type."""
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    patterns = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}")
    return grey_levels(patterns.view(dtype), low, high)


def grey_levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Grey levels of values of any type, uint8."""
    if low == high:
        return np.zeros(values.shape, np.uint8)
    shares = integer_shares(values, low, high) if values.dtype.kind in "iu" else floating_shares(values, low, high)
    return np.rint(np.nan_to_num(np.clip(shares, 0, 1)) * 255).astype(np.uint8)


def integer_shares(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where integers lie between low and high; exact for 64 bits too, which floating numbers are not."""
    limits = np.iinfo(values.dtype)
    base = min(max(math.floor(low), int(limits.min)), int(limits.max))
    above = np.maximum(values, np.array(base, values.dtype))
    # Differences may exceed a signed type, not the unsigned one, in which they wrap to the right number.
    unsigned = f"u{values.dtype.itemsize}"
    differences = above.view(unsigned) - np.array(base, values.dtype).view(unsigned)
    return (differences + float(base - low)) / float(high - low)


def floating_shares(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where floating numbers lie between low and high."""
    # Brought to the order of one first: the difference of the largest numbers would be infinite.
    exponent = -math.frexp(max(abs(low), abs(high)))[1]
    ends = math.ldexp(low, exponent), math.ldexp(high, exponent)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.ldexp(values.astype(np.float64), exponent)
        return (scaled - ends[0]) / (ends[1] - ends[0])
