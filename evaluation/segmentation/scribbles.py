# SPDX-License-Identifier: Apache-2.0
"""Strokes as a user would draw them, simulated from the ground truth (arXiv 2603.16840, section S8.3)."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from skimage.graph import MCP, MCP_Geometric

from evaluation.semantics.miou import VOID

LENGTH, WIDTH = 25, 1  # pixels
BEND_SCALE, BEND_STRENGTH = 4, 1.0  # pixels of what a stroke goes round, and how far it goes to do so
DIRECTIONS = 32  # that a straight stroke may take
WALL = -1.0  # what scikit-image takes for impassable


def stroke(
    mask: np.ndarray, length: int, width: int, random: np.random.Generator, straight: bool = False
) -> np.ndarray:
    """A stroke that lies wholly inside a region.

    It begins anywhere in the region. A bent one follows the cheapest path through a smooth random landscape, in which
    everything outside of the region is a wall; a part of the region that is too small gets a stroke from one end to the
    other. A straight one goes in a random direction in which the region goes on for long enough, or else in the one in
    which it goes on for longest.

    Args:
        mask: `(H, W)` boolean, the region.
        length: of the stroke's line, in pixels that touch by a side or a corner.
        width: of the brush in pixels, odd. Where the region is narrower, so is the stroke.
        random: draws where it begins and how it goes on.
        straight: whether it does not bend.

    Returns:
        `(H, W)` boolean, one connected piece, all of it in `mask`.

    Raises:
        ValueError: the region is empty, or a length or width is not possible.
    """
    require_brush(length, width)
    places = np.flatnonzero(mask)
    if not len(places):
        raise ValueError("The region is empty, so nothing can be drawn in it; leave out classes that do not occur.")
    start = np.array(np.unravel_index(random.choice(places), mask.shape))
    # No line of this length leaves the window.
    window = tuple(slice(max(place - length, 0), place + length + 1) for place in start)
    line = np.zeros(mask[window].shape, dtype=bool)
    origin = [part.start for part in window]
    draw = straight_line if straight else bent_line
    line[tuple(draw(mask[window], start - origin, length, random).T)] = True
    drawn = np.zeros(mask.shape, dtype=bool)
    drawn[window] = line
    if width == 1:
        return drawn
    # Grown step by step within the region: a brush does not jump over what is between.
    return ndimage.binary_dilation(drawn, iterations=width // 2, mask=mask)


def bent_line(mask: np.ndarray, start: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """Pixels `(n, 2)` of a line through a region `(H, W)`, from `start` `(2,)` or, if it is too near, from an end.

    `n` is `length`, or less if the part of the region is too small.
    """
    landscape = ndimage.gaussian_filter(random.normal(size=mask.shape), BEND_SCALE)
    # The filter reduces the standard deviation by this factor, whatever the size of the landscape.
    landscape *= 2 * np.sqrt(np.pi) * BEND_SCALE
    costs, steps = np.where(mask, np.exp(BEND_STRENGTH * landscape), WALL), np.where(mask, 1.0, WALL)
    line = start[None]
    for _ in range(2):
        begin = [tuple(line[-1])]
        distance, _ = MCP(steps).find_costs(begin)
        reached = np.isfinite(distance)
        far = np.argwhere(reached & (distance >= min(length - 1, distance[reached].max())))
        paths = MCP_Geometric(costs)
        paths.find_costs(begin)
        line = np.array(paths.traceback(random.choice(far)))
        if len(line) >= length:
            break
    return line[:length]


def straight_line(mask: np.ndarray, start: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """Pixels `(n, 2)` of a straight line in a region `(H, W)` from `start` `(2,)`; `n` is `length`, or less."""
    longest = start[None]
    for angle in random.permutation(DIRECTIONS) * (2 * np.pi / DIRECTIONS):
        step = np.array([np.sin(angle), np.cos(angle)])
        places = np.round(start + np.arange(length)[:, None] * step / np.abs(step).max()).astype(int)
        places = places[((places >= 0) & (places < mask.shape)).all(axis=1)]
        inside = mask[tuple(places.T)]
        line = places[: len(places) if inside.all() else inside.argmin()]
        longest = line if len(line) > len(longest) else longest
        if len(longest) == length:
            break
    return longest


def require_brush(length: int, width: int) -> None:
    """Raise a `ValueError` unless strokes can have this length and width in pixels."""
    if length < 1 or width < 1 or width % 2 == 0:
        raise ValueError(
            f"A stroke of {length} pixels, {width} wide, was asked for; its length is 1 or more, its width 1, 3, 5, …"
        )


def add_strokes(
    labels: np.ndarray,
    mask: np.ndarray,
    random: np.random.Generator,
    length: int = LENGTH,
    width: int = WIDTH,
    straight: bool = False,
) -> np.ndarray:
    """Labels with one more stroke for every class of the ground truth, drawn where nothing is labelled yet.

    Args:
        labels: `(H, W)` uint8, 0 unlabelled and 1 to K classes; it stays as it is.
        mask: `(H, W)`, the ground truth: 0 to K - 1, or `VOID`, where nothing is drawn.
        random, length, width, straight: as in `stroke`.

    Returns:
        `(H, W)` uint8. A class that does not occur, or is labelled everywhere, gets no stroke.
    """
    added = labels.copy()
    for value in np.unique(mask[mask != VOID]).tolist():
        free = (mask == value) & (added == 0)
        if free.any():
            added[stroke(free, length, width, random, straight)] = value + 1
    return added


def stroke_rounds(
    masks: Sequence[np.ndarray],
    rounds: int,
    seed: int,
    length: int = LENGTH,
    width: int = WIDTH,
    straight: bool = False,
) -> Iterator[list[np.ndarray]]:
    """The labels of all images after each round of a user who draws one stroke per class and image in a round.

    Args:
        masks: ground truth of each image, as in `add_strokes`.
        rounds: how many; a longer run begins with the same strokes.
        seed: of the strokes. Those of an image depend on no other image.
        length, width, straight: as in `stroke`.
    """
    randoms = [np.random.default_rng([seed, index]) for index in range(len(masks))]
    labels = [np.zeros(mask.shape, dtype=np.uint8) for mask in masks]
    for _ in range(rounds):
        labels = [
            add_strokes(drawn, mask, random, length, width, straight)
            for drawn, mask, random in zip(labels, masks, randoms, strict=True)
        ]
        yield labels
