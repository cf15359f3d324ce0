# SPDX-License-Identifier: Apache-2.0
"""From image files to class maps and what is made of them, by one process or by several that share the work.

Every process is given the same images and the same folder for results. Each takes the slices that nobody else is at,
and ends when all images are done. A process may be stopped or killed at any time: those that are left take its slices,
and whoever runs the same again goes on. The results do not depend on how many processes there were.
"""

import csv
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from alibi_dinov2.io.files import new_file, sha256_of
from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.open_image import ImageFile, open_image
from alibi_dinov2.io.pairing import normal, result_names
from alibi_dinov2.io.partial_result import Layer, PartialResult
from alibi_dinov2.io.tiled_tiff import Layout, read_description, read_page, write_result
from alibi_dinov2.pictures.colours import class_colours
from alibi_dinov2.pictures.overlays import overlay
from alibi_dinov2.segmentation.instances import instances, measure
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from alibi_dinov2.segmentation.uncertainty import uncertainty, where_to_draw

POLL = 0.5  # seconds after which a process that has nothing to do looks whether others have finished or were killed
DTYPES = ("uint8", "float32")  # of probabilities: 0 to 255, or 0 to 1
UNMARKED = (".png", ".instances.csv", ".uncertainty.csv")
SUFFIXES = (".tif", ".probabilities.tif", ".uncertainty.tif", ".instances.tif", *UNMARKED)  # of all results of an image
PLACE_COLUMNS = ("slice", "row", "column", "uncertainty")


@dataclass(frozen=True)
class Outputs:
    """What is written for each image beside its class map.

    Attributes:
        overlay: the classes drawn over the middle slice, `.png`.
        probabilities: `uint8` or `float32` for a TIFF of the probabilities of all classes, `.probabilities.tif`.
        uncertainty: whether to write 1 − margin as a uint8 TIFF, 255 for 1, and a table of where to draw next,
            `.uncertainty.tif` and `.uncertainty.csv`.
        instances: whether to write labels of connected regions and a table of them, `.instances.tif` and
            `.instances.csv`.
        of_classes: classes whose regions are wanted; all if none is given.
        min_size, fill_holes: of regions, see `instances`.

    Raises:
        ValueError: a value is out of range.
    """

    overlay: bool = True
    probabilities: str | None = None
    uncertainty: bool = False
    instances: bool = False
    of_classes: tuple[int, ...] = ()
    min_size: int = 1
    fill_holes: bool = False

    def __post_init__(self) -> None:
        if self.probabilities not in (None, *DTYPES):
            raise ValueError(f"probabilities are {self.probabilities!r}; they can be {', '.join(DTYPES)} or None.")
        if self.min_size < 1:
            raise ValueError(f"min_size is {self.min_size}; it must be 1 pixel or more.")

    def layers(self, classes: int) -> list[Layer]:
        """What has to be kept of each pixel while it is computed."""
        found = [Layer("classes", "uint8")]
        if self.probabilities:
            found.append(Layer("probabilities", self.probabilities, classes))
        if self.uncertainty:
            found.append(Layer("uncertainty", "uint8"))
        return found


