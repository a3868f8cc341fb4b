"""No screen, and no settings of the person who runs the tests."""

from __future__ import annotations

import os
import sys

import pytest

from tests.app.fake_engine import FakeEngine


def pytest_configure(config):
    if not config.getoption("--headed", default=False):
        os.environ["QT_QPA_PLATFORM"] = "offscreen"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A home of its own, and settings that are forgotten."""
    from PySide6.QtCore import QCoreApplication, QSettings

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "user"))
    monkeypatch.setattr("app.flow.HOME", tmp_path / "Sfumato")
    monkeypatch.setattr("app.widgets.welcome.HOME", tmp_path / "Sfumato")
    QCoreApplication.setOrganizationName("Sfumato tests")
    QCoreApplication.setApplicationName(f"tests-{os.getpid()}")
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(
        QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path)
    )


@pytest.fixture(autouse=True)
def no_silent_crash(monkeypatch):
    """An exception in a slot fails the test (pytest-qt), and none opens a dialog."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def open_window(qtbot, engine):
    """Opens windows, and closes them when nothing runs any more."""
    from app import jobs
    from app.window import Window

    windows = []

    def open_one(folder=None):
        window = Window(engine, folder)
        windows.append(window)
        window.show()
        return window

    yield open_one
    engine.gate.set()
    for window in windows:
        for page in window.pages:
            page.stop()
    qtbot.waitUntil(lambda: not jobs.running(), timeout=20_000)
    for window in windows:
        window.close()
        window.deleteLater()


@pytest.fixture
def window(open_window):
    return open_window()


@pytest.fixture
def calm(qtbot):
    """Waits until nothing runs; on the budget page until the preview is there."""
    from app import jobs
    from app.pages.budget import BudgetPage

    def wait(window):
        def still():
            page = window.current
            if isinstance(page, BudgetPage) and page.ready() is not None:
                return bool(page.message.text)
            return not jobs.running()

        qtbot.waitUntil(still, timeout=20_000)

    return wait


@pytest.fixture
def at(window, engine, tmp_path, calm):
    """Leads a window to a page, by the buttons, with a recipe that trains a network."""

    def lead(key, recipe="starter"):
        pages = {page.key: page for page in window.pages}
        pages["dataset"].start_sample(tmp_path / "project")
        calm(window)
        window.state.change(recipe=recipe)
        steps = {
            "dataset": lambda: None,
            "checkpoint": lambda: (
                pages["checkpoint"].answer.buttons["no"].click()
                if recipe != "useful"
                else None
            ),
            "budget": lambda: None,
            "training": lambda: pages["training"].authorise.click(),
            "samples": lambda: pages["samples"].make.click(),
            "utility": lambda: pages["utility"].measure.click(),
            "release": lambda: None,
        }
        for name, act in steps.items():
            calm(window)
            if name == key:
                return pages[key]
            act()
            calm(window)
            window.next.click()
        raise AssertionError(key)

    return lead
