# SPDX-License-Identifier: Apache-2.0
"""Class maps of images of any size, written block by block, that a kill or a full disk does not spoil."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile, TiffWriter

from alibi_dinov2.io.files import new_file, write_json
from alibi_dinov2.io.tiles import blocks

TILE = 256  # side in pixels
MAX_CLASSIC_BYTES = 4 * 10**9  # of a TIFF with offsets of 32 bits, with room for what is not pixels
JOURNAL, CLASSES = "done.json", "classes.raw"


class TiledPrediction:
    """The class map of an image or a stack while it is made, and at the end its file.

    Until `finish`, classes and a list of what is done lie in a folder `.<name>.partial` beside the final file. A block
    is done once its bytes are on the disk, so whoever was stopped goes on from there. The final file is whole or not
    there.

    Args:
        path: of the final file, a TIFF.
        slices: how many maps.
        shape: height and width of each.
        identity: text that says all that the classes depend on. What was begun with another one, or for another shape,
            is thrown away.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """

    def __init__(self, path: str | Path, slices: int, shape: tuple[int, int], identity: str) -> None:
        self.path = Path(path)
        self.slices, self.shape = slices, shape
        self.folder = self.path.with_name(f".{self.path.name}.partial")
        self.facts = {"identity": identity, "slices": slices, "shape": list(shape)}
        with self.explaining():
            self.finished = self.begun()
            if not self.finished:
                self.start()

    def begun(self) -> set[tuple[int, int]]:
        """Slices and numbers of the blocks that an earlier run left behind."""
        try:
            journal = json.loads((self.folder / JOURNAL).read_text(encoding="utf-8"))
            size = (self.folder / CLASSES).stat().st_size
        except (FileNotFoundError, ValueError):
            return set()
        if journal["facts"] != self.facts or size != self.slices * self.shape[0] * self.shape[1]:
            return set()
        return {(index, number) for index, number in journal["done"]}

    def start(self) -> None:
        """Begin afresh, with nothing done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with open(self.folder / CLASSES, "wb") as file:
            file.truncate(self.slices * self.shape[0] * self.shape[1])

    def done(self, index: int, number: int) -> bool:
        """Whether a block of a slice is done."""
        return (index, number) in self.finished

    def write(self, index: int, number: int, rows: slice, columns: slice, classes: np.ndarray) -> None:
        """Keep the classes of a block.

        Args:
            index: of the slice.
            number: of the block in it.
            rows, columns: where it lies.
            classes: `(h, w)` uint8, 1 to 255.

        Raises:
            ValueError: the classes are of another type or shape.
            OSError: as for the class.
        """
        if classes.dtype != np.uint8 or classes.shape != (rows.stop - rows.start, columns.stop - columns.start):
            raise ValueError(f"Classes of {classes.dtype} and shape {classes.shape} do not fit {rows}, {columns}.")
        with self.explaining():
            # Not through memory: a mapped file on a full disk ends the process.
            with open(self.folder / CLASSES, "r+b") as file:
                for row, line in zip(range(rows.start, rows.stop), np.ascontiguousarray(classes), strict=True):
                    file.seek((index * self.shape[0] + row) * self.shape[1] + columns.start)
                    file.write(line)
                file.flush()
                os.fsync(file.fileno())
            finished = self.finished | {(index, number)}
            write_json(self.folder / JOURNAL, {"facts": self.facts, "done": sorted(finished)})
            self.finished = finished

    def mapped(self) -> np.ndarray:
        """The classes so far, `(slices, H, W)` uint8, read-only; 0 where nothing was written."""
        return np.memmap(self.folder / CLASSES, np.uint8, "r", shape=(self.slices, *self.shape))

    def counts(self) -> np.ndarray:
        """How many pixels of each slice have each value, `(slices, 256)` int64."""
        counts = np.zeros((self.slices, 256), dtype=np.int64)
        for page, of_page in zip(self.mapped(), counts, strict=True):
            for rows in range(0, self.shape[0], TILE):
                of_page += np.bincount(page[rows : rows + TILE].ravel(), minlength=256)
        return counts

    def finish(self, description: dict[str, Any], colours: np.ndarray) -> None:
        """Write the final file, a tiled and deflated palette TIFF, and remove the folder.

        Args:
            description: JSON values that are kept in the file; `read_description` gives them back.
            colours: of all values, `(256, 3)` uint8.

        Raises:
            ValueError: blocks are missing.
            OSError: as for the class.
        """
        missing = int(self.counts()[:, 0].sum())
        if missing:
            raise ValueError(f"{self.path} lacks {missing} pixels; write all blocks before it is finished.")
        bigtiff = self.slices * self.shape[0] * self.shape[1] > MAX_CLASSIC_BYTES
        with self.explaining(), new_file(self.path) as temporary, TiffWriter(temporary, bigtiff=bigtiff) as writer:
            writer.write(
                self.tiles(),
                shape=(self.slices, *self.shape) if self.slices > 1 else self.shape,
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="palette",
                colormap=colours.T.astype(np.uint16) * 257,
                description=json.dumps(description, allow_nan=False),
                metadata=None,
                software=False,
            )
        shutil.rmtree(self.folder, ignore_errors=True)

    def tiles(self) -> Iterator[np.ndarray]:
        """All tiles of the final file in its order, `(TILE, TILE)` uint8; those at the border are padded with 0."""
        for page in self.mapped():
            for block in blocks(self.shape, TILE):
                tile = np.zeros((TILE, TILE), dtype=np.uint8)
                part = page[block]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Say in an `OSError` what to do."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({error}). Make room on the disk, and allow writing there, and run the "
                f"same again: it goes on from what is in {self.folder}."
            ) from error


def read_description(path: str | Path) -> dict[str, Any] | None:
    """The description of a file that `TiledPrediction` wrote, or nothing if it is another file or not there."""
    try:
        with TiffFile(path) as file:
            description = json.loads(file.pages.first.description)
    except (FileNotFoundError, LookupError, TypeError, ValueError):
        return None
    return description if isinstance(description, dict) else None
