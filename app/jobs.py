"""Work that takes longer than a blink, in a thread of its own, with typed signals.

The window stays alive: a `Job` runs one task of the engine, passes its progress on at
most ten times a second, and ends with exactly one of four signals.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import replace

from PySide6.QtCore import QObject, Qt, QThread, QTimer, Signal, Slot

from core.errors import Stopped, UserError
from core.events import Progress, Watcher

Task = Callable[[Watcher], object]

MILLISECONDS_BETWEEN_REPORTS = 100
MILLISECONDS_OF_CALM = 300

_running: set[Job] = set()
"""Qt must never see a running thread's object collected."""


class _Worker(QObject):
    """Lives in the thread and does the work there."""

    ended = Signal(str, object)

    def __init__(self, task: Task, stop: threading.Event) -> None:
        super().__init__()
        self._task = task
        self._stop = stop
        self.latest: Progress | None = None

    @Slot()
    def run(self) -> None:
        watcher = Watcher(report=self._report, stop_requested=self._stop.is_set)
        try:
            outcome: tuple[str, object] = ("finished", self._task(watcher))
        except Stopped:
            outcome = ("stopped", None)
        except UserError as error:
            outcome = ("failed", str(error))
        except BaseException:
            outcome = ("crashed", traceback.format_exc())
        self.ended.emit(*outcome)

    def _report(self, progress: Progress) -> None:
        # The other thread looks for it when it has time: no signal, so no flood. A
        # figure stands until it is replaced, for its own report may never be looked at.
        figures = dict(self.latest.figures) if self.latest else {}
        self.latest = replace(progress, figures=figures | dict(progress.figures))


class Job(QObject):
    """One task in a thread. Connect the signals, then `start()`.

    Signals:
        progressed: A `Progress`, at most ten a second; the last one always arrives.
        finished: What the task returned.
        failed: The text of a `UserError`, to be shown as it is.
        crashed: The traceback of anything else: a bug.
        stopped: The task stopped because it was asked to.
        ending: Before any of the four, when the thread is gone.
        ended: After any of the four.
    """

    progressed = Signal(object)
    finished = Signal(object)
    failed = Signal(str)
    crashed = Signal(str)
    stopped = Signal()
    ending = Signal()
    ended = Signal()

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._stop = threading.Event()
        self._thread = QThread()
        self._worker = _Worker(task, self._stop)
        self._worker.moveToThread(self._thread)
        self._thread.started.connect(self._worker.run)
        self._shown: Progress | None = None
        self._clock = QTimer(self)
        self._clock.setInterval(MILLISECONDS_BETWEEN_REPORTS)
        self._clock.timeout.connect(self._look)
        self._worker.ended.connect(self._end, Qt.ConnectionType.QueuedConnection)

    def start(self) -> None:
        """Begin. The job keeps itself alive until it has ended."""
        _running.add(self)
        self._clock.start()
        self._thread.start()

    def stop(self) -> None:
        """Ask the task to stop at its next safe point; returns at once."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    @Slot()
    def _look(self) -> None:
        latest = self._worker.latest
        if latest is not None and latest is not self._shown:
            self._shown = latest
            self.progressed.emit(latest)

    @Slot(str, object)
    def _end(self, outcome: str, value: object) -> None:
        # The worker's last act was to send this, so the wait is over in an instant.
        self._thread.quit()
        self._thread.wait()
        self._clock.stop()
        self._look()
        _running.discard(self)
        self.ending.emit()
        signal = getattr(self, outcome)
        if outcome == "stopped":
            signal.emit()
        else:
            signal.emit(value)
        self.ended.emit()


def running() -> tuple[Job, ...]:
    """The jobs that have started and not ended."""
    return tuple(_running)


class Latest(QObject):
    """Answers only the newest of many questions, as for a preview while typing.

    A question waits until the asker is calm, one runs at a time, and the answer to a
    question that is no longer the newest is thrown away.
    """

    answered = Signal(object)
    failed = Signal(str)
    crashed = Signal(str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._question: Task | None = None
        self._job: Job | None = None
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(MILLISECONDS_OF_CALM)
        self._calm.timeout.connect(self._ask)

    def ask(self, question: Task) -> None:
        """Put a question in place of any that is still open."""
        self._question = question
        self._calm.start()

    def forget(self) -> None:
        """Drop the open question; an answer under way will not arrive."""
        self._question = None
        self._calm.stop()

    def _ask(self) -> None:
        if self._job is not None or self._question is None:
            return
        question = self._question
        job = Job(question)

        def pass_on(signal: Signal, value: object) -> None:
            if self._question is question:
                self._question = None
                signal.emit(value)

        def again() -> None:
            self._job = None
            if self._question is not None and not self._calm.isActive():
                self._ask()

        job.finished.connect(lambda answer: pass_on(self.answered, answer))
        job.failed.connect(lambda text: pass_on(self.failed, text))
        job.crashed.connect(lambda text: pass_on(self.crashed, text))
        job.ended.connect(again)
        self._job = job
        job.start()
