# SPDX-License-Identifier: Apache-2.0
"""The window's panel: strokes -> classes. What is done to whole images, files and regions is in `actions.py`."""

import time
import zlib

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_error
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_alibi_dinov2.actions import Actions
from napari_alibi_dinov2.advanced_panel import AdvancedPanel
from napari_alibi_dinov2.classes_panel import ClassesPanel
from napari_alibi_dinov2.controls import Controls
from napari_alibi_dinov2.image_panel import ImagePanel
from napari_alibi_dinov2.images import current_slice, image_of, pixels_of, stack_shape, visible_block
from napari_alibi_dinov2.layers import Results, add_strokes, colormap, require_fitting
from napari_alibi_dinov2.notified import notified
from napari_alibi_dinov2.workbench import Part, Picture, Workbench
from napari_alibi_dinov2.worker import Job, Jobs

PAUSE = 60  # milliseconds without a change of the strokes after which they are learned
FIRST = 2**20  # pixels that are segmented first, in the middle of what is seen
BRUSH = 100  # the image's longer side to one of the brush's


class SegmentWidget(QWidget):
    """Segment the images of a viewer from a few strokes.

    Args:
        viewer: napari's.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.jobs, self.bench = Jobs(), Workbench()
        self.images, self.classes = ImagePanel(viewer), ClassesPanel()
        self.controls, self.advanced = Controls(), AdvancedPanel()
        self.results: dict[Image, Results] = {}
        self.strokes: Labels | None = None
        self.seen_strokes = 0  # a checksum of those that were learned last
        self.stroke_time = 0.0
        self.stroke_count = 0  # how often strokes were learned and shown
        self.timer = QTimer(self)
        self.timer.setSingleShot(True)
        self.timer.setInterval(PAUSE)
        self.window_watched: QWidget | None = None
        layout = QVBoxLayout(self)
        for panel in (self.images, self.classes, self.controls, self.advanced):
            layout.addWidget(panel)
        layout.addStretch()
        self.actions = Actions(self)
        self.connect_signals()
        self.controls.offer_classes(list(self.classes.names.values()))
        self.jobs.run(Job(self.bench.load))

    def connect_signals(self) -> None:
        """Let everything do what it is for."""
        self.images.draw.changed.connect(self.draw)
        self.images.strokes_changed.connect(self.take_strokes)
        self.images.changed.connect(self.image_changed)
        self.classes.chosen.connect(self.choose_class)
        self.classes.changed.connect(self.classes_changed)
        self.classes.removing.connect(self.remove_class)
        self.controls.train.clicked.connect(self.train)
        self.controls.cancel.clicked.connect(self.cancel)
        self.controls.live.toggled.connect(self.strokes_touched)
        self.jobs.advanced.connect(self.controls.advance)
        self.jobs.ended.connect(self.job_ended)
        self.timer.timeout.connect(self.learn_if_changed)
        self.viewer.dims.events.current_step.connect(self.slice_changed)
        self.viewer.camera.events.connect(self.view_changed)
        self.take_strokes()

    # ---- what is chosen in the window

    def picture(self) -> Picture:
        """The image as it was chosen.

        Raises:
            ValueError: there is none, or it has no such channel or contrast.
        """
        self.watch()
        layer, seen = self.images.image, self.images.seen
        return Picture(pixels_of(layer), image_of(layer, seen), seen, self.advanced.settings)

    @property
    def channels_first(self) -> bool:
        """Whether the image's first axis has channels."""
        return self.images.seen.channels_first

    def index(self) -> int:
        """The slice that is shown."""
        return current_slice(self.images.image, self.viewer.dims, self.channels_first)

    def focus(self) -> tuple[slice, slice]:
        """What of it is seen, a megapixel at most."""
        layer = self.images.image
        height, width = stack_shape(layer)[-2:]
        return visible_block(layer, (height, width), FIRST)

    def results_of(self, layer: Image) -> Results:
        """The layers of results of an image layer."""
        shape = stack_shape(layer, self.channels_first)
        # napari hands out ever new proxies of a layer, which are equal but not the same.
        if layer not in self.results or self.results[layer].shape != shape:
            self.results[layer] = Results(self.viewer, layer, shape)
        return self.results[layer]

    # ---- strokes

    @notified
    def draw(self) -> None:
        """Make a layer of strokes if there is none for the image, and draw the first class."""
        image = self.images.image
        if self.strokes is None or self.strokes.data.shape != stack_shape(image, self.channels_first):
            strokes = add_strokes(self.viewer, image, self.channels_first, self.classes.colours)
            strokes.brush_size = max(2, max(stack_shape(image)[-2:]) // BRUSH)
            self.images.strokes = strokes
        self.choose_class(1)
        self.prepare()

    def take_strokes(self) -> None:
        """Another labels layer was chosen: watch it."""
        if self.strokes is not None:
            self.strokes.events.set_data.disconnect(self.strokes_touched)
            self.strokes.events.paint.disconnect(self.strokes_touched)
            self.strokes.events.selected_label.disconnect(self.label_selected)
        self.strokes = self.images.strokes
        self.seen_strokes = 0
        if self.strokes is None:
            return
        self.strokes.colormap = colormap(self.classes.colours)
        self.strokes.events.set_data.connect(self.strokes_touched)
        self.strokes.events.paint.connect(self.strokes_touched)
        self.strokes.events.selected_label.connect(self.label_selected)
        for number in range(1, 10):
            self.strokes.bind_key(str(number), lambda layer, chosen=number: self.choose_class(chosen), overwrite=True)

    def choose_class(self, number: int) -> None:
        """Draw strokes of a class."""
        if self.strokes is None:
            self.draw()
        if self.strokes is not None and number in self.classes.names:
            self.strokes.selected_label = number
            self.strokes.mode = "paint"
            self.viewer.layers.selection.active = self.strokes
            self.classes.select(number)

    def label_selected(self, event: object = None) -> None:
        """The class was chosen in napari's own controls."""
        if self.strokes is not None:
            self.classes.select(self.strokes.selected_label)

    def classes_changed(self) -> None:
        """Names or colours are others."""
        if self.strokes is not None:
            self.strokes.colormap = colormap(self.classes.colours)
        for results in self.results.values():
            results.recolour(self.classes.colours)
        self.controls.offer_classes(list(self.classes.names.values()))

    def remove_class(self, number: int) -> None:
        """Remove the last class, unless it has strokes."""
        if self.strokes is not None and bool((self.strokes.data == number).any()):
            show_error(f"{self.classes.names[number]} has strokes; erase them first (E), or fill them with 0 (F).")
        else:
            self.classes.remove_last()

    def checksum(self, strokes: Labels) -> int:
        """Of the strokes on the slice that is shown, and its number."""
        index = self.index()
        return zlib.adler32(np.ascontiguousarray(pages_of(strokes)[index]).data, index + 1)

    def strokes_touched(self, event: object = None) -> None:
        """Strokes may have been drawn, erased, undone or redone."""
        if self.strokes is not None and self.controls.live.isChecked():
            self.timer.start()

    def learn_if_changed(self) -> None:
        """In live mode: learn, if the strokes are others than the last time."""
        if self.strokes is None or self.images.image_box.value is None or not self.controls.live.isChecked():
            return
        if self.strokes.data.shape != stack_shape(self.images.image, self.channels_first):
            return
        try:
            checksum = self.checksum(self.strokes)
        except ValueError:  # another plane is shown, on which nobody draws
            return
        if checksum != self.seen_strokes and (self.strokes.data.any() or self.bench.fitted):
            self.seen_strokes = checksum
            self.learn(self.strokes, live=True)

    # ---- learning

    def prepare(self) -> None:
        """Compute features of the slice that is shown while strokes are drawn on it."""
        picture, index, focus = self.picture(), self.index(), self.focus()
        self.jobs.run(Job(lambda: self.bench.features(picture, index, focus), on_done=lambda _: self.strokes_touched()))

    @notified
    def train(self) -> None:
        """Learn from the strokes now."""
        if self.strokes is None:
            raise ValueError("There are no strokes; press Draw and draw some of two classes.")
        self.learn(self.strokes, live=False)

    def learn(self, strokes: Labels, live: bool) -> None:
        """Learn from the strokes, and segment the slice that is shown."""
        picture, index, focus = self.picture(), self.index(), self.focus()
        image = self.images.image
        require_fitting(strokes, image, self.channels_first)
        self.stroke_time = time.perf_counter()
        labels = pages_of(strokes)
        names = self.classes.names
        self.jobs.run(
            Job(
                lambda: self.bench.learn(picture, labels, names, index, focus, live),
                lambda result: self.show(result, image),
                lambda message: message and self.controls.status.setText(message),
            )
        )

    def show(self, result: Part, image: Image) -> None:
        """Show a part of what was segmented."""
        controls = self.controls
        self.results_of(image).write(
            result,
            self.classes.names,
            self.classes.colours,
            controls.probabilities.isChecked(),
            controls.uncertainty.isChecked(),
        )
        self.bench.done |= result.places
        if self.stroke_time:
            seconds, self.stroke_time = time.perf_counter() - self.stroke_time, 0.0
            self.stroke_count += 1
            controls.status.setText(f"{len(result.numbers)} classes, shown after {seconds:.1f} s")

    # ---- what goes on

    def show_settings(self) -> None:
        """PyTorch is there, and with it the defaults."""
        if self.bench.defaults is None or self.advanced.form is not None:
            return
        from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS

        self.advanced.fill(self.bench.defaults, CLASSIFIERS)
        self.advanced.changed.connect(self.image_changed)

    def image_changed(self) -> None:
        """Another image, or something else of it: what is going on is of no use any more."""
        self.jobs.cancel()
        self.seen_strokes = 0
        if self.strokes is not None:
            self.strokes_touched()

    def slice_changed(self, event: object = None) -> None:
        """Another slice is shown: segment it, if that is what live means."""
        drawn_on = self.images.image_box.value is not None and self.controls.live.isChecked()
        if drawn_on and self.bench.fitted and not self.jobs.busy:
            self.actions.segment_slice()

    def view_changed(self, event: object = None) -> None:
        """Another part of the slice is shown: it is computed first."""
        if self.jobs.busy and self.bench.session and self.images.image_box.value is not None:
            self.bench.session.focus(self.focus())

    def cancel(self) -> None:
        """Stop what is going on."""
        self.jobs.cancel()
        self.actions.stop()
        self.controls.status.setText("stopped; what is done stays, and is not done again")

    def job_ended(self) -> None:
        """Nothing is going on any more, unless a folder is being segmented."""
        if not self.actions.folder_run.busy:
            self.controls.idle()
        if self.controls.status.text().endswith("…"):
            self.controls.status.setText("")
        self.show_settings()

    def shut_down(self) -> None:
        """Stop everything; no thread and no process is left."""
        self.timer.stop()
        self.actions.stop()
        self.jobs.close()
        self.bench.close()
        window, self.window_watched = self.window_watched, None
        if window is not None:
            window.removeEventFilter(self)

    # ---- the end

    def event(self, event: QEvent) -> bool:
        """Qt's: docked, the panel watches the window; taken out of it, it ends its work."""
        if event.type() in (QEvent.Type.ParentChange, QEvent.Type.Show) and self.parent() is not None:
            QTimer.singleShot(0, self.watch)  # when the dock that it was put into is in the window
        elif event.type() == QEvent.Type.ParentChange and self.window_watched is not None:
            self.shut_down()
        return super().event(event)

    def watch(self) -> None:
        """Notice when the window closes."""
        window = self.window()
        if window not in (self, self.window_watched):
            window.installEventFilter(self)
            self.window_watched = window

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Qt's: the window closes."""
        if watched is self.window_watched and event.type() == QEvent.Type.Close:
            self.shut_down()
        return False

    def closeEvent(self, event: QEvent) -> None:
        """Qt's: the panel is closed by itself."""
        self.shut_down()
        super().closeEvent(event)


def pages_of(strokes: Labels) -> np.ndarray:
    """The slices of a labels layer, `(slices, H, W)`."""
    return strokes.data.reshape(-1, *strokes.data.shape[-2:])
