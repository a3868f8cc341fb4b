"""One of several, each with a line that explains it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QButtonGroup, QRadioButton, QVBoxLayout, QWidget

from app.widgets.text import label


class Choice(QWidget):
    """Radio buttons with explanations; `value` is empty until one is chosen."""

    chosen = Signal(str)

    def __init__(self, name: str, options: tuple[tuple[str, str, str], ...]) -> None:
        """`options` are (value, text with mnemonic, explanation or empty)."""
        super().__init__()
        self.setAccessibleName(name)
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QRadioButton] = {}
        self._column = column = QVBoxLayout(self)
        self._last: dict[str, QWidget] = {}
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for value, text, explanation in options:
            button = QRadioButton(text)
            button.setAccessibleDescription(f"{name} {explanation}".strip())
            self._group.addButton(button)
            self.buttons[value] = button
            self._last[value] = button
            column.addWidget(button)
            if explanation:
                self._last[value] = told = label(explanation, "hint")
                told.setContentsMargins(33, 0, 0, 6)
                column.addWidget(told)
        self._group.buttonClicked.connect(lambda _: self.chosen.emit(self.value))

    @property
    def value(self) -> str:
        """The value of the chosen option, or empty."""
        for value, button in self.buttons.items():
            if button.isChecked():
                return value
        return ""

    def add_below(self, value: str, widget: QWidget) -> None:
        """Put a widget under the option that it belongs to."""
        place = self._column.indexOf(self._last[value])
        self._column.insertWidget(place + 1, widget)

    def choose(self, value: str) -> None:
        """Show `value` as chosen, or none of them; no signal is sent."""
        self._group.setExclusive(False)
        for name, button in self.buttons.items():
            button.setChecked(name == value)
        self._group.setExclusive(True)
