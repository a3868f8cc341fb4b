"""A bug is called a bug: a dialog with the text to copy, and no telemetry."""

from __future__ import annotations

import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from app.widgets.text import label


class CrashDialog(QDialog):
    """Shows a traceback without the user's home folder, ready to be copied."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("A bug in Sfumato"))
        self.resize(680, 440)
        self.text = redact(text)
        column = QVBoxLayout(self)
        column.setContentsMargins(20, 18, 20, 18)
        column.setSpacing(12)
        column.addWidget(
            label(self.tr("This is a bug in Sfumato, not your mistake."), "heading")
        )
        column.addWidget(
            label(
                self.tr(
                    "Your images and what was done so far are kept. Please send the "
                    "text below to those who look after Sfumato for you. Read it "
                    "first: it may name files."
                )
            )
        )
        details = QPlainTextEdit(self.text)
        details.setReadOnly(True)
        details.setTabChangesFocus(True)
        details.setAccessibleName(self.tr("Text of the bug report"))
        column.addWidget(details)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        copy = buttons.addButton(
            self.tr("&Copy the text"), QDialogButtonBox.ButtonRole.ActionRole
        )
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.text))
        buttons.rejected.connect(self.reject)
        column.addWidget(buttons)


class _Reporter(QObject):
    """Brings a crash of any thread to the thread of the window."""

    crashed = Signal(str)


def redact(text: str) -> str:
    """The text with the home folder, which names the user, shortened to ~."""
    return text.replace(str(Path.home()), "~")


def install(show: object) -> None:
    """Hand every uncaught exception to `show`, a slot that takes the traceback."""
    reporter = _Reporter()
    reporter.crashed.connect(show)

    def caught(
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(text)
        if issubclass(kind, Exception):
            reporter.crashed.emit(text)

    sys.excepthook = caught
    threading.excepthook = lambda hook: caught(
        hook.exc_type, hook.exc_value, hook.exc_traceback
    )
