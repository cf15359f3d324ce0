# SPDX-License-Identifier: Apache-2.0
"""How much sooner two processes have segmented a folder than one, and that killing one of them loses nothing.

    python -m benchmarks.processes --output processes.json

Synthetic images of two materials are segmented as a user does it, by `alibi-dinov2 predict` with the shipped model and
a segmenter that was fitted to another image: by one process, by two that were started by hand, and by two of
`accelerate launch`, each process with one thread. Each run has a cache and a folder for results of its own, so that no
feature and no result is there already. Every round starts with another way; the files of all runs must be the same
bytes.

* `seconds`: of the command, imports and loading included.
* `startup`: of the same command given once more, when there is nothing left to do. The second ratio is without it.

A record that is there already is continued: its rounds and those of this call are taken together.

    python -m benchmarks.processes --kill

kills one of two processes when half of the images are done: the other one of those started by hand has to finish alone,
and after Accelerate, which ends the other one as well, a third process has to. Files that were done before are not
written again, and all files are the same bytes as those of one process.
"""

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.io.files import write_json
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from benchmarks.measuring import machine_facts
from benchmarks.segmentation import materials
from evaluation.segmentation.scribbles import add_strokes

MODEL = Path("model_cards/alibi-dinov2-small")
SHAPE = (896, 1008)
STROKES = 5  # of 25 pixels for each material
WAYS = {"one": 1, "two by hand": 2, "two by accelerate": 2}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
POLL = 0.05  # seconds


class Folder:
    """Images and a segmenter in a folder, and commands that segment them into others.

    Args:
        path: an empty folder.
        model: folder of the backbone.
        count: of images.
        shape: of each, height and width in pixels.
    """

    def __init__(self, path: Path, model: Path, count: int, shape: tuple[int, int]) -> None:
        self.path, self.model, self.count = path, model, count
        (path / "images").mkdir()
        for number in range(count):
            image, _ = materials(max(shape), seed=number + 1)
            tifffile.imwrite(path / "images" / f"{number:02}.tif", image[: shape[0], : shape[1]])
        image, rough = materials(max(shape))
        strokes, random = np.zeros(rough.shape, dtype=np.uint8), np.random.default_rng(0)
        for _ in range(STROKES):
            strokes = add_strokes(strokes, rough, random)
        TrainableSegmenter(load_backbone(model)).fit(image, strokes).save(path / "segmenter")

    def start(self, way: str, output: Path) -> list[subprocess.Popen[bytes]]:
        """Start what segments all images: one command, or two of the same."""
        predict: list[str | Path] = ["alibi_dinov2.cli", "predict", "--segmenter", self.path / "segmenter"]
        predict += [
            "--model",
            self.model,
            "--images",
            self.path / "images",
            "--output",
            output,
            "--cache",
            output.with_suffix(".cache"),
        ]
        command: list[str | Path] = [sys.executable, "-m", *predict]
        environment, count = os.environ | ONE_THREAD, WAYS[way]
        if "accelerate" in way:
            launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count), "-m"]
            command, count = [sys.executable, "-m", *launch, *predict], 1
            environment |= {"ACCELERATE_USE_CPU": "true"}
        with open(output.with_suffix(".log"), "ab") as log:
            return [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(count)]

    def seconds(self, way: str, output: Path) -> float:
        """How long a way takes until all its processes have ended."""
        start = time.perf_counter()
        running = self.start(way, output)
        statuses = [process.wait() for process in running]
        if any(statuses):
            raise RuntimeError(f"{way} ended with {statuses}: {output.with_suffix('.log').read_text()[-2000:]}")
        return time.perf_counter() - start

    def round(self, number: int) -> dict[str, Any]:
        """All ways in turn, starting with another one each time; the files of all must be the same bytes."""
        ways = list(WAYS)
        seconds, startup, found = {}, {}, {}
        for way in tqdm(ways[number % len(ways) :] + ways[: number % len(ways)], "ways", leave=False):
            output = self.path / f"{number} {way}"
            seconds[way], startup[way] = self.seconds(way, output), self.seconds(way, output)
            found[way] = checksums(output)
        if any(files != found["one"] for files in found.values()):
            raise RuntimeError(f"the files of some ways differ: {differing(found)}")
        return {"seconds": seconds, "startup": startup, "files": len(found["one"])}

    def killed(self, way: str) -> dict[str, Any]:
        """Kill one of two processes when half of the images are done; what is there when the rest is done."""
        whole, output = self.path / "whole", self.path / f"killed {way}"
        if not whole.exists():
            self.seconds("one", whole)
        running = self.start(way, output)
        while len(done := finished(output)) < self.count // 2:
            if all(process.poll() is not None for process in running):
                raise RuntimeError(f"{way} ended too soon: {output.with_suffix('.log').read_text()[-2000:]}")
            time.sleep(POLL)
        victim = running[0].pid if len(running) > 1 else youngest(running[0].pid)
        os.kill(victim, signal.SIGKILL)
        statuses = [process.wait() for process in running]
        # Of those that were started by hand the other one has gone on; the table has its rows alone.
        alone = len(finished(output))
        self.seconds("one", output)
        missing = differing({"whole": checksums(whole), "killed": checksums(output)})
        again = [path.name for path, written in done.items() if path.stat().st_mtime_ns != written]
        if missing or again:
            raise RuntimeError(f"{way}: files that differ {missing}, files that were written again {again}")
        return {
            "statuses": statuses,
            "images done when one was killed": len(done),
            "images done by those that were left": alone,
            "files that differ from those of one process": len(missing),
            "files done before that were written again": len(again),
            "hidden, half-written files left behind": sum(1 for path in output.iterdir() if path.name.startswith(".")),
        }


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files in a folder by name, without hidden ones, which a killed process had half written."""
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def differing(found: dict[str, dict[str, str]]) -> list[str]:
    """Names of files that not all have, or not with the same bytes."""
    names = sorted({name for files in found.values() for name in files})
    return [name for name in names if len({files.get(name) for files in found.values()}) > 1]


def finished(output: Path) -> dict[Path, int]:
    """The class maps in a folder, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in sorted(output.glob("[0-9][0-9].tif"))} if output.exists() else {}


