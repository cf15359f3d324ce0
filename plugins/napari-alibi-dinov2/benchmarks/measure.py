# SPDX-License-Identifier: Apache-2.0
"""What a user waits for: from sample to mask, from stroke to mask, a stack; in a real window, with the shipped model.

    xvfb-run -a -s "-screen 0 1600x1200x24" python plugins/napari-alibi-dinov2/benchmarks/measure.py --output FILE

* `sample`: seconds from File > Open Sample to the first mask, strokes drawn by a program, nothing cached; PyTorch and
  the model are loaded in that time.
* `live`: from the end of a stroke to the new mask of all that is seen, the sample's 0.9 megapixels; strokes alternate
  between classes.
* `stack`: 20 slices of 1024 × 1024 from strokes on two of them: all features and classes, cancelled once in the middle
  and gone on with; peak memory of the whole process with its window, of which so much is there before the image is.
"""

import json
import os
import statistics
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HOME"] = tempfile.mkdtemp()  # nothing was computed before
os.environ["XDG_CONFIG_HOME"] = os.environ["HF_HOME"]

import napari
import numpy as np
from napari_alibi_dinov2.widget import SegmentWidget
from qtpy.QtWidgets import QApplication
from scipy.ndimage import gaussian_filter

from benchmarks.measuring import memory_status

SLICES, SIDE = 20, 1024
STROKES = 15
WAIT = 1200  # seconds


def until(reached: Callable[[], object]) -> float:
    """Let the window work until something is reached; the seconds that took."""
    start = time.perf_counter()
    while not reached():
        QApplication.processEvents()
        time.sleep(0.005)
        if time.perf_counter() - start > WAIT:
            raise TimeoutError(f"nothing was reached within {WAIT} s")
    return time.perf_counter() - start


def settled(panel: SegmentWidget) -> bool:
    """Whether a panel has nothing to do."""
    return not panel.jobs.busy and not panel.timer.isActive()


def stroke(panel: SegmentWidget, index: int, row: int, column: int, number: int) -> None:
    """Draw a stroke as a mouse does: 60 pixels long, with the panel's brush."""
    layer = panel.strokes
    layer.selected_label = number
    leading = [index] if layer.data.ndim == 3 else []
    with layer.block_history():
        for step in range(0, 60, 4):
            layer.paint([*leading, row, column + step], number)


def classes_of(panel: SegmentWidget, image: object):
    """The layer of classes of an image, if there is one."""
    return panel.results_of(image).classes


def measure_sample(viewer: napari.Viewer) -> tuple[SegmentWidget, dict[str, float]]:
    """From the sample to the mask."""
    start = time.perf_counter()
    (image,) = viewer.open_sample("napari-alibi-dinov2", "nickel")
    _, panel = viewer.window.add_plugin_dock_widget("napari-alibi-dinov2", "Segment from strokes")
    panel.draw()
    drawn = time.perf_counter()
    stroke(panel, 0, 200, 100, 1)
    stroke(panel, 0, 600, 700, 2)
    until(lambda: classes_of(panel, image))
    first = time.perf_counter()
    until(lambda: settled(panel))
    return panel, {
        "window_ready": drawn - start,
        "first_mask": first - start,
        "whole_mask": time.perf_counter() - start,
    }


def measure_live(panel: SegmentWidget, max_pixels: int | None) -> dict[str, object]:
    """From strokes to masks, on what the window shows of the sample; with so many labelled pixels at most."""
    if max_pixels:
        panel.advanced.form["max_pixels"].value = max_pixels
        panel.train()
        until(lambda: settled(panel))
    panel.viewer.reset_view()  # all of the sample is seen, beside the panels
    seconds = []
    for number in range(STROKES):
        before = panel.stroke_count
        stroke(panel, 0, 60 + 50 * number, 300, 1 + number % 2)
        start = time.perf_counter()
        until(lambda before=before: panel.stroke_count > before)
        seconds.append(time.perf_counter() - start)
        until(lambda: settled(panel))
    rows, columns = panel.focus()
    pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
    return {
        "pixels": pixels,
        "max_pixels": panel.advanced.settings.max_pixels,
        "median": statistics.median(seconds),
        "all": seconds,
    }


def materials() -> np.ndarray:
    """A stack with smooth and rough regions, uint8."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((SLICES, SIDE, SIDE), dtype=np.float32)
    rough = gaussian_filter(random.standard_normal((SLICES, SIDE, SIDE), dtype=np.float32), (2, 24, 24)) > 0
    image = 128 + np.where(rough, 40 * noise, 40 * gaussian_filter(noise, (0, 3, 3)))
    return image.clip(0, 255).astype(np.uint8)


def measure_stack(panel: SegmentWidget) -> dict[str, float]:
    """A stack from strokes on two slices, cancelled in the middle."""
    viewer = panel.viewer
    viewer.layers.clear()
    until(lambda: settled(panel))
    idle = memory_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    image = viewer.add_image(materials(), name="stack")
    panel.images.image_box.value = image
    panel.controls.live.setChecked(False)
    panel.draw()
    until(lambda: settled(panel))
    for index in (3, 15):
        for number in (1, 2):
            stroke(panel, index, 200 + 300 * number, 100, number)
    start = time.perf_counter()
    panel.train()
    until(lambda: settled(panel))
    learned = time.perf_counter() - start
    panel.controls.target.setCurrentText("all slices")
    start = time.perf_counter()
    panel.controls.segment.click()
    done = lambda: sum(bool(page.any()) for page in classes_of(panel, image).data)  # noqa: E731
    until(lambda: done() >= SLICES // 2)
    cancelled = time.perf_counter()
    panel.controls.cancel.click()
    stopping = until(lambda: settled(panel))
    kept = len(panel.bench.done)
    panel.controls.segment.click()
    until(lambda: settled(panel) and done() == SLICES)
    total = time.perf_counter() - start
    return {
        "learning": learned,
        "all_slices": total,
        "cancelled_after": cancelled - start,
        "stopping": stopping,
        "blocks_kept": kept,
        "blocks": len(panel.bench.done),
        "idle_bytes": idle,
        "peak_bytes": memory_status("VmHWM"),
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--only", choices=["live", "stack"])
    parser.add_argument("--max-pixels", type=int, help="labelled pixels that are learned from, of `live`")
    options = parser.parse_args()
    viewer = napari.Viewer()
    panel, found = measure_sample(viewer)
    rows: dict[str, object] = {"sample": found}
    print(json.dumps(rows))
    if options.only != "stack":
        rows["live"] = measure_live(panel, options.max_pixels)
        print(json.dumps(rows["live"]))
    if options.only != "live":
        rows["stack"] = measure_stack(panel)
        print(json.dumps(rows["stack"]))
    viewer.close()
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
