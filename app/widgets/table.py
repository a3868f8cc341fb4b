"""A small table that is read, not edited."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
)

ROWS_IN_VIEW = 7


class Table(QTableWidget):
    """Rows of text; numbers are set right. As tall as its rows, up to a few."""

    def __init__(self, name: str, columns: tuple[str, ...]) -> None:
        super().__init__(0, len(columns))
        self.setAccessibleName(name)
        self.setHorizontalHeaderLabels(columns)
        self.verticalHeader().hide()
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setTabKeyNavigation(False)
        self.setWordWrap(False)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        header.setHighlightSections(False)
        header.setDefaultAlignment(
            Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        )

    def show_rows(self, rows: list[tuple[str | int, ...]]) -> None:
        """Replace the rows."""
        self.setRowCount(len(rows))
        for row, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                number = isinstance(cell, int)
                item = QTableWidgetItem(f"{cell:,}" if number else cell)
                item.setToolTip(item.text())
                self.setItem(row, column, item)
        self.resizeRowsToContents()
        shown = min(len(rows), ROWS_IN_VIEW)
        height = sum(self.rowHeight(row) for row in range(shown))
        self.setFixedHeight(height + self.horizontalHeader().sizeHint().height() + 6)