def youngest(ancestor: int) -> int:
    """The process that was started last of those that another one and its children have started."""
    parents, started = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        number = int(status.parent.name)
        parents[number], started[number] = int(fields[1]), int(fields[19])
    family = {ancestor}
    while more := {number for number, parent in parents.items() if parent in family} - family:
        family |= more
    return max(family - {ancestor}, key=lambda number: (started[number], number))


def summary(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median seconds of each way and of its start-up, and how many times as fast as one process it is."""

    def median(way: str, *kinds: str) -> float:
        return statistics.median(one[kinds[0]][way] - sum(one[kind][way] for kind in kinds[1:]) for one in rounds)

    return {
        way: {
            "seconds": median(way, "seconds"),
            "startup": median(way, "startup"),
            "ratio": median("one", "seconds") / median(way, "seconds"),
            "ratio without startup": median("one", "seconds", "startup") / median(way, "seconds", "startup"),
        }
        for way in WAYS
    }


def table(ways: dict[str, dict[str, float]]) -> str:
    """The summary as Markdown."""
    lines = ["| processes | s | of which start-up | times as fast | without start-up |", "|---|---:|---:|---:|---:|"]
    for way, row in ways.items():
        cells = [f"{row['seconds']:.1f}", f"{row['startup']:.1f}"]
        cells += [f"{row[name]:.2f}" for name in ("ratio", "ratio without startup")]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the backbone")
    parser.add_argument("--images", type=int, default=10, help="how many")
    parser.add_argument("--shape", type=int, nargs=2, default=SHAPE, help="of each, height and width in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="how often every way is timed")
    parser.add_argument("--kill", action="store_true", help="kill one of two instead of timing")
    parser.add_argument("--output", type=Path, help="JSON file; one that is there is continued")
    options = parser.parse_args()
    settings = {"images": options.images, "shape": list(options.shape), "model": options.model.name}
    record: dict[str, Any] = {"machine": machine_facts() | {"threads": 1}, "settings": settings, "rounds": []}
    if options.output and options.output.exists():
        record = json.loads(options.output.read_text())
        if record["settings"] != settings:
            parser.error(
                f"{options.output} is of {record['settings']}, and this call of {settings}; choose another file"
            )
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(Path(path), options.model.resolve(), options.images, tuple(options.shape))
        if options.kill:
            record["killed"] = {way: folder.killed(way) for way in tqdm(WAYS, "ways") if WAYS[way] > 1}
            print(json.dumps(record["killed"], indent=2))
        else:
            before = len(record["rounds"])
            for number in tqdm(range(options.rounds), "rounds"):
                record["rounds"].append(folder.round(before + number))
            record["ways"] = summary(record["rounds"])
            print(table(record["ways"]))
    if options.output:
        write_json(options.output, record)


if __name__ == "__main__":
    main()
