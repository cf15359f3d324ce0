# SPDX-License-Identifier: Apache-2.0
"""The buttons of the panel, in the order in which they are needed."""

from collections.abc import Sequence

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

THIS_SLICE, ALL_SLICES, OPEN_IMAGES, FOLDER = "this slice", "all slices", "all open images", "a folder …"
EVERY_CLASS = "every class"


class Controls(QWidget):
    """Buttons and choices; what they do is connected by who makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.train = button("Train", "Learn from the strokes, and segment the slice that is shown.")
        self.live = QCheckBox("live")
        self.live.setToolTip("Train after each stroke.")
        self.live.setChecked(True)
        self.cancel = button("Cancel", "Stop what is going on; what is done stays, and is not done again.")
        self.bar, self.status = QProgressBar(), QLabel()
        self.bar.setTextVisible(True)
        self.status.setWordWrap(True)
        self.target = QComboBox()
        self.target.addItems([THIS_SLICE, ALL_SLICES, OPEN_IMAGES, FOLDER])
        self.segment = button("Segment", "Segment by what was learned last.")
        self.probabilities, self.uncertainty = QCheckBox("probabilities"), QCheckBox("uncertainty")
        self.uncertainty.setToolTip("1 less the margin between the two most probable classes: draw where it is high.")
        self.pca = button("Features as colours", "The first three principal components as red, green and blue.")
        self.similar = button("Similar to a click", "Click on the image: how similar is every patch to that one?")
        self.similar.setCheckable(True)
        self.region_class, self.min_size = QComboBox(), QSpinBox()
        self.min_size.setRange(1, 10**6)
        self.min_size.setPrefix("from ")
        self.min_size.setSuffix(" px")
        self.fill_holes = QCheckBox("fill holes")
        self.measure = button("Measure regions", "Connected regions, and a table of their measures.")
        self.open, self.save = button("Open segmenter …", ""), button("Save segmenter …", "")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.train, self.live, self.cancel))
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addWidget(group("Segment", [[self.target, self.segment], [self.probabilities, self.uncertainty]]))
        layout.addWidget(group("Features", [[self.pca, self.similar]]))
        layout.addWidget(group("Regions", [[self.region_class, self.min_size], [self.fill_holes, self.measure]]))
        layout.addLayout(row(self.open, self.save))
        self.idle()

    def idle(self) -> None:
        """Nothing is going on."""
        self.cancel.setEnabled(False)
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.bar.setFormat("")

    def advance(self, title: str, done: int, total: int) -> None:
        """Show how far what is going on has come; a total of 0 if it is not known."""
        self.cancel.setEnabled(True)
        self.bar.setRange(0, max(total, 1))  # a range without an end is animated, which draws the window all the time
        self.bar.setValue(done)
        self.bar.setFormat(f"{title}: {done} of {total}" if total else title)
        if not total:
            self.status.setText(f"{title} …")

    def offer_classes(self, names: Sequence[str]) -> None:
        """Offer classes whose regions are to be measured."""
        index = max(self.region_class.currentIndex(), 0)
        self.region_class.clear()
        self.region_class.addItems([EVERY_CLASS, *names])
        self.region_class.setCurrentIndex(min(index, len(names)))


def button(text: str, tip: str) -> QPushButton:
    """A button with an explanation."""
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def row(*widgets: QWidget) -> QHBoxLayout:
    """Widgets beside each other."""
    layout = QHBoxLayout()
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def group(title: str, rows: Sequence[Sequence[QWidget]]) -> QGroupBox:
    """Widgets in a frame with a title."""
    box = QGroupBox(title)
    grid = QGridLayout(box)
    for number, widgets in enumerate(rows):
        for column, widget in enumerate(widgets):
            grid.addWidget(widget, number, column)
    return box
