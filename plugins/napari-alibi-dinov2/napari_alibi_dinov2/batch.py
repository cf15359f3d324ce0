# SPDX-License-Identifier: Apache-2.0
"""What was learned on one image, applied to others: to the images that are open, or to a folder of files."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import QObject, QProcess, Signal

from alibi_dinov2.io.sliced_image import SlicedImage
from napari_alibi_dinov2.workbench import CACHE_BYTES, Part, Workbench, segment
from napari_alibi_dinov2.worker import Steps

COUNTS = re.compile(r"images:.*?(\d+)/(\d+)")  # of the command's bar
KEPT = 2000  # characters of what the command says that an error shows at most


@dataclass(frozen=True)
class OpenPart:
    """A part of one of several images.

    Attributes:
        number: of the image.
        part: of it.
    """

    number: int
    part: Part


def segment_open_images(bench: Workbench, images: Sequence[SlicedImage], done: Sequence[set]) -> Steps:
    """Segment all slices of images by what a workbench has learned; gives `OpenPart`s.

    Args:
        bench: whose segmenter has learned.
        images: any.
        done: of each image, the blocks that need not be segmented again.

    Returns:
        What is wrong with images that could not be segmented; the others were.
    """
    from alibi_dinov2 import Session

    segmenter = bench.segmenter
    if segmenter is None:
        raise ValueError("Nothing was learned yet; draw strokes of two classes and press Train, or open a segmenter.")
    failures = []
    for number, (image, finished) in enumerate(zip(images, done, strict=True)):
        try:
            with Session(segmenter, image, cache_bytes=CACHE_BYTES) as session:
                for step in segment(session, range(session.image.slices), None, finished):
                    part = OpenPart(number, step.result) if step.result else None
                    yield step._replace(title=f"{image.name}: {step.title}", result=part)
        except ValueError as error:
            failures.append(f"{image.name}: {error}")
    return failures


class FolderRun(QObject):
    """The command `alibi-dinov2 predict` on a folder, in a process of its own: it can be stopped at any time, and the
    next call goes on from there.

    Signals:
        advanced: how many of how many images are done.
        ended: whether all went well, and what the command said.
    """

    advanced = Signal(int, int)
    ended = Signal(bool, str)

    def __init__(self) -> None:
        super().__init__()
        self.process: QProcess | None = None
        self.said = ""

    @property
    def busy(self) -> bool:
        """Whether the command is running."""
        return self.process is not None

    def start(self, segmenter: Path, images: Path, output: Path, options: Sequence[str]) -> None:
        """Run the command.

        Args:
            segmenter: a saved one.
            images, output: folders.
            options: of the command, such as `--uncertainty`.
        """
        self.said = ""
        process = QProcess(self)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.readyRead.connect(self.read)
        process.finished.connect(self.finish)
        process.errorOccurred.connect(lambda _: self.finish(1) if process.state() == PROCESS_ENDED else None)
        self.process = process
        arguments = ["-m", "alibi_dinov2.cli", "predict", "--segmenter", str(segmenter), "--images", str(images)]
        process.start(sys.executable, [*arguments, "--output", str(output), *options])

    def read(self) -> None:
        """Take what the command says."""
        text = bytes(self.process.readAll()).decode(errors="replace") if self.process else ""
        self.said = (self.said + text)[-KEPT:]
        if counts := COUNTS.findall(text):
            done, total = counts[-1]
            self.advanced.emit(int(done), int(total))

    def finish(self, status: int, *_: object) -> None:
        """The command has ended."""
        if self.process is not None:
            self.read()
            self.process = None
            lines = [line for line in re.split(r"[\r\n]", self.said) if line.strip() and not COUNTS.search(line)]
            self.ended.emit(status == 0, "\n".join(lines))

    def stop(self) -> None:
        """Stop the command, and wait for its end; what it has done stays."""
        process, self.process = self.process, None
        if process is not None:
            process.blockSignals(True)
            process.kill()
            process.waitForFinished()


PROCESS_ENDED = QProcess.ProcessState.NotRunning
