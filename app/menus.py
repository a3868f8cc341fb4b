"""The menu bar: opening a project, the look, and what the words mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QActionGroup, QKeySequence
from PySide6.QtWidgets import QApplication, QMessageBox

from app import theme
from app.glossary import GlossaryDialog
from app.widgets.selftest import SelfTestDialog

if TYPE_CHECKING:
    from app.window import Window


def add_menus(window: Window) -> None:
    """Give the window its menu bar."""
    from app.pages.dataset import DatasetPage

    project = window.menuBar().addMenu(window.tr("&Project"))
    project.addAction(
        window.tr("&Open a project folder …"),
        QKeySequence(QKeySequence.StandardKey.Open),
        window.page(DatasetPage).welcome.browse_project,
    )
    project.addSeparator()
    project.addAction(window.tr("&Quit"), QKeySequence("Ctrl+Q"), window.close)

    view = window.menuBar().addMenu(window.tr("&View"))
    group = QActionGroup(window)
    for text, scheme in (
        (window.tr("As the &system"), Qt.ColorScheme.Unknown),
        (window.tr("&Light"), Qt.ColorScheme.Light),
        (window.tr("&Dark"), Qt.ColorScheme.Dark),
    ):
        action = view.addAction(text, lambda scheme=scheme: _wear(scheme))
        action.setCheckable(True)
        action.setChecked(scheme == Qt.ColorScheme.Unknown)
        group.addAction(action)

    guide = window.menuBar().addMenu(window.tr("&Help"))
    guide.addAction(
        window.tr("What the &words mean"),
        QKeySequence(QKeySequence.StandardKey.HelpContents),
        lambda: GlossaryDialog(window).open(),
    )
    guide.addAction(
        window.tr("Check the &privacy engine …"),
        lambda: _check_engine(window),
    )
    guide.addAction(window.tr("&About Sfumato"), lambda: _about(window))


def _wear(scheme: Qt.ColorScheme) -> None:
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    application.styleHints().setColorScheme(scheme)
    # Platforms that know no schemes of their own do not send the change.
    theme.wear(application, scheme)


def _check_engine(window: Window) -> None:
    dialog = SelfTestDialog(window.state.engine, window)
    dialog.crashed.connect(window.show_crash)
    dialog.open()


def _about(window: Window) -> None:
    from importlib.metadata import version

    box = QMessageBox(window)
    box.setWindowTitle(window.tr("About Sfumato"))
    box.setText(f"Sfumato {version('sfumato')}")
    box.setInformativeText(
        window.tr(
            "Synthetic image datasets with a proven bound on what they reveal, made on "
            "your own computer. It opens no network connection.\n\nApache License 2.0. "
            "Qt is used under the LGPL, version 3."
        )
    )
    box.open()
