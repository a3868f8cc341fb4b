"""Ctrl-C asks to stop; only a second one, of a person's own, ends the program."""

from __future__ import annotations

import os
import signal

import pytest

from core import terminal
from core.events import Progress
from core.terminal import Bars, watching


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("echo", [signal.SIGINT, signal.SIGTERM])
def test_a_request_that_comes_twice_at_once_is_one(echo, capsys):
    """As under torchrun, which passes the terminal's Ctrl-C on to every process."""
    with watching() as watcher:
        assert not watcher.stop_requested()
        press()
        press(echo)
        assert watcher.stop_requested()
    assert capsys.readouterr().err.count("Stopping") == 1


def test_a_later_one_ends_the_program(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    moments = iter([10.0, 10.0 + 1.5 * terminal.ECHO])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(moments, 99.0))
    with pytest.raises(KeyboardInterrupt), watching():
        press()
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_printed_after_an_activity_has_its_own_line(capfd):
    bars = Bars()
    bars.report(Progress(activity="Reading", done=1, total=2))
    bars.report(Progress(activity="Reading", done=2, total=2))
    assert capfd.readouterr().err.endswith("\n")
