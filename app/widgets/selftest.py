"""The custodian's self-test: start it, watch it, read its verdict."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.engine import Engine
from app.jobs import Job
from app.widgets.message import Message
from app.widgets.stage import StagePanel
from app.widgets.text import label

if TYPE_CHECKING:
    from core.privacy.selftest.findings import Finding
    from core.privacy.selftest.report import SelfTest


WIDTH, LOW, HIGH = 760, 270, 640
"""Of the dialog, before and after there is something to read."""


class SelfTestDialog(QDialog):
    """Runs the self-test in a thread; closing the dialog stops it.

    Signals:
        crashed: The traceback of a bug in the test itself.
    """

    crashed = Signal(str)

    def __init__(self, engine: Engine, parent: QWidget) -> None:
        super().__init__(parent)
        self._engine = engine
        self._job: Job | None = None
        self._found: SelfTest | None = None
        self.setWindowTitle(self.tr("Check the privacy engine"))
        self.resize(WIDTH, LOW)
        self.message = Message()
        self.stage = StagePanel()
        self.stage.stop_clicked.connect(self._stop)
        self.results = QTextBrowser()
        self.results.setAccessibleName(self.tr("Results of the check"))
        self.results.setTabChangesFocus(True)
        self.results.document().setDocumentMargin(14)
        self.results.hide()
        self.begin = QPushButton(self.tr("Start the &check"))
        self.begin.setProperty("primary", True)
        self.begin.setDefault(True)
        self.begin.clicked.connect(self._begin)
        self.copy = QPushButton(self.tr("Copy the &results"))
        self.copy.clicked.connect(self._copy)
        self.copy.hide()
        self.leave = QPushButton(self.tr("Close"))
        self.leave.clicked.connect(self.reject)
        # Not a QDialogButtonBox: its hidden buttons get in the way of the Tab key.
        buttons = QHBoxLayout()
        buttons.addStretch()
        for button in (self.begin, self.copy, self.leave):
            buttons.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(20, 18, 20, 18)
        column.setSpacing(12)
        column.addWidget(
            label(self.tr("Does Sfumato keep its promise on this computer?"), "heading")
        )
        column.addWidget(label(self._explanation()))
        column.addWidget(self.message)
        column.addWidget(self.stage)
        column.addWidget(self.results, 1)
        column.addStretch()
        column.addLayout(buttons)
        parent.installEventFilter(self)

    def _explanation(self) -> str:
        return self.tr(
            "This runs the code that protects your images on made-up numbers, and "
            "looks for what would make its promise wrong: noise that is too weak or "
            "repeated, a record that counts too much, a step that is not charged. Then "
            "it does the same with deliberately faulty copies, to see that the checks "
            "notice. It takes about a minute, reads none of your images and spends no "
            "budget."
        )

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The window does not wait for a test that nobody will read."""
        if watched is self.parent() and event.type() == QEvent.Type.Close:
            self._stop()
        return super().eventFilter(watched, event)

    def done(self, result: int) -> None:
        """Close; a test under way stops."""
        self._stop()
        self.parent().removeEventFilter(self)
        super().done(result)

    def _begin(self) -> None:
        self.message.clear()
        self.results.hide()
        self.copy.hide()
        self.begin.setEnabled(False)
        self.stage.begin(self.tr("Starting …"))
        self.stage.stop.setFocus()
        job = Job(self._engine.self_test)
        job.progressed.connect(self.stage.show_progress)
        job.ending.connect(self._free)
        job.finished.connect(self._show)
        job.failed.connect(self.message.error)
        job.crashed.connect(self._crashed)
        job.stopped.connect(self._stopped)
        self._job = job
        job.start()

    def _stop(self) -> None:
        if self._job is not None:
            self._job.stop()

    def _free(self) -> None:
        self._job = None
        self.begin.setText(self.tr("&Check again"))
        self.begin.setEnabled(True)
        self.begin.setFocus()
        self.stage.end()

    def _stopped(self) -> None:
        self.message.note(
            self.tr(
                "Stopped before the end, so there is no verdict. Nothing was spent."
            )
        )

    def _crashed(self, text: str) -> None:
        self.message.error(
            self.tr(
                "The check met a bug in Sfumato and has no verdict. Train nothing "
                "until it is cleared up; nothing was spent."
            )
        )
        self.crashed.emit(text)

    def _show(self, found: SelfTest) -> None:
        self._found = found
        told = f"{found.headline()} {found.advice()}"
        if found.clean:
            self.message.note(told, self.tr("Nothing found"))
        else:
            self.message.error(told, self.tr("Do not go on"))
        self.results.setHtml(self._page(found))
        self.results.show()
        self.resize(self.width(), max(self.height(), HIGH))
        self.copy.show()
        self.results.setFocus()

    def _copy(self) -> None:
        assert self._found is not None
        QGuiApplication.clipboard().setText(self._found.text())

    def _page(self, found: SelfTest) -> str:
        """All lines; what was violated first."""
        ordered = sorted(found.findings, key=lambda finding: not finding.violated)
        trials = "".join(
            "<br>{fault}: {seen} {check}".format(
                fault=escape(one.fault),
                seen=self.tr("noticed by")
                if one.seen
                else self._alarm(self.tr("OVERLOOKED by")),
                check=escape(one.check),
            )
            for one in found.confirmations
        )
        return (
            "".join(self._entry(finding) for finding in ordered)
            + f"<p><b>{self.tr('Trials with deliberate faults')}</b>{trials}</p>"
        )

    def _entry(self, finding: Finding) -> str:
        muted = theme.current().muted
        verdict = (
            self._alarm(self.tr("VIOLATION"))
            if finding.violated
            else self.tr("no violation detected")
        )
        seen = self.tr("Smallest fault it sees: {fault}.").format(
            fault=finding.smallest_fault
        )
        return (
            f"<p><b>{escape(finding.question)}</b><br>"
            f"{escape(finding.check)}: {verdict}<br>"
            f'<span style="color:{muted}">{escape(finding.measured())}<br>'
            f"{escape(seen)}</span></p>"
        )

    def _alarm(self, text: str) -> str:
        colour = theme.current().error_text
        return f'<b style="color:{colour}">{escape(text)}</b>'
