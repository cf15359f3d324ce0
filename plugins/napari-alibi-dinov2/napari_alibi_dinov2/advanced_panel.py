# SPDX-License-Identifier: Apache-2.0
"""What is hidden under "Advanced": model, window, classifier."""

from collections.abc import Sequence
from dataclasses import asdict

from magicgui.widgets import CheckBox, ComboBox, Container, LineEdit, PushButton, SpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QLabel, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_alibi_dinov2.settings import Settings, remember_model

DEVICES = ("cpu", "cuda", "mps")
SCALES = [("full size", (1,)), ("full and half size", (1, 2)), ("full, half and quarter size", (1, 2, 4))]


class AdvancedPanel(QWidget):
    """Settings of the segmenter, collapsed; there are none to be seen before their defaults are known.

    Signals:
        changed: a setting is another one.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.defaults: Settings | None = None
        self.form: Container | None = None
        self.fold = QCollapsible("Advanced")
        self.waiting = QLabel("loading …")
        self.fold.addWidget(self.waiting)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.fold)

    def fill(self, defaults: Settings, classifiers: Sequence[str]) -> None:
        """Show the settings."""
        self.defaults = defaults
        browse = PushButton(text="Choose the model's folder …")
        tips = {
            "components": "Principal components that are left of the backbone's features.",
            "window": "Side in pixels of what the backbone sees at once; its bias depends on it.",
            "overlap": "Of neighbouring windows, in pixels.",
            "shifts": "2 makes deep features twice as fine, for four times the work.",
            "per_image": "Standardise deep features in each slice; off where some show one phase alone.",
            "scales": "With half the size, features see twice as much around them; without, they are there sooner.",
            "classical": "Gaussians, Sobel, Hessian, differences and membranes beside the deep features.",
            "max_pixels": "Labelled pixels that are learned from at most; fewer answer faster after many strokes.",
            "keep": "Keep deep features on the disk, so that no image is computed again another day.",
        }
        widgets = [
            LineEdit(name="model", tooltip="Folder or Hub id; empty for classical features alone."),
            browse,
            ComboBox(name="device", choices=DEVICES),
            ComboBox(name="classifier", choices=list(classifiers)),
            CheckBox(name="classical", text="classical features", tooltip=tips["classical"]),
            SpinBox(name="components", min=1, max=384, tooltip=tips["components"]),
            SpinBox(name="window", min=14, max=4096, step=14, tooltip=tips["window"]),
            SpinBox(name="overlap", min=0, max=2048, step=14, tooltip=tips["overlap"]),
            ComboBox(name="shifts", choices=[1, 2, 7, 14], tooltip=tips["shifts"]),
            CheckBox(name="per_image", text="standardise in each slice", tooltip=tips["per_image"]),
            ComboBox(name="scales", choices=SCALES, tooltip=tips["scales"]),
            SpinBox(name="max_pixels", label="labelled pixels", min=2, max=10**7, tooltip=tips["max_pixels"]),
            CheckBox(name="keep", text="keep features on the disk", tooltip=tips["keep"]),
        ]
        self.form = Container(widgets=widgets)
        self.form.margins = (0, 0, 0, 0)
        for name, value in asdict(defaults).items():
            self.form[name].value = value
        self.fold.removeWidget(self.waiting)
        self.waiting.hide()
        self.fold.addWidget(self.form.native)
        browse.changed.connect(self.choose_model)
        self.form.changed.connect(lambda: self.changed.emit())

    def choose_model(self) -> None:
        """Let the user choose a folder with a model."""
        folder = QFileDialog.getExistingDirectory(self, "Folder of the model")
        if folder and self.form is not None:
            self.form["model"].value = folder

    @property
    def settings(self) -> Settings | None:
        """Those that were chosen; none as long as the defaults are not known."""
        if self.form is None or self.defaults is None:
            return None
        found = Settings(**{name: self.form[name].value for name in asdict(self.defaults)})
        if found.model != self.defaults.model:
            remember_model(found.model)
        return found
