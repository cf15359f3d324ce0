# SPDX-License-Identifier: Apache-2.0
"""A run's list of its images, by which a resumed run knows that they are still the same."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

HEAD = (
    4096  # bytes of a file that its fingerprint is made of, with its length: a list of a million images takes seconds
)
SHOWN = 3
BATCH = 64


def list_images(images: Dataset) -> list[str]:
    """A line per image: its path, if it has one, its bytes and a fingerprint of its beginning."""
    batches = images.with_format("arrow").iter(batch_size=BATCH)
    return [describe(image) for batch in batches for chunk in batch["image"].chunks for image in chunk]


def describe(image: pa.StructScalar) -> str:
    """The line of one undecoded image; its bytes are not copied."""
    if not image.is_valid:
        return "no image"
    path = image["path"].as_py() or ""
    if image["bytes"].is_valid:
        buffer = image["bytes"].as_buffer()
        size, head = buffer.size, bytes(buffer[:HEAD])
    elif Path(path).is_file():
        with open(path, "rb") as file:
            head, size = file.read(HEAD), Path(path).stat().st_size
    else:
        return f"{path} elsewhere".strip()
    return f"{path} {size} bytes {hashlib.blake2b(head, digest_size=8).hexdigest()}".strip()


def require_same_images(saved: Mapping[str, list[str]], found: Mapping[str, list[str]]) -> None:
    """Raise a `ValueError` that says which images were added, removed or changed since a run began.

    Args:
        saved, found: lines of `list_images` by where the images come from; what only one of them has is not compared.
    """
    differing = [source for source in saved if source in found and saved[source] != found[source]]
    if not differing:
        return
    # Over all sources: an image that is now trained on and was validated on is neither new nor gone.
    before, now = ({line for source in saved if source in found for line in of[source]} for of in (saved, found))
    changes = [
        f"{len(lines)} {what} ({'; '.join(lines[:SHOWN])}{'; …' if len(lines) > SHOWN else ''})"
        for what, lines in (("new", sorted(now - before)), ("gone", sorted(before - now)))
        if lines
    ]
    raise ValueError(
        f"The images of {' and '.join(differing)} are not those that the run began with: "
        f"{', '.join(changes) or 'another order'}. Which of them are kept for validation, and which crop comes when, "
        "depends on all of them. Put the old ones back to resume, or start a new run in another folder."
    )
