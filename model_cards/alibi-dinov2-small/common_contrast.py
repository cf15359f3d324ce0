# SPDX-License-Identifier: Apache-2.0
"""One contrast for several images: the values that it is found on, and that they are of one kind."""

from collections.abc import Sequence
from itertools import product
from typing import Protocol, TypeVar

import numpy as np

from .contrast import Contrast

SAMPLE = 2**21  # pixels on which a contrast is found
SIDE = 128  # in pixels, of the squares of a larger image that are looked at

Block = tuple[slice, slice]
Thing = TypeVar("Thing")


class Valued(Protocol):
    """An image before its values become grey levels.

    Attributes:
        name: what messages call it.
        dtype: of the values.
        bits: that they use, if it is known and fewer than their type has.
        ranges: how many a contrast of it has: one for grey and for colours, one for each of several channels.
    """

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def bits(self) -> int | None: ...

    @property
    def ranges(self) -> int: ...

    def sample(self, limit: int) -> np.ndarray:
        """Finite values of about `limit` pixels, `(n, ranges)`; the same ones each time."""
        ...


def fit_common(contrast: Contrast, images: Sequence[Valued]) -> Contrast:
    """A contrast found on all of some images together; one that was found before stays as it is.

    Raises:
        ValueError: the images have values of different kinds, or too few grey levels would be left.
    """
    if contrast.is_fitted:
        return contrast
    kinds = {(image.dtype.name, image.bits, image.ranges) for image in images}
    if len(kinds) > 1:
        listed = ", ".join(f"{dtype} with {ranges} channels" for dtype, _, ranges in sorted(kinds, key=str))
        raise ValueError(
            f"The images have values of {listed}; one contrast is for images of one kind. Choose the contrast "
            "per-image, or one range (low, high)."
        )
    values = np.concatenate([image.sample(max(SAMPLE // len(images), 1)) for image in images])
    try:
        return contrast.fit(values, images[0].bits)
    except ValueError as error:
        raise ValueError(f"{images[0].name if len(images) == 1 else 'The images'}: {error}.") from error


def sampled_blocks(shape: tuple[int, int], limit: int) -> list[Block]:
    """Where a contrast looks at an image: at all of it, or at evenly spread squares if it has more than `limit` pixels.

    Args:
        shape: height and width in pixels.
        limit: about how many pixels.
    """
    height, width = shape
    if height * width <= limit:
        return [(slice(0, height), slice(0, width))]
    corners = list(product(range(0, height, SIDE), range(0, width, SIDE)))
    return [
        (slice(top, min(top + SIDE, height)), slice(left, min(left + SIDE, width)))
        for top, left in evenly(corners, max(limit // SIDE**2, 1))
    ]


def evenly(things: list[Thing], count: int) -> list[Thing]:
    """At most `count` of some things, evenly spread, the first and the last among them if there is room."""
    if count >= len(things):
        return things
    return [things[round(place)] for place in np.linspace(0, len(things) - 1, count)]
