"""Something to tell, in the page where it matters, with its weight in words."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QWidget

from app.widgets.text import dress, label


class Message(QFrame):
    """Hidden until it has something to say; read out by screen readers when it has."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "note")
        self._weight = label("", "strong", wrap=False)
        self._text = label()
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 10, 14, 10)
        row.setSpacing(12)
        row.addWidget(self._weight, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self._text, 1)
        self.hide()

    @property
    def text(self) -> str:
        """What is shown; empty when nothing is."""
        return self._text.text() if self.isVisibleTo(self.parentWidget()) else ""

    def note(self, text: str, weight: str = "") -> None:
        """Show something good to know."""
        self._say("note", weight or self.tr("Note"), text)

    def warn(self, text: str, weight: str = "") -> None:
        """Show something to think about before going on."""
        self._say("warning", weight or self.tr("Please read"), text)

    def error(self, text: str, weight: str = "") -> None:
        """Show what went wrong and what to do about it."""
        self._say("error", weight or self.tr("Not possible"), text)

    def clear(self) -> None:
        """Say nothing any more."""
        self._text.setText("")
        self.hide()

    def _say(self, role: str, weight: str, text: str) -> None:
        if not text:
            self.clear()
            return
        dress(self, role=role)
        self._weight.setText(weight)
        self._text.setText(text)
        self.setAccessibleName(f"{weight}: {text}")
        self.show()
        if role == "error":
            event = QAccessibleEvent(self, QAccessible.Event.Alert)
            QAccessible.updateAccessibility(event)


def describe_field(field: QWidget, note: QWidget, text: str, *, wrong: bool) -> None:
    """Show `text` in the label under a field, as a hint or as what is wrong with it."""
    dress(field, wrong=wrong)
    dress(note, role="error" if wrong else "hint")
    note.setText(text)
    note.setVisible(bool(text))
    field.setAccessibleDescription(text)
