"""The self-test's dialog: one verdict in plain words, and it never holds anyone up."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QAbstractButton

from app import jobs
from app.crash import CrashDialog
from app.widgets.selftest import SelfTestDialog
from core.errors import UserError


@pytest.fixture
def dialog(window):
    """Opened from the Help menu."""
    (entry,) = [
        action
        for menu in window.menuBar().actions()
        for action in menu.menu().actions()
        if "privacy engine" in action.text()
    ]
    entry.trigger()
    (opened,) = window.findChildren(SelfTestDialog)
    return opened


@pytest.fixture
def run(dialog, qtbot):
    """Runs the check to its end."""

    def check():
        dialog.begin.click()
        qtbot.waitUntil(lambda: not jobs.running(), timeout=20_000)

    return check


def test_it_says_what_will_happen_before_it_starts(dialog):
    assert not jobs.running()
    assert dialog.isVisible() and dialog.begin.hasFocus()
    assert not dialog.results.isVisible() and not dialog.copy.isVisible()


def test_a_clean_check_says_so_and_promises_nothing(dialog, run):
    run()
    assert "No violation detected in 3 checks" in dialog.message.text
    assert "no proof" in dialog.message.text
    assert dialog.message.property("role") == "note"
    text = dialog.results.toPlainText()
    assert "noise strength: no violation detected" in text
    assert "(0.9979 to 1.0021)" in text
    assert "Smallest fault it sees: noise 0.27 %" in text
    assert "Claimed: epsilon 8.00" in text
    assert "no noise: noticed by noise strength" in text
    assert not dialog.stage.isVisible()


def test_a_violation_comes_first_and_says_what_to_do(dialog, run, engine):
    engine.weak_noise = True
    run()
    assert dialog.message.property("role") == "error"
    assert "Violation detected: noise strength" in dialog.message.text
    assert "train nothing" in dialog.message.text
    assert "Do not go on" in dialog.message.accessibleName()
    text = dialog.results.toPlainText()
    assert "noise strength: VIOLATION" in text
    assert text.index("noise strength") < text.index("batch limit")


def test_a_check_that_is_blind_is_not_taken_for_a_clean_one(dialog, run, engine):
    engine.blind_check = True
    run()
    assert dialog.message.property("role") == "error"
    assert "self-test itself is broken" in dialog.message.text
    assert "OVERLOOKED by noise strength" in dialog.results.toPlainText()


def test_it_can_be_run_again(dialog, run, engine):
    engine.weak_noise = True
    run()
    engine.weak_noise = False
    run()
    assert "No violation detected" in dialog.message.text
    assert "VIOLATION" not in dialog.results.toPlainText()


def half_way(dialog, engine, qtbot):
    engine.gate.clear()
    dialog.begin.click()
    qtbot.waitUntil(lambda: dialog.stage._bar.value() == 40, timeout=20_000)
    assert not dialog.begin.isEnabled() and dialog.stage.stop.hasFocus()


def test_it_can_be_stopped_and_then_has_no_verdict(dialog, engine, qtbot):
    half_way(dialog, engine, qtbot)
    dialog.stage.stop.click()
    qtbot.waitUntil(lambda: not jobs.running(), timeout=20_000)
    assert "no verdict" in dialog.message.text
    assert not dialog.results.isVisible() and dialog.begin.hasFocus()


def test_closing_the_dialog_stops_the_check(dialog, engine, qtbot):
    half_way(dialog, engine, qtbot)
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert not dialog.isVisible()
    qtbot.waitUntil(lambda: not jobs.running(), timeout=20_000)


def test_closing_the_window_does_not_wait_for_the_check(window, dialog, engine, qtbot):
    half_way(dialog, engine, qtbot)
    window.close()
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=20_000)
    assert not engine.gate.is_set()


def test_a_bug_has_no_verdict_and_is_shown_as_a_bug(window, dialog, run, engine):
    engine.fail["self_test"] = ZeroDivisionError("seven")
    run()
    assert "no verdict" in dialog.message.text
    (crash,) = window.findChildren(CrashDialog)
    assert "ZeroDivisionError: seven" in crash.text
    crash.close()


def test_what_the_custodian_can_put_right_is_shown_as_it_is(dialog, run, engine):
    engine.fail["self_test"] = UserError("The disk is full: make room.")
    run()
    assert dialog.message.text == "The disk is full: make room."


def test_the_results_can_be_copied_as_the_command_line_prints_them(dialog, run):
    run()
    dialog.copy.click()
    copied = QGuiApplication.clipboard().text()
    assert "no violation  noise strength: noise ÷ promise of a step" in copied
    assert "nothing was spent" in copied


def test_it_is_worked_by_keyboard_and_every_control_has_a_name(dialog, run, qtbot):
    qtbot.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: not jobs.running(), timeout=20_000)
    assert dialog.results.isVisible() and dialog.results.hasFocus()
    reached = []
    for _ in range(6):
        reached.append(dialog.focusWidget())
        qtbot.keyClick(dialog.focusWidget(), Qt.Key.Key_Tab)
    ways = [dialog.results, dialog.begin, dialog.copy, dialog.leave]
    assert reached == ways + ways[:2]
    for widget in reached:
        text = widget.text() if isinstance(widget, QAbstractButton) else ""
        assert widget.accessibleName() or text
    keys = [
        button.text().partition("&")[2][:1].lower()
        for button in (dialog.begin, dialog.copy, dialog.stage.stop)
    ]
    assert len(set(keys)) == 3 and all(keys)
