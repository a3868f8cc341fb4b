"""Jobs end with exactly one signal, and progress never floods."""

from __future__ import annotations

import threading

import pytest

from app import jobs
from app.jobs import Job, Latest
from core.errors import Stopped, UserError


@pytest.fixture
def heard(qtbot):
    """Runs a task; gives back what was signalled, in order."""

    def run(task, act=lambda job: None):
        job, said = Job(task), []
        job.progressed.connect(lambda value: said.append(("progressed", value)))
        job.finished.connect(lambda value: said.append(("finished", value)))
        job.failed.connect(lambda value: said.append(("failed", value)))
        job.crashed.connect(lambda value: said.append(("crashed", value)))
        job.stopped.connect(lambda: said.append(("stopped", None)))
        with qtbot.waitSignal(job.ended, timeout=10_000):
            job.start()
            act(job)
        assert job not in jobs.running()
        return said

    return run


def test_a_figure_stands_until_it_is_replaced(heard):
    def task(watcher):
        watcher.progress("Training", 1, 3, epsilon=7.5)
        watcher.progress("Training", 2, 3)

    (_, last), _ = heard(task)
    assert (last.done, dict(last.figures)) == (2, {"epsilon": 7.5})


def test_a_result_arrives_as_it_was_returned(heard):
    result = object()
    assert heard(lambda _: result) == [("finished", result)]


def test_a_task_runs_in_another_thread(heard):
    ((_, thread),) = heard(lambda _: threading.get_ident())
    assert thread != threading.get_ident()


def test_a_user_error_is_passed_on_word_for_word(heard):
    def task(_):
        raise UserError("The folder is empty: choose another.")

    assert heard(task) == [("failed", "The folder is empty: choose another.")]


def test_a_bug_arrives_as_its_traceback(heard):
    def task(_):
        raise ZeroDivisionError("seven")

    ((signal, text),) = heard(task)
    assert signal == "crashed"
    assert "ZeroDivisionError: seven" in text
    assert "in task" in text


def test_a_stop_reaches_the_task_at_its_next_safe_point(heard):
    begun = threading.Event()

    def task(watcher):
        begun.set()
        while not watcher.stop_requested():
            threading.Event().wait(0.001)
        raise Stopped

    def stop(job):
        assert begun.wait(10)
        job.stop()
        assert job.stopping

    assert heard(task, stop) == [("stopped", None)]


def test_thousands_of_reports_become_a_few_and_the_last_one_arrives(heard):
    def task(watcher):
        for done in range(20_001):
            watcher.progress("Counting", done, 20_000)

    *reports, (last, _) = heard(task)
    assert last == "finished"
    assert reports[-1][1].done == 20_000
    assert len(reports) < 100


def test_only_the_answer_to_the_newest_question_arrives(qtbot):
    gate, answers, latest = threading.Event(), [], None
    from PySide6.QtCore import QObject

    parent = QObject()
    latest = Latest(parent)
    latest.answered.connect(answers.append)
    begun = threading.Event()

    def slow(_):
        begun.set()
        gate.wait(10)
        return "old"

    latest.ask(slow)
    qtbot.waitUntil(begun.is_set, timeout=10_000)
    latest.ask(lambda _: "newer")
    latest.ask(lambda _: "newest")
    gate.set()
    qtbot.waitUntil(lambda: bool(answers), timeout=10_000)
    qtbot.waitUntil(lambda: not jobs.running(), timeout=10_000)
    assert answers == ["newest"]


def test_a_forgotten_question_is_not_answered(qtbot):
    from PySide6.QtCore import QObject

    parent = QObject()
    latest, answers, gate = Latest(parent), [], threading.Event()
    latest.answered.connect(answers.append)
    begun = threading.Event()

    def slow(_):
        begun.set()
        gate.wait(10)
        return "unwanted"

    latest.ask(slow)
    qtbot.waitUntil(begun.is_set, timeout=10_000)
    latest.forget()
    gate.set()
    qtbot.waitUntil(lambda: not jobs.running(), timeout=10_000)
    assert answers == []
