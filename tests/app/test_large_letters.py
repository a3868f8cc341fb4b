"""Nothing overlaps for people who need large letters."""

from __future__ import annotations

import re

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QApplication

from app import theme
from app.widgets.steps import StepList

LARGE = 1.6


@pytest.fixture
def large(qtbot):
    application = QApplication.instance()
    before, sheet = application.font(), application.styleSheet()
    font = application.font()
    font.setPointSizeF(font.pointSizeF() * LARGE)
    application.setFont(font)
    yield font
    application.setFont(before)
    application.setStyleSheet(sheet)


def test_a_step_has_room_for_its_name_and_its_state(qtbot, large):
    steps = StepList(["Dataset"])
    qtbot.addWidget(steps)
    steps.setFont(large)
    line = QFontMetrics(large).height()
    assert steps.sizeHintForRow(0) >= 2 * line + 14


def test_headings_grow_with_the_letters(qtbot, large):
    application = QApplication.instance()
    theme.wear(application, Qt.ColorScheme.Light)
    sheet = application.styleSheet()
    heading = int(re.search(r'"heading"\] \{ font-size: (\d+)px', sheet)[1])
    assert heading >= QFontMetrics(large).ascent()
