# SPDX-License-Identifier: Apache-2.0
"""What is done with what was learned: segment, look at features, measure regions, open and save."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from alibi_dinov2.segmentation.instances import instances, measure
from napari_alibi_dinov2.batch import FolderRun, OpenPart, segment_open_images
from napari_alibi_dinov2.controls import ALL_SLICES, FOLDER, OPEN_IMAGES
from napari_alibi_dinov2.images import image_of, pixel_size, stack_shape
from napari_alibi_dinov2.layers import add_patches, add_regions
from napari_alibi_dinov2.notified import notified
from napari_alibi_dinov2.worker import Job, Step, Steps

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_alibi_dinov2.widget import SegmentWidget

SEGMENTER = "segmenter"  # folder in that of the results


class Actions(QObject):
    """The actions of a panel.

    Args:
        panel: whose buttons they belong to.
    """

    def __init__(self, panel: "SegmentWidget") -> None:
        super().__init__(panel)
        self.panel, self.folder_run = panel, FolderRun()
        controls = panel.controls
        controls.segment.clicked.connect(self.segment)
        controls.probabilities.toggled.connect(self.outputs_changed)
        controls.uncertainty.toggled.connect(self.outputs_changed)
        controls.pca.clicked.connect(self.components)
        controls.similar.toggled.connect(self.toggle_similarity)
        controls.measure.clicked.connect(self.measure)
        controls.open.clicked.connect(self.open)
        controls.save.clicked.connect(self.save)
        self.folder_run.advanced.connect(lambda done, total: controls.advance("images", done, total))
        self.folder_run.ended.connect(self.folder_done)
        self.done_open: dict[Image, tuple[Any, set]] = {}  # of other images: the classifier, and what is done by it

    def stop(self) -> None:
        """Stop the command, if it runs."""
        if self.folder_run.busy:
            self.folder_run.stop()
            self.panel.controls.idle()

    # ---- segmenting

    def require_learned(self) -> None:
        """Raise a `ValueError` unless something was learned."""
        if not self.panel.bench.fitted:
            raise ValueError("Nothing was learned yet; draw strokes of two classes and press Train.")

    @notified
    def segment(self) -> None:
        """Segment what was chosen."""
        self.require_learned()
        target = self.panel.controls.target.currentText()
        if target == FOLDER:
            self.segment_folder()
        elif target == OPEN_IMAGES:
            self.segment_open()
        else:
            slices = self.panel.picture().image.slices
            index = self.panel.index()
            # The slice that is shown comes first.
            others = [number for number in range(slices) if number != index] if target == ALL_SLICES else []
            self.run_segment([index, *others])

    @notified
    def segment_slice(self) -> None:
        """Segment the slice that is shown."""
        self.run_segment([self.panel.index()])

    def run_segment(self, indices: list[int]) -> None:
        """Segment slices, but for what is done."""
        panel, picture, image = self.panel, self.panel.picture(), self.panel.images.image
        focus = panel.focus()
        panel.jobs.run(
            Job(
                lambda: panel.bench.segment(picture, indices, focus),
                lambda part: panel.show(part, image),
                lambda _: panel.controls.status.setText(f"{len(indices)} slices segmented"),
            )
        )

    def outputs_changed(self) -> None:
        """Other layers are wanted: what was segmented has to be so again, for its probabilities are not kept."""
        self.panel.bench.done.clear()
        self.done_open.clear()
        if self.panel.bench.fitted and not self.panel.jobs.busy:
            self.segment_slice()

    def segment_open(self) -> None:
        """Segment all images of the viewer."""
        panel = self.panel
        layers, seen = panel.images.images(), panel.images.seen
        images = [image_of(layer, seen) for layer in layers]
        classifier = getattr(panel.bench.segmenter, "classifier_", None)
        for layer in layers:
            if layer not in self.done_open or self.done_open[layer][0] is not classifier:
                self.done_open[layer] = (classifier, set())
        done = [self.done_open[layer][1] for layer in layers]

        def show(result: OpenPart) -> None:
            done[result.number].update(result.part.places)
            controls = panel.controls
            wanted = controls.probabilities.isChecked(), controls.uncertainty.isChecked()
            panel.results_of(layers[result.number]).write(
                result.part, panel.classes.names, panel.classes.colours, *wanted
            )

        def end(failures: list[str]) -> None:
            panel.controls.status.setText(f"{len(layers) - len(failures)} images segmented")
            if failures:
                show_error("Left out: " + "; ".join(failures))

        panel.jobs.run(Job(lambda: segment_open_images(panel.bench, images, done), show, end))

    def segment_folder(self) -> None:
        """Ask for a folder with images and one for the results, and segment the images' files."""
        images = ask_folder(self.panel, "Folder with images")
        output = images and ask_folder(self.panel, "Folder for the results")
        if images and output:
            self.start_folder(Path(images), Path(output))

    def start_folder(self, images: Path, output: Path) -> None:
        """Segment the files of a folder; the segmenter is saved among the results, if it is not there already."""
        controls, saved = self.panel.controls, self.free_name(output)
        options = ["--probabilities", "uint8"] if controls.probabilities.isChecked() else []
        options += ["--uncertainty"] if controls.uncertainty.isChecked() else []

        def start(folder: Path) -> None:
            controls.advance("images", 0, 0)
            self.folder_run.start(folder, images, output, options)

        self.panel.jobs.run(Job(lambda: self.panel.bench.save(saved), on_done=start))

    @staticmethod
    def free_name(output: Path) -> Path:
        """A folder for the segmenter that does not exist."""
        names = [SEGMENTER, *(f"{SEGMENTER}-{number}" for number in range(2, 1000))]
        return next(output / name for name in names if not (output / name).exists())

    def folder_done(self, well: bool, said: str) -> None:
        """The command has ended."""
        self.panel.controls.idle()
        self.panel.controls.status.setText(said if well else "the folder was not segmented as a whole")
        if not well:
            show_error(said or "The command ended without a word; run it again, it goes on from where it was.")

    # ---- features

    @notified
    def components(self) -> None:
        """Show features as colours."""
        panel, picture, index = self.panel, self.panel.picture(), self.panel.index()
        self.show_patches("features", index, lambda: panel.bench.components(picture, index))

    def similarity(self, row: int, column: int) -> None:
        """Show how similar patches are to one."""
        panel, picture, index = self.panel, self.panel.picture(), self.panel.index()
        self.show_patches("similarity", index, lambda: panel.bench.similarity(picture, index, row, column))

    def show_patches(self, name: str, index: int, steps: Any) -> None:
        """Run steps to something of each patch, and show it."""
        panel, image = self.panel, self.panel.images.image
        shape = stack_shape(image, panel.channels_first)

        def show(values: np.ndarray) -> None:
            patch = panel.bench.patch_side()
            add_patches(panel.viewer, image, name, values, index, shape, patch)

        panel.jobs.run(Job(steps, on_done=show))

    def toggle_similarity(self, wanted: bool) -> None:
        """Listen to clicks, or no longer."""
        callbacks = self.panel.viewer.mouse_drag_callbacks
        if wanted:
            if self.panel.strokes is not None:
                self.panel.strokes.mode = "pan_zoom"
            callbacks.append(self.clicked)
            show_info("Click on the image.")
        elif self.clicked in callbacks:
            callbacks.remove(self.clicked)

    def clicked(self, viewer: Any, event: Any) -> Any:
        """napari's: a mouse button went down; a click is one that comes up again without moving."""
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        if not dragged:
            self.at_click(event.position)

    def at_click(self, position: tuple[float, ...]) -> None:
        """Show what is similar to a place of the world."""
        try:
            image = self.panel.images.image
            row, column = (round(place) for place in image.world_to_data(position)[-2:])
            height, width = stack_shape(image)[-2:]
            if 0 <= row < height and 0 <= column < width:
                self.similarity(row, column)
        except ValueError as error:
            show_error(str(error))

    # ---- regions

    @notified
    def measure(self) -> None:
        """Measure connected regions of the classes."""
        panel, controls = self.panel, self.panel.controls
        image = panel.images.image
        classes = panel.results_of(image).classes
        if classes is None:
            raise ValueError("Nothing was segmented yet; draw strokes of two classes and press Train.")
        names = panel.classes.names
        chosen = controls.region_class.currentIndex()
        numbers = [chosen] if chosen else list(names)
        settings = controls.min_size.value(), controls.fill_holes.isChecked()
        data = classes.data

        def end(found: tuple) -> None:
            labels, table = found
            controls.status.setText(f"{len(table['label'])} regions")
            if table["label"]:
                add_regions(panel.viewer, image, labels.reshape(data.shape), table)
                panel.viewer.window.add_plugin_dock_widget("napari", "Features table widget")

        pages = data.reshape(-1, *data.shape[-2:])
        size = pixel_size(image)
        panel.jobs.run(Job(lambda: regions(pages, numbers, names, settings, size), on_done=end))

    # ---- segmenters

    @notified
    def open(self) -> None:
        """Ask for a saved segmenter, and go on with it."""
        if folder := ask_folder(self.panel, "Folder of the segmenter"):
            self.load(Path(folder))

    def load(self, folder: Path) -> None:
        """Go on with a saved segmenter, on the image that is chosen."""
        panel, picture = self.panel, self.panel.picture()

        def end(names: dict[int, str]) -> None:
            panel.classes.set_names(names)
            self.segment_slice()

        panel.jobs.run(Job(lambda: panel.bench.open(folder, picture), on_done=end))

    @notified
    def save(self) -> None:
        """Ask for a name, and save the segmenter."""
        self.require_learned()
        name, _ = QFileDialog.getSaveFileName(self.panel, "New folder for the segmenter", SEGMENTER)
        if name:
            self.store(Path(name))

    def store(self, folder: Path) -> None:
        """Save the segmenter."""
        panel = self.panel
        panel.jobs.run(
            Job(
                lambda: panel.bench.save(folder),
                on_done=lambda saved: panel.controls.status.setText(f"saved: {saved}"),
            )
        )


def ask_folder(panel: Any, title: str) -> str:
    """A folder that the user chooses, or nothing."""
    return QFileDialog.getExistingDirectory(panel, title)


def regions(
    pages: np.ndarray, numbers: list[int], names: dict[int, str], settings: tuple[int, bool], size: Any
) -> Steps:
    """Connected regions of slices `(slices, H, W)`, counted through all of them, and the table of their measures."""
    found = np.zeros(pages.shape, dtype=np.int32)
    table: dict[str, list[Any]] = {}
    count = 0
    for index, page in enumerate(pages):
        labels, owners = instances(page, numbers, *settings)
        rows = measure(labels, owners, names, size)
        rows["label"] = [number + count for number in rows["label"]]
        rows = {"label": rows.pop("label"), "slice": [index] * len(owners), **rows}
        table = {name: table.get(name, []) + values for name, values in rows.items()}
        found[index] = np.where(labels > 0, labels + count, 0)
        count += len(owners)
        yield Step(index + 1, len(pages), "measuring")
    return found, table