@dataclass(frozen=True)
class Job:
    """An image whose class map is wanted.

    Attributes:
        segmenter: fitted; saved or loaded, so that it has an identity.
        name: of the image, which may have folders in it; the table calls it so.
        path: of the image.
        result: path of the class map; the other files are named after it.
        outputs: what is written beside it.
    """

    segmenter: TrainableSegmenter
    name: Path
    path: Path
    result: Path
    outputs: Outputs

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that the classes depend on."""
        facts = [self.segmenter.identity_, sha256_of(self.path), self.segmenter.features_.block_size]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def opened(self) -> ImageFile:
        """The image, seen as the segmenter has seen those that it learned from."""
        segmenter = self.segmenter
        return open_image(self.path, contrast=segmenter.contrast_, channel=segmenter.channel, series=segmenter.series)

    @property
    def names(self) -> list[str]:
        """Names of the classes, their numbers if they have none."""
        numbers, names = self.segmenter.classes_.tolist(), self.segmenter.class_names
        return list(names) if names else [f"class {number}" for number in numbers]

    @property
    def facts(self) -> dict[str, Any]:
        """What every TIFF of this job says of itself."""
        return {
            "identity": self.identity,
            "image": self.name.as_posix(),
            "classes": self.segmenter.classes_.tolist(),
            "class_names": self.names,
        }

    def beside(self, suffix: str) -> Path:
        """The path of another result."""
        return self.result.with_suffix(suffix)

    def description(self) -> dict[str, Any] | None:
        """That of the class map, if it and all that is computed with it are there and of this identity.

        Raises:
            ValueError: another file has the name of a result.
        """
        wanted = [self.result]
        wanted += [self.beside(".probabilities.tif")] if self.outputs.probabilities else []
        wanted += [self.beside(".uncertainty.tif")] if self.outputs.uncertainty else []
        found = [read_description(path) for path in wanted]
        for path, description in zip(wanted, found, strict=True):
            if path.exists() and "identity" not in (description or {}):
                raise ValueError(
                    f"{path} is there and is no result of this command; move it, or choose another folder."
                )
        # These bear no sign of whose they are, but come after the class map, which we never remove: look first at them.
        for path in [path for path in map(self.beside, UNMARKED) if path.exists()]:
            if not self.result.exists():
                raise ValueError(
                    f"{path} is there and is no result of this command; move it, or choose another folder."
                )
        if any(description is None or description["identity"] != self.identity for description in found):
            return None
        kind = found[1].get("dtype") if self.outputs.probabilities and found[1] else None
        return found[0] if kind == self.outputs.probabilities else None

    def run(self) -> dict[str, Any] | None:
        """Do what nobody else is doing; the description of the class map, or nothing as long as others are at it.

        Raises:
            ValueError: the image cannot be segmented, or another file has the name of a result.
            OSError: a result cannot be written.
        """
        description = self.description()
        if description is None:
            with self.opened() as image:
                description = self.classify(image)
        if description is not None:
            self.complete(description)
        return description

    def classify(self, image: ImageRegions) -> dict[str, Any] | None:
        """Write the class map and what is computed with it, if no other process is at one of its slices."""
        segmenter, blocks = self.segmenter, self.segmenter.features_.blocks(image.shape)
        layers = self.outputs.layers(len(segmenter.classes_))
        partial = PartialResult(self.result, image.slices, image.shape, layers, self.identity)
        total = image.slices * len(blocks)
        with tqdm(total=total, desc=self.path.name, unit="block", leave=False, disable=total == 1) as bar:
            for index in range(image.slices):
                done = partial.done(index)
                bar.update(len(done))
                if len(done) == len(blocks):
                    continue
                with partial.claim(index) as ours:
                    if not ours:
                        continue
                    done = partial.done(index)  # what others did before it was ours
                    for number, block, part in segmenter.predict_blocks(image, index, done.__contains__):
                        partial.write(index, number, *block, self.parts(part))
                        bar.update()
        with partial.changing():
            # Another process may have been faster, or be at it still.
            if not partial.begun() or not partial.complete(len(blocks)):
                return self.description()
            return self.finish(partial, Layout.of(image))

    def parts(self, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """What is kept of a block: from probabilities `(h, w, K)` float32."""
        planes = np.moveaxis(probabilities, -1, 0)
        return {
            "classes": self.segmenter.classes_[probabilities.argmax(axis=-1)],
            "probabilities": as_bytes(planes) if self.outputs.probabilities == "uint8" else planes,
            "uncertainty": as_bytes(uncertainty(probabilities)),
        }

    def finish(self, partial: PartialResult, layout: Layout) -> dict[str, Any]:
        """Write the final files, the class map last: it says that all is there."""
        classes = partial.mapped("classes")
        description = self.facts | {"pixels": class_counts(classes, self.segmenter.classes_)}
        description |= {"pixel_size": layout.pixel_size}
        with partial.explaining():
            # What was made of an older class map is not this one's.
            for suffix in (*UNMARKED, ".instances.tif"):
                self.beside(suffix).unlink(missing_ok=True)
            if self.outputs.probabilities:
                facts = self.facts | {"dtype": self.outputs.probabilities}
                path = self.beside(".probabilities.tif")
                write_result(path, partial.mapped("probabilities"), layout, facts, channels=self.names)
            if self.outputs.uncertainty:
                write_result(self.beside(".uncertainty.tif"), partial.mapped("uncertainty"), layout, self.facts)
            write_result(self.result, classes, layout, description, class_colours())
        partial.remove()
        return description

    def complete(self, description: dict[str, Any]) -> None:
        """Make what is wanted of the finished class map and is not there."""
        picture, places, table = (self.beside(suffix) for suffix in (".png", ".uncertainty.csv", ".instances.csv"))
        slices = len(description["pixels"])
        if self.outputs.overlay and not picture.exists():
            middle = slices // 2
            with self.opened() as image, new_file(picture) as temporary:
                classes = read_page(self.result, middle)
                drawn = overlay(image, classes, middle, description["classes"], description["class_names"])
                drawn.save(temporary, format="PNG")
        if self.outputs.uncertainty and not places.exists():
            write_csv(places, PLACE_COLUMNS, self.places(slices))
        settings = [list(self.outputs.of_classes), self.outputs.min_size, self.outputs.fill_holes]
        if self.outputs.instances and not (table.exists() and self.instance_settings() == settings):
            self.write_instances(description, slices, settings)

    def places(self, slices: int) -> Iterator[tuple[int, int, int, str]]:
        """Where to draw next, a few places in each slice."""
        for index in range(slices):
            uncertain = read_page(self.beside(".uncertainty.tif"), index) / np.float32(255)
            for place in where_to_draw(uncertain):
                yield index, place.row, place.column, f"{place.uncertainty:.4f}"

    def instance_settings(self) -> list[Any] | None:
        """Those of the instances that are there, if they are of this identity."""
        found = read_description(self.beside(".instances.tif"))
        return found["settings"] if found and found.get("identity") == self.identity else None

    def write_instances(self, description: dict[str, Any], slices: int, settings: list[Any]) -> None:
        """Write labels of connected regions, and their table."""
        numbers = self.outputs.of_classes or description["classes"]
        unknown = sorted(set(numbers) - set(description["classes"]))
        if unknown:
            raise ValueError(f"{self.result} has no class {unknown}; it has {description['classes']}.")
        names = dict(zip(description["classes"], description["class_names"], strict=True))
        rows: list[tuple[Any, ...]] = []
        with self.opened() as image, TemporaryFile(dir=self.result.parent) as raw:
            layout, shape = Layout.of(image), (slices, *image.shape)
            for index in range(slices):
                labels, owners = instances(
                    read_page(self.result, index), numbers, self.outputs.min_size, self.outputs.fill_holes
                )
                raw.write(labels.tobytes())
                table = measure(labels, owners, names, layout.pixel_size)
                rows += [(index, *row) for row in zip(*table.values(), strict=True)]
            raw.flush()
            pages = np.memmap(raw, labels.dtype, "r", shape=shape)
            write_result(self.beside(".instances.tif"), pages, layout, self.facts | {"settings": settings})
        write_csv(self.beside(".instances.csv"), ("slice", *table), rows)


def as_bytes(shares: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1 as uint8 from 0 to 255, rounded."""
    return (shares.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def class_counts(pages: np.ndarray, classes: np.ndarray) -> list[list[int]]:
    """How many pixels of each slice `(slices, H, W)` uint8 have each class; counted by bands, to take little memory."""
    counts = np.zeros((len(pages), 256), dtype=np.int64)
    for page, of_page in zip(pages, counts, strict=True):
        for top in range(0, len(page), 256):
            of_page += np.bincount(page[top : top + 256].ravel(), minlength=256)
    return counts[:, classes].tolist()


def write_csv(path: Path, columns: Sequence[str], rows: Any) -> None:
    """Write a table, whole or not at all."""
    with new_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def result_paths(names: Iterable[Path], output: Path) -> dict[Path, Path]:
    """Paths of class maps by the names of images: as `result_names` has them, but never the path of another image.

    Args:
        names: of the images.
        output: folder for results, which may hold some already.

    Raises:
        ValueError: results of two images would have one name.
    """
    found: dict[Path, Path] = {}
    for name, short in result_names(names).items():
        owner = (read_description(output / short) or {}).get("image", name.as_posix())
        found[name] = output / (short if normal(owner) == normal(name) else name.with_name(name.name + ".tif"))
    owners: dict[str, Path] = {}
    for name, result in found.items():
        for suffix in SUFFIXES:
            other = owners.setdefault(normal(result.with_suffix(suffix)).casefold(), name)
            if other != name:
                both = result.with_suffix(suffix).name
                raise ValueError(f"{other} and {name} would both have a result {both}; rename one of them.")
    return found


def predict_files(
    segmenter: TrainableSegmenter, paths: Mapping[Path, Path], results: Mapping[Path, Path], outputs: Outputs
) -> Iterator[tuple[Path, dict[str, Any] | ValueError | FileNotFoundError]]:
    """Segment image files; the name of each and the description of its class map, or why there is none.

    They come in the order in which they are finished, by this process or by another one.

    Args:
        segmenter: saved or loaded.
        paths: images by name.
        results: paths of class maps by name.
        outputs: what is written beside them.

    Raises:
        OSError: a result cannot be written, or the disk is full.
    """
    waiting = [Job(segmenter, name, path, results[name], outputs) for name, path in paths.items()]
    with tqdm(total=len(waiting), desc="images", unit="img") as bar:
        while waiting:
            left = []
            for job in waiting:
                try:
                    found: Any = job.run()
                except (ValueError, FileNotFoundError) as error:
                    found = error
                if found is None:
                    left.append(job)
                else:
                    bar.update()
                    yield job.name, found
            if len(left) == len(waiting):
                time.sleep(POLL)
            waiting = left
