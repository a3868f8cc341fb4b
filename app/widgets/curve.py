"""How ε grows with the steps of training, drawn by pyqtgraph once it is there."""

from __future__ import annotations

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.words import epsilon

HEIGHT = 190


class EpsilonCurve(QWidget):
    """Empty until the first curve; pyqtgraph is imported by whoever computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(HEIGHT)
        self.setAccessibleName(self.tr("ε used as training goes on"))
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._plot: QWidget | None = None
        self._curve: tuple[tuple[int, float], ...] = ()
        self._budget = 0.0

    @staticmethod
    def prepare() -> None:
        """Import pyqtgraph; call it in a worker thread, where it stalls nobody."""
        import pyqtgraph  # noqa: F401

    def show_curve(self, curve: tuple[tuple[int, float], ...], budget: float) -> None:
        """Draw (step, ε after it) below the line of the budget."""
        self._curve, self._budget = curve, budget
        if curve:
            steps, last = curve[-1]
            self.setAccessibleDescription(
                self.tr("ε reaches {last} after {steps} steps; budget {budget}").format(
                    last=epsilon(last), steps=f"{steps:,}", budget=epsilon(budget)
                )
            )
        self._draw()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and self._curve:
            self._draw()

    def _draw(self) -> None:
        import pyqtgraph

        colours = theme.current()
        if self._plot is None:
            self._plot = pyqtgraph.PlotWidget()
            self._plot.setAccessibleName(self.accessibleName())
            self._plot.setMouseEnabled(False, False)
            self._plot.hideButtons()
            self._plot.setMenuEnabled(False)
            self._plot.setFocusPolicy(self.focusPolicy())
            self._column.addWidget(self._plot)
        plot = self._plot
        plot.clear()
        plot.setBackground(colours.card)
        for side, text in (("left", "ε"), ("bottom", self.tr("step of training"))):
            axis = plot.getAxis(side)
            axis.setPen(colours.border)
            axis.setTextPen(colours.muted)
            axis.enableAutoSIPrefix(False)
            axis.setLabel(text, color=colours.muted)
        steps = [step for step, _ in self._curve]
        values = [value for _, value in self._curve]
        plot.plot(steps, values, pen=pyqtgraph.mkPen(colours.accent, width=3))
        line = pyqtgraph.InfiniteLine(
            self._budget,
            angle=0,
            pen=pyqtgraph.mkPen(colours.text, width=1.5, style=_dashes()),
            label=self.tr("your budget"),
            labelOpts={"color": colours.text, "position": 0.12, "anchors": _ANCHORS},
        )
        plot.addItem(line)
        top = max([self._budget, *values]) * 1.22 or 1.0
        plot.setRange(xRange=(0, max(steps, default=1)), yRange=(0, top), padding=0.01)


_ANCHORS = [(0.5, 1.05), (0.5, 1.05)]


def _dashes() -> object:
    from PySide6.QtCore import Qt

    return Qt.PenStyle.DashLine
