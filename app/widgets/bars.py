"""Shares as bars under one another, each with its number in text."""

from __future__ import annotations

from PySide6.QtWidgets import QGridLayout, QProgressBar, QWidget

from app.widgets.text import label

PERMILLE = 1000


class Bars(QWidget):
    """Name, bar and percentage in each row."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(18)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(0, 1)

    def show_shares(self, shares: list[tuple[str, float, str, bool]]) -> None:
        """Show (name, share from 0 to 1, note, whether it is the main one)."""
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        for number, (name, share, note, main) in enumerate(shares):
            row = 4 * number
            value = label(f"{100 * share:.1f} %", "figure", wrap=False)
            bar = QProgressBar()
            bar.setProperty("tall", True)
            bar.setProperty("quiet", not main)
            bar.setTextVisible(False)
            bar.setRange(0, PERMILLE)
            bar.setValue(round(PERMILLE * share))
            bar.setAccessibleName(name)
            bar.setAccessibleDescription(f"{100 * share:.1f} %")
            self._grid.addWidget(label(name), row, 0, 1, 2)
            self._grid.addWidget(bar, row + 1, 0)
            self._grid.addWidget(value, row + 1, 1)
            if note:
                self._grid.addWidget(label(note, "hint"), row + 2, 0, 1, 2)
            self._grid.setRowMinimumHeight(row + 3, 10)
