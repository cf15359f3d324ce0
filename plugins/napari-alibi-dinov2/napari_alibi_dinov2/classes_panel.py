# SPDX-License-Identifier: Apache-2.0
"""The classes that are drawn: a colour, a name and a key for each."""

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from alibi_dinov2.pictures.colours import class_colours

COLUMNS = ("key", "colour", "class")
KEY, COLOUR, NAME = range(3)
MOST = 255  # classes that a label image of 8 bits can have
ROWS_SHOWN = 4


class ClassesPanel(QWidget):
    """A table of classes; those of the numbers 1 to 9 are chosen by these keys, too.

    Signals:
        chosen: the number of the class that is to be drawn.
        changed: names or colours were changed.
        removing: the number of a class that is to go; call `remove_last` if it may.
    """

    chosen = Signal(int)
    changed = Signal()
    removing = Signal(int)

    def __init__(self, count: int = 2) -> None:
        super().__init__()
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.add_button, self.remove_button = QPushButton("Add class"), QPushButton("Remove last")
        buttons = QHBoxLayout()
        buttons.addWidget(self.add_button)
        buttons.addWidget(self.remove_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(buttons)
        for _ in range(count):
            self.add()
        self.table.setFixedHeight(header.sizeHint().height() + ROWS_SHOWN * self.table.rowHeight(0))
        self.table.cellClicked.connect(self.clicked)
        self.table.cellDoubleClicked.connect(self.ask_colour)
        self.table.itemChanged.connect(self.changed)
        self.add_button.clicked.connect(lambda: self.add())
        self.remove_button.clicked.connect(lambda: self.removing.emit(self.table.rowCount()))

    @property
    def names(self) -> dict[int, str]:
        """Names of the classes by number."""
        return {row + 1: self.table.item(row, NAME).text().strip() for row in range(self.table.rowCount())}

    @property
    def colours(self) -> dict[int, tuple[int, int, int]]:
        """Colours of the classes by number, 0 to 255."""
        found = {row + 1: self.colour_of(row + 1) for row in range(self.table.rowCount())}
        return {number: (colour.red(), colour.green(), colour.blue()) for number, colour in found.items()}

    def colour_of(self, number: int) -> QColor:
        """The colour of a class, as Qt's."""
        return self.table.item(number - 1, COLOUR).data(Qt.ItemDataRole.DecorationRole)

    def add(self, name: str = "") -> None:
        """Add a class, up to 255."""
        number = self.table.rowCount() + 1
        if number > MOST:
            return
        self.table.blockSignals(True)
        self.table.insertRow(number - 1)
        for column, text in (
            (KEY, str(number) if number < 10 else ""),
            (COLOUR, ""),
            (NAME, name or f"class {number}"),
        ):
            item = QTableWidgetItem(text)
            if column != NAME:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            self.table.setItem(number - 1, column, item)
        self.table.blockSignals(False)
        self.set_colour(number, QColor(*class_colours()[number].tolist()))

    def remove_last(self) -> None:
        """Remove the class of the highest number; two are left."""
        if self.table.rowCount() > 2:
            self.table.removeRow(self.table.rowCount() - 1)
            self.changed.emit()

    def set_names(self, names: dict[int, str]) -> None:
        """Give classes names, and have as many as that takes."""
        while self.table.rowCount() < max(names):
            self.add()
        for number, name in names.items():
            self.table.item(number - 1, NAME).setText(name)

    def select(self, number: int) -> None:
        """Show which class is drawn."""
        if 1 <= number <= self.table.rowCount():
            self.table.selectRow(number - 1)

    def clicked(self, row: int, column: int) -> None:
        self.chosen.emit(row + 1)

    def ask_colour(self, row: int, column: int) -> None:
        """Let the user choose the colour of a class."""
        if column != COLOUR:
            return
        colour = QColorDialog.getColor(self.colour_of(row + 1), self)
        if colour.isValid():
            self.set_colour(row + 1, colour)

    def set_colour(self, number: int, colour: QColor) -> None:
        """Give a class another colour."""
        # No background: the mark of the row that is chosen would cover it. The table tells that it has changed.
        self.table.item(number - 1, COLOUR).setData(Qt.ItemDataRole.DecorationRole, colour)
