# SPDX-License-Identifier: Apache-2.0
"""Which channels of an image are seen: all that a plain image has, or those that are chosen by number or name."""

from collections.abc import Sequence
from typing import TypeAlias

from alibi_dinov2.io.stored_image import StoredImage

Channel: TypeAlias = int | str | Sequence[int | str] | None
Plane = tuple[int, int]  # place along C, and sample

MOST = 3  # red, green, blue
COLOURS = ("red", "green", "blue")


def channel_names(image: StoredImage) -> tuple[str, ...]:
    """A name for each channel of an image: those of the file, colours, or numbers."""
    if image.channel_count > 1:
        count, names = image.channel_count, image.channels
    elif image.coloured:
        count, names = image.samples, COLOURS
    else:
        count, names = image.samples, image.channels
    given = [names[number] if number < len(names) else "" for number in range(count)]
    if image.opacity is not None and image.channel_count == 1:
        given[image.opacity] = "opacity"
    # A name that two have would be no name.
    return tuple(
        name if name and given.count(name) == 1 else (f"{name} {number}" if name else str(number))
        for number, name in enumerate(given)
    )


def choose_channels(image: StoredImage, channel: Channel, name: str) -> tuple[tuple[str, ...], list[Plane]]:
    """Names of all channels, and the planes that are seen: one in grey, two or three in red, green and blue.

    Args:
        image: with or without channels.
        channel: numbers, counted from 0, or names; one, several in a sequence, or several in a text with commas.
        name: what messages call the image.

    Raises:
        ValueError: there is no such channel, more than three are chosen, or none although one must be.
    """
    names = channel_names(image)
    listed = ", ".join(str(number) if label == str(number) else f"{number} ({label})"
                       for number, label in enumerate(names))  # fmt: skip
    several = image.channel_count > 1
    if channel is None:
        if several or len(image.visible) not in (1, MOST):
            raise ValueError(
                f"{name} has the channels {listed}; choose one with `channel`, by its number or name, or up to three "
                "that are seen as red, green and blue."
            )
        return names, [(0, sample) for sample in image.visible]
    numbers = [find(wanted, names, name, listed) for wanted in as_list(channel, names)]
    if not 1 <= len(numbers) <= MOST or (several and len(image.visible) > 1 and len(numbers) > 1):
        most = 1 if several and len(image.visible) > 1 else MOST
        raise ValueError(
            f"{name}: {len(numbers)} channels are chosen; at most {most} can be seen at once, of {listed}."
        )
    if several:
        return names, [(number, sample) for number in numbers for sample in image.visible[:MOST]]
    return names, [(0, number) for number in numbers]


def as_list(channel: int | str | Sequence[int | str], names: Sequence[str]) -> list[int | str]:
    """The channels that are wanted, each by itself."""
    if isinstance(channel, str):
        return [channel] if channel in names else [part.strip() for part in channel.split(",")]
    return list(channel) if isinstance(channel, Sequence) else [channel]


def find(wanted: int | str, names: Sequence[str], name: str, listed: str) -> int:
    """The number of a channel.

    Raises:
        ValueError: there is no such one.
    """
    if isinstance(wanted, str):
        folded = [label.casefold() for label in names]
        if wanted in names:
            return list(names).index(wanted)
        if folded.count(wanted.casefold()) == 1:
            return folded.index(wanted.casefold())
    if str(wanted).isdigit() and int(wanted) < len(names):
        return int(wanted)
    raise ValueError(f"{name} has no channel {wanted!r}; it has {listed}.")
