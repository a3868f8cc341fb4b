"""What every page is: a title, what the step does, and whether one may go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from app.flow import State
from app.jobs import Job, Task
from app.widgets.message import Message
from app.widgets.stage import StagePanel
from app.widgets.text import label


class Page(QWidget):
    """One step of the wizard.

    A page shows the state, changes it through its own controls, and runs the stage of
    the pipeline that belongs to it. Override `enter` and `ready`; add to `column`.

    Signals:
        changed: `ready()` may answer differently now.
        opened: Another project is in the state; the window goes to its first open step.
        settled: A stage has ended, however it did.
        crashed: The traceback of a bug in a stage.
    """

    key: ClassVar[str]

    changed = Signal()
    opened = Signal()
    settled = Signal()
    crashed = Signal(str)

    def __init__(self, title: str, subtitle: str) -> None:
        super().__init__()
        self.title = title
        self.setAccessibleName(title)
        self.setAccessibleDescription(subtitle)
        self.state: State | None = None
        self.job: Job | None = None
        self.message = Message()
        self.stage = StagePanel()
        self.stage.stop_clicked.connect(self.stop)
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(14)
        heading = QVBoxLayout()
        heading.setSpacing(4)
        heading.addWidget(label(title, "title"))
        heading.addWidget(label(subtitle, "hint"))
        self.column.addLayout(heading)
        self.column.addWidget(self.message)
        self.column.addWidget(self.stage)

    def enter(self, state: State) -> None:
        """Show the state; called each time the page comes into view."""
        self.state = state

    def ready(self) -> str | None:
        """Why one may not go on yet, in one sentence; None when one may."""
        raise NotImplementedError

    def done(self) -> bool:
        """Whether the step itself was done, not just left out."""
        return self.ready() is None

    def summary(self) -> str:
        """What later pages say of this one, in a few words; only public figures."""
        return ""

    def default_focus(self) -> QWidget | None:
        """Where the keyboard starts on this page."""
        return None

    def busy(self, working: bool) -> None:
        """Lock or unlock the page's own controls around a job."""

    def run(
        self,
        name: str,
        task: Task,
        finished: Callable[[Any], None],
        *,
        panel: bool = True,
    ) -> Job | None:
        """Run a stage in a thread, show how far it is, and hand its result on.

        One stage at a time: a second one is refused with a message. `name` says in
        words what is being done; `panel` shows the bar and the stop button.
        """
        if self.refused_as_busy():
            return None
        assert self.state is not None
        self.message.clear()
        job = Job(task)
        job.finished.connect(finished)
        job.failed.connect(self.refuse)
        job.crashed.connect(self._crashed)
        job.stopped.connect(self.stopped)
        if panel:
            self.stage.begin(name)
            job.progressed.connect(self.stage.show_progress)
        self.job = job
        self.state.busy = self.key
        # First in, before the result is handed on: a page is free when it hears of it.
        job.ending.connect(self._free)
        job.ended.connect(self.changed)
        job.ended.connect(self.settled)
        self.busy(True)
        self.changed.emit()
        job.start()
        return job

    def refused_as_busy(self) -> bool:
        """Whether a stage runs already, of this page or another; if so, says so."""
        assert self.state is not None
        if self.state.busy:
            self.refuse(
                self.tr(
                    "Wait until the step {other} has finished, or stop it there."
                ).format(other=self.state.busy)
            )
        return bool(self.state.busy)

    def stop(self) -> None:
        """Ask the running stage to stop at its next safe point."""
        if self.job is not None:
            self.job.stop()
            self.changed.emit()

    def refuse(self, text: str) -> None:
        """Say what went wrong, and bring it into view."""
        self.message.error(text)
        self.reveal(self.message)

    def reveal(self, widget: QWidget) -> None:
        """Scroll to a widget once the layout has made room for it."""
        area: QWidget | None = self.parentWidget()
        while area is not None and not isinstance(area, QScrollArea):
            area = area.parentWidget()
        if area is not None:
            QTimer.singleShot(0, lambda: area.ensureWidgetVisible(widget, 0, 24))

    def stopped(self) -> None:
        """The stage has stopped because it was asked to."""
        self.message.note(
            self.tr(
                "Stopped. Nothing of this step is kept: started again, it begins anew."
            )
        )

    def _free(self) -> None:
        assert self.state is not None
        self.job = None
        self.state.busy = ""
        self.stage.end()
        self.busy(False)

    def _crashed(self, text: str) -> None:
        self.refuse(
            self.tr("This step met a bug in Sfumato. What was done before is kept.")
        )
        self.crashed.emit(text)
