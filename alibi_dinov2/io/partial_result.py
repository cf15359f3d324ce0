# SPDX-License-Identifier: Apache-2.0
"""Results of large images while they are made, by one process or by many at once, that a kill or a full disk spares.

Until it is finished, a result lies in a folder `.<name>.partial` beside its final file: raw arrays, and for each slice
a list of the blocks whose bytes are on the disk, so that whoever was stopped goes on from there.

Processes share the work slice by slice: one claims a slice by locking a file in the folder. The system takes the lock
from a process that ends in whatever way, so that the slices of one that was killed are taken again at once. On several
machines the folder must lie on a file system that has locks, such as NFS.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from alibi_dinov2.io.files import new_folder, write_json

FACTS = "facts.json"


@dataclass(frozen=True)
class Layer:
    """An array that a result has of every slice, `(H, W)`, or `(C, H, W)` of several channels.

    Attributes:
        name: of its file.
        dtype: of its values, as NumPy calls it.
        channels: C, or 0 for an array without that axis.
    """

    name: str
    dtype: str
    channels: int = 0

    def shape(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """Of a slice of that height and width."""
        return (self.channels, *shape) if self.channels else shape


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Lock a file for as long as the context lasts, unless another process has; gives whether it is ours. The file and
    its folder are made if they are not there."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


class PartialResult:
    """What is there of a result that is not finished.

    Args:
        path: of the final file.
        slices: how many slices it has.
        shape: height and width of each.
        layers: what it has of each slice.
        identity: text that says all that the result depends on. What was begun with another one, or for other layers
            or another shape, is thrown away.

    Raises:
        ValueError: another process is making another result of that name.
        OSError: the folder cannot be written to, or the disk is full; the message says what to do.
    """

    def __init__(
        self, path: str | Path, slices: int, shape: tuple[int, int], layers: Sequence[Layer], identity: str
    ) -> None:
        self.path = Path(path)
        self.slices, self.shape, self.layers = slices, shape, {layer.name: layer for layer in layers}
        self.folder = self.path.with_name(f".{self.path.name}.partial")
        self.facts = {
            "identity": identity,
            "slices": slices,
            "shape": list(shape),
            "layers": [asdict(layer) for layer in layers],
        }
        with self.explaining(), self.changing():
            if not self.begun():
                self.start()

    def file(self, layer: Layer) -> Path:
        """Where a layer is."""
        return self.folder / f"{layer.name}.raw"

    def size(self, layer: Layer) -> int:
        """Bytes of a layer of one slice."""
        return int(np.prod(layer.shape(self.shape))) * np.dtype(layer.dtype).itemsize

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from beginning or finishing this result meanwhile."""
        path = self.path.with_name(f".{self.path.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            try:
                yield
            finally:
                # While it is locked: whoever waits for it finds it gone and makes it anew.
                with suppress(OSError):  # of Windows, where it is removed by the last process that comes
                    path.unlink()

    def begun(self) -> bool:
        """Whether this result was begun."""
        try:
            facts = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
            sizes = [self.file(layer).stat().st_size for layer in self.layers.values()]
        except (FileNotFoundError, ValueError):
            return False
        return facts == self.facts and sizes == [self.slices * self.size(layer) for layer in self.layers.values()]

    def start(self) -> None:
        """Begin afresh, with nothing done.

        Raises:
            ValueError: another process is at work in the folder.
        """
        for lock in self.folder.glob("*.lock"):
            with claimed(lock) as ours:
                if not ours:
                    raise ValueError(
                        f"Another process is making {self.path} from other files or settings; wait for it, or choose "
                        "another folder."
                    )
        shutil.rmtree(self.folder, ignore_errors=True)
        with new_folder(self.folder, replace=True) as temporary:
            for layer in self.layers.values():
                with open(temporary / f"{layer.name}.raw", "wb") as file:
                    file.truncate(self.slices * self.size(layer))
            write_json(temporary / FACTS, self.facts)

    @contextmanager
    def claim(self, index: int) -> Iterator[bool]:
        """Keep other processes from a slice for as long as the context lasts; gives whether it is ours.

        It never is once the result was finished.
        """
        with claimed(self.folder / f"{index}.lock") as ours:
            there = (self.folder / FACTS).is_file()
            yield ours and there
        if not there:  # finished meanwhile: the lock has made the folder anew
            with self.changing():
                if not (self.folder / FACTS).is_file():
                    shutil.rmtree(self.folder, ignore_errors=True)

    def journal(self, index: int) -> Path:
        """Where it stands which blocks of a slice are done."""
        return self.folder / f"{index}.json"

    def done(self, index: int) -> set[int]:
        """Numbers of the blocks of a slice whose bytes are on the disk."""
        try:
            return set(json.loads(self.journal(index).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return set()

    def write(self, index: int, number: int, rows: slice, columns: slice, parts: dict[str, np.ndarray]) -> None:
        """Keep a block of a slice that was claimed.

        Args:
            index: of the slice.
            number: of the block in it.
            rows, columns: where it lies.
            parts: of each layer, by name, `(h, w)` or `(C, h, w)` in its type.

        Raises:
            ValueError: a part is of another type or shape.
            OSError: as for the class.
        """
        for name, layer in self.layers.items():
            wanted = layer.shape((rows.stop - rows.start, columns.stop - columns.start))
            if parts[name].dtype != layer.dtype or parts[name].shape != wanted:
                raise ValueError(
                    f"{name} of {parts[name].dtype} and shape {parts[name].shape} do not fit {rows}, {columns}."
                )
        with self.explaining():
            for name, layer in self.layers.items():
                planes = parts[name].reshape(-1, *parts[name].shape[-2:])
                # Not through memory: a mapped file on a full disk ends the process.
                with open(self.file(layer), "r+b") as file:
                    for plane, values in enumerate(planes):
                        start = (
                            index * self.size(layer) // planes[0].dtype.itemsize + plane * self.shape[0] * self.shape[1]
                        )
                        for row, line in zip(range(rows.start, rows.stop), np.ascontiguousarray(values), strict=True):
                            file.seek((start + row * self.shape[1] + columns.start) * line.itemsize)
                            file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            write_json(self.journal(index), sorted(self.done(index) | {number}))

    def complete(self, blocks: int) -> bool:
        """Whether all slices have so many blocks that are done."""
        return all(len(self.done(index)) == blocks for index in range(self.slices))

    def mapped(self, name: str) -> np.ndarray:
        """A layer so far, `(slices, H, W)` or `(slices, C, H, W)`, read-only; 0 where nothing was written."""
        layer = self.layers[name]
        return np.memmap(self.file(layer), layer.dtype, "r", shape=(self.slices, *layer.shape(self.shape)))

    def remove(self) -> None:
        """Remove the folder, once the final file is there."""
        with suppress(FileNotFoundError):
            # First what says that it was begun: what is half removed counts for nothing.
            (self.folder / FACTS).unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

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
