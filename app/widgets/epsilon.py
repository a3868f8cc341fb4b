"""Choosing ε: a slider for a feeling, a number for exactness, presets to start from."""

from __future__ import annotations

import math

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QHBoxLayout,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from app.widgets.number import indent
from app.widgets.text import label

LOWEST, HIGHEST = 0.1, 20.0
LARGEST = 1000.0
DECIMALS, USUAL_DECIMALS = 9, 2
NOTCHES = 400
STANDARD = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20)


class NumberBox(QDoubleSpinBox):
    """Shows two decimals, and more where there are more: never another number."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(DECIMALS)

    def textFromValue(self, value: float) -> str:
        text = super().textFromValue(value)
        shortest = len(text) - DECIMALS + USUAL_DECIMALS
        return text[:shortest] + text[shortest:].rstrip("0")


class EpsilonField(QWidget):
    """The slider snaps to round values; any value may be typed."""

    changed = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self._value = 0.0
        self.spin = NumberBox()
        self.spin.setRange(0.0, LARGEST)
        self.spin.setSingleStep(0.5)
        self.spin.setFixedWidth(120)
        indent(self.spin)
        self.spin.setAccessibleName(self.tr("Privacy budget ε"))
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, NOTCHES)
        self.slider.setPageStep(NOTCHES // 20)
        self.slider.setAccessibleName(self.tr("Privacy budget ε, as a slider"))
        self.presets = {
            1.0: QPushButton(self.tr("St&rict: 1")),
            3.0: QPushButton(self.tr("Ba&lanced: 3")),
            8.0: QPushButton(self.tr("Per&missive: 8")),
            10.0: QPushButton(self.tr("&As published: 10")),
        }
        self._lay_out()
        self.spin.valueChanged.connect(self._typed)
        self.slider.valueChanged.connect(self._slid)
        for value, button in self.presets.items():
            button.setCheckable(True)
            button.clicked.connect(lambda _, value=value: self._pick(value))

    @property
    def value(self) -> float:
        """ε as it was set, to the last digit, or as it was typed or picked since."""
        return self._value

    def set_value(self, value: float) -> None:
        """Show ε; no signal is sent."""
        self._value = value
        self.spin.blockSignals(True)
        self.spin.setMaximum(max(LARGEST, value))
        self.spin.setValue(value)
        self.spin.blockSignals(False)
        self._follow(value)

    def _lay_out(self) -> None:
        presets = QHBoxLayout()
        presets.setSpacing(8)
        for button in self.presets.values():
            presets.addWidget(button)
        presets.addStretch(1)
        name = label(self.tr("&Exactly"), "hint", wrap=False)
        name.setBuddy(self.spin)
        exact = QHBoxLayout()
        exact.setSpacing(12)
        exact.addWidget(self.slider, 1)
        exact.addSpacing(8)
        exact.addWidget(name)
        exact.addWidget(self.spin)
        ends = QHBoxLayout()
        ends.addWidget(label(self.tr("More privacy"), "hint", wrap=False))
        ends.addStretch(1)
        ends.addWidget(label(self.tr("Better images"), "hint", wrap=False))
        # Below the slider only.
        ends.addSpacing(self.spin.width() + name.sizeHint().width() + 32)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(presets)
        column.addLayout(exact)
        column.addLayout(ends)

    def _slid(self, notch: int) -> None:
        exact = LOWEST * (HIGHEST / LOWEST) ** (notch / NOTCHES)
        self.spin.setValue(
            min(STANDARD, key=lambda value: abs(math.log(value / exact)))
        )

    def _pick(self, preset: float) -> None:
        self.spin.setValue(preset)
        # Clicking the preset in force must not release its button.
        self._follow(preset)

    def _typed(self, value: float) -> None:
        self._value = value
        self._follow(value)
        self.changed.emit(value)

    def _follow(self, value: float) -> None:
        """Let the slider and the presets show what the number field holds."""
        inside = min(max(value, LOWEST), HIGHEST)
        notch = NOTCHES * math.log(inside / LOWEST) / math.log(HIGHEST / LOWEST)
        if not self.slider.isSliderDown():
            self.slider.blockSignals(True)
            self.slider.setValue(round(notch))
            self.slider.blockSignals(False)
        for preset, button in self.presets.items():
            button.setChecked(math.isclose(preset, value))
