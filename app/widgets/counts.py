"""Numbers of things by name, each with a bar as long as its share."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtWidgets import QGridLayout, QProgressBar, QVBoxLayout, QWidget

from app.widgets.text import label

MOST_ROWS = 8


class Counts(QWidget):
    """A heading and a few rows of name, bar and number; hidden while there are none."""

    def __init__(self, heading: str = "") -> None:
        super().__init__()
        self.heading = label(heading, "strong")
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(18)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnMinimumWidth(0, 150)
        self._grid.setColumnStretch(1, 1)
        self._more = label("", "hint")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.heading)
        column.addLayout(self._grid)
        column.addWidget(self._more)

    def show_counts(self, counts: Mapping[str, int], of: str = "") -> None:
        """Replace the rows by the first few of these; `of` says what is counted."""
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        most = max(counts.values(), default=0)
        for row, (name, number) in enumerate(list(counts.items())[:MOST_ROWS]):
            told = f"{number:,} × {of}" if of else f"{number:,}"
            bar = QProgressBar()
            bar.setTextVisible(False)
            bar.setRange(0, 1000)
            bar.setValue(round(1000 * number / max(most, 1)))
            bar.setAccessibleName(f"{self.heading.text()}: {name}")
            bar.setAccessibleDescription(told)
            self._grid.addWidget(label(name, wrap=False), row, 0)
            self._grid.addWidget(bar, row, 1)
            self._grid.addWidget(label(told, wrap=False), row, 2)
        left = len(counts) - MOST_ROWS
        self._more.setText(self.tr("and {number} more").format(number=f"{left:,}"))
        self._more.setVisible(left > 0)
        self.setVisible(bool(counts))
