# SPDX-License-Identifier: Apache-2.0
"""The real window, the real mouse and the shipped model: sample, two strokes, mask.

With SCREENSHOTS set to a folder, pictures of the window are left there.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from drawing import settle
from napari_alibi_dinov2.settings import remember_model
from napari_alibi_dinov2.widget import SegmentWidget
from PIL import Image
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import QApplication, QWidget

REPOSITORY = Path(__file__).parents[3]
SHIPPED = REPOSITORY / "model_cards" / "alibi-dinov2-small"
WAIT = 240_000  # milliseconds: the shipped model on a busy machine
SIZE = 1500, 1050
NICKEL = [(475, 580), (472, 610), (470, 640)]  # rows and columns of a stroke on it, in the sample
SUBSTRATE = [(130, 260), (120, 300), (110, 340)]

pytestmark = [
    pytest.mark.skipif(shutil.which("xdotool") is None, reason="xdotool is not installed: no mouse to move"),
    pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="there is no X server: run under xvfb-run"),
    pytest.mark.skipif(not (SHIPPED / "model.safetensors").is_file(), reason="this is no clone with the model"),
]


class Mouse:
    """The pointer of the X server; counts what it does."""

    def __init__(self, qtbot) -> None:
        self.qtbot, self.clicks, self.strokes = qtbot, 0, 0

    def do(self, *words: object) -> None:
        """Run xdotool, and let the window answer."""
        process = subprocess.Popen(["xdotool", *map(str, words)])
        self.qtbot.waitUntil(lambda: process.poll() is not None, timeout=WAIT)
        assert process.returncode == 0
        self.qtbot.wait(150)

    def move(self, place: QPoint) -> None:
        self.do("mousemove", place.x(), place.y())

    def click(self, place: QPoint) -> None:
        self.move(place)
        self.do("click", 1)
        self.clicks += 1

    def stroke(self, places: list[QPoint]) -> None:
        """Draw along some places with the button held down."""
        self.move(places[0])
        self.do("mousedown", 1)
        for place in places[1:]:
            self.move(place)
        self.do("mouseup", 1)
        self.strokes += 1

    def choose(self, window: QWidget, *titles: str) -> None:
        """Click on a menu, move along its submenus, and click on the last title."""
        bar = window.menuBar()
        action = named(bar.actions(), titles[0])
        self.click(bar.mapToGlobal(bar.actionGeometry(action).center()))
        menu = action.menu()
        for title in titles[1:]:
            self.qtbot.waitUntil(menu.isVisible, timeout=WAIT)
            entry = named(menu.actions(), title)
            place = menu.mapToGlobal(menu.actionGeometry(entry).center())
            if entry.menu() is None:
                self.click(place)
            else:
                self.move(place)
                menu = entry.menu()


def named(actions, title: str):
    """The action whose text begins with a title."""
    (found,) = [action for action in actions if action.text().replace("&", "").startswith(title)]
    return found


def middle(widget: QWidget, area: QRect | None = None) -> QPoint:
    """The middle of a widget, or of a part of it, on the screen."""
    return widget.mapToGlobal((area or widget.rect()).center())


def places_on_canvas(viewer, pixels: list[tuple[int, int]]) -> list[QPoint]:
    """Where pixels of a plain image are on the screen."""
    canvas = viewer.window._qt_viewer.canvas.native
    centre = np.array(viewer.camera.center[-2:])
    offsets = (np.array(pixels) - centre) * viewer.camera.zoom
    origin = np.array([canvas.height() / 2, canvas.width() / 2])
    return [canvas.mapToGlobal(QPoint(round(x), round(y))) for y, x in origin + offsets]


def screenshot(name: str) -> None:
    """Leave a picture of the screen, if that is wanted."""
    if folder := os.environ.get("SCREENSHOTS"):
        QApplication.primaryScreen().grabWindow(0, 0, 0, *SIZE).save(f"{folder}/{name}.png")


def test_from_the_sample_to_the_mask_with_the_mouse(make_napari_viewer, qtbot, notes):
    remember_model(str(SHIPPED))
    viewer = make_napari_viewer(show=True)
    window = viewer.window._qt_window
    window.setGeometry(0, 0, *SIZE)
    qtbot.wait(500)
    mouse = Mouse(qtbot)
    begin = time.perf_counter()

    mouse.choose(window, "File", "Open Sample", "ALiBi-DINOv2", "Nickel on a substrate")
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=WAIT)
    mouse.choose(window, "Plugins", "ALiBi-DINOv2", "Segment from strokes")
    qtbot.waitUntil(lambda: bool(window.findChildren(SegmentWidget)), timeout=WAIT)
    (panel,) = window.findChildren(SegmentWidget)
    qtbot.wait(300)  # the window makes room for the panel
    mouse.click(middle(panel.images.draw.native))
    qtbot.waitUntil(lambda: panel.strokes is not None, timeout=WAIT)
    assert mouse.clicks == 5
    mouse.stroke(places_on_canvas(viewer, NICKEL))
    table = panel.classes.table
    mouse.click(middle(table.viewport(), table.visualItemRect(table.item(1, 2))))
    assert panel.strokes.selected_label == 2
    mouse.stroke(places_on_canvas(viewer, SUBSTRATE))
    qtbot.waitUntil(lambda: panel.stroke_count > 0, timeout=WAIT)
    seconds = time.perf_counter() - begin
    settle(qtbot, panel)

    assert (mouse.clicks, mouse.strokes) == (6, 2)
    assert not notes
    strokes, classes = panel.strokes.data, viewer.layers["nickel on a substrate: classes"].data
    for number, drawn in ((1, NICKEL), (2, SUBSTRATE)):
        assert (strokes == number).sum() > 200
        assert all(strokes[row, column] == number for row, column in drawn)
        assert (classes[strokes == number] == number).mean() > 0.9
    truth = np.asarray(Image.open(REPOSITORY / "data" / "biased_labels" / "nickel_on_substrate_labels.png"))
    marked = truth > 0
    print(f"{mouse.clicks} clicks, {mouse.strokes} strokes, {seconds:.1f} s; {(classes == truth)[marked].mean():.3f}")
    assert (classes == truth)[marked].mean() > 0.7
    qtbot.wait(1000)  # the screen shows what was drawn last
    screenshot("mask")

    mouse.click(middle(panel.controls.pca))
    qtbot.waitUntil(lambda: "nickel on a substrate: features" in viewer.layers, timeout=WAIT)
    settle(qtbot, panel)
    viewer.layers["nickel on a substrate: classes"].visible = False
    qtbot.wait(1000)
    screenshot("features")
