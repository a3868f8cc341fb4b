"""A whole number that is typed or stepped."""

from __future__ import annotations

from PySide6.QtWidgets import QAbstractSpinBox, QSpinBox

TEXT_MARGIN = 8


class NumberField(QSpinBox):
    """A spin box with thousands set apart.

    With `nothing`, the lowest value stands for "no number" and shows that word.
    """

    def __init__(self, name: str, least: int, most: int, nothing: str = "") -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setRange(least, most)
        self.setGroupSeparatorShown(True)
        self.setSpecialValueText(nothing)
        self.setFixedWidth(150)
        indent(self)


def indent(field: QAbstractSpinBox) -> None:
    """Keep the text off the border; a style sheet cannot reach the inner line."""
    field.lineEdit().setTextMargins(TEXT_MARGIN, 0, 0, 0)
