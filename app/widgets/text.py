"""Labels by their role, cards, and rows of facts."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QVBoxLayout, QWidget


def label(text: str = "", role: str = "body", *, wrap: bool = True) -> QLabel:
    """A label dressed by the style sheet for its role; plain text, never markup."""
    made = QLabel(text)
    made.setProperty("role", role)
    made.setWordWrap(wrap)
    made.setTextFormat(Qt.TextFormat.PlainText)
    return made


def dress(widget: QWidget, **properties: object) -> None:
    """Set dynamic properties and let the style sheet look again."""
    for name, value in properties.items():
        widget.setProperty(name, value)
    widget.style().unpolish(widget)
    widget.style().polish(widget)


class Card(QFrame):
    """A raised area with an optional heading; add to `.rows`."""

    def __init__(self, heading: str = "") -> None:
        super().__init__()
        self.setProperty("role", "card")
        self.rows = QVBoxLayout(self)
        self.rows.setContentsMargins(18, 16, 18, 16)
        self.rows.setSpacing(10)
        if heading:
            self.rows.addWidget(label(heading, "heading"))
            self.setAccessibleName(heading)


class Facts(QWidget):
    """Two columns of name and value."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(24)
        self._grid.setVerticalSpacing(6)
        self._grid.setColumnStretch(1, 1)

    def show_facts(self, *facts: tuple[str, str]) -> None:
        """Replace what is shown; a row with an empty value is left out."""
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        for row, (name, value) in enumerate(fact for fact in facts if fact[1]):
            told = label(name, "hint", wrap=False)
            shown = label(value)
            shown.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._grid.addWidget(told, row, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(shown, row, 1)
            told.show()
            shown.show()
