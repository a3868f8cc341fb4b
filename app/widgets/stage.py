"""How far a running stage is: what it does, a bar, the time left, and a stop button."""

from __future__ import annotations

import time

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.widgets.text import label
from app.words import duration
from core.events import Progress

SECONDS_BEFORE_GUESSING = 3.0


class StagePanel(QWidget):
    """Hidden unless something runs."""

    stop_clicked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._activity = label(wrap=False)
        self._left = label("", "hint", wrap=False)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName(self.tr("Progress"))
        self.stop = QPushButton(self.tr("&Stop"))
        self.stop.clicked.connect(self._stop)
        words = QHBoxLayout()
        words.addWidget(self._activity, 1)
        words.addWidget(self._left)
        column = QVBoxLayout()
        column.setSpacing(6)
        column.addLayout(words)
        column.addWidget(self._bar)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        row.addLayout(column, 1)
        row.addWidget(self.stop)
        self._started = 0.0
        self._at_start = 0
        self._current = ""
        self.hide()

    def begin(self, activity: str) -> None:
        """Show the panel before the first report has come."""
        self._current = ""
        self._activity.setText(activity)
        self._left.setText("")
        self._bar.setRange(0, 0)
        self.stop.setEnabled(True)
        self.show()

    def show_progress(self, progress: Progress) -> None:
        """Show a report, and guess the time left from the pace so far."""
        now = time.monotonic()
        if progress.activity != self._current:
            self._current = progress.activity
            self._started, self._at_start = now, progress.done
        total = max(progress.total, 1)
        self._bar.setRange(0, total)
        self._bar.setValue(progress.done)
        if self.stop.isEnabled():
            self._activity.setText(progress.activity)
        self._bar.setAccessibleDescription(
            f"{progress.activity}: {progress.done:,} / {total:,}"
        )
        self._left.setText(f"{progress.done:,} / {total:,}{self._guess(progress, now)}")

    def end(self) -> None:
        """Nothing runs any more."""
        self.hide()

    def _guess(self, progress: Progress, now: float) -> str:
        done = progress.done - self._at_start
        passed = now - self._started
        if done <= 0 or passed < SECONDS_BEFORE_GUESSING:
            return ""
        left = passed / done * (progress.total - progress.done)
        return self.tr(" · {time} left").format(time=duration(left))

    def _stop(self) -> None:
        self.stop.setEnabled(False)
        self._activity.setText(self.tr("Stopping at the next safe point …"))
        self.stop_clicked.emit()
