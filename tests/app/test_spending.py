"""What one reads before budget is spent, and when it was spent in vain."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QLabel

from app.widgets.meaning import _strength
from core.errors import Unfinishable, UserError

LOST = "The noisy statistics are incomplete: start a new project."


def told(widget):
    labels = widget.findChildren(QLabel)
    return " ".join(label.text() for label in labels if label.isVisibleTo(widget))


@pytest.mark.parametrize("key", ["budget", "training"])
def test_what_epsilon_means_for_one_is_told_before_it_is_spent(at, calm, window, key):
    page = at(key)
    calm(window)
    shown = told(page)
    assert "up to 22,030 times as likely" in shown and "e to the power 10" in shown
    assert "89.09 %" in shown and "98.23 %" in shown


def test_a_reopened_project_tells_it_too(at, engine, calm, window):
    page = at("training")
    window.state.preview = None
    window.go_to(3)
    calm(window)
    assert "22,030" in told(page) and page.authorise.isVisible()


def test_the_release_says_the_factor_in_figures(at):
    page = at("release")
    assert "at most 22,030 (e to the power 10)" in page._relation.text()


@pytest.mark.parametrize("key", ["budget", "training"])
def test_warnings_stand_where_the_budget_is_spent_as_well(
    at, engine, calm, window, key
):
    engine.warnings = ("δ = 1e-3 is above the customary limit.",)
    page = at(key)
    calm(window)
    assert page._warnings.text == engine.warnings[0]


def test_a_refused_kind_leaves_no_figures_as_if_they_were_its_own(
    at, engine, calm, window
):
    page = at("budget")
    calm(window)
    assert not page._working.isVisible()
    said = "No noise keeps this budget: raise ε."
    engine.fail["preview"] = UserError(said)
    page.recipe.setCurrentIndex(page.recipe.findData("upright"))
    calm(window)
    assert page._working.isVisible()
    assert page._working.text() == "What is shown below is of the values before."
    assert page.ready() == said == page.message.text


def test_a_refusal_is_brought_into_view(at, engine, calm, window, qtbot):
    page = at("budget")
    calm(window)
    bar = window._areas[2].verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 100)
    engine.fail["preview"] = UserError("No noise keeps this budget: raise ε.")
    bar.setValue(bar.maximum())
    page.epsilon.spin.setValue(2.0)
    calm(window)
    qtbot.waitUntil(lambda: bar.value() < 100)


def test_a_bound_that_says_next_to_nothing_is_called_so():
    assert _strength(8.642) == "ε = 8.65"
    assert _strength(969.59) == "practically none (ε = 970)"
    assert _strength(float("inf")) == "none"


def test_what_cannot_be_finished_offers_no_resume(
    at, engine, calm, window, qtbot, tmp_path
):
    page = at("training")
    engine.gate.clear()
    page.authorise.click()
    qtbot.waitUntil(lambda: engine.steps_done == 20, timeout=20_000)
    page.pause.click()
    calm(window)
    assert page.resume.isVisible() and page._pause_means.isVisible()
    engine.fail["fine_tune"] = Unfinishable(LOST)
    page.resume.click()
    calm(window)
    assert page.message.text == LOST
    assert page._activity.text() == "This project cannot be finished"
    for widget in (page.resume, page._pause_means, page._steps):
        assert not widget.isVisible()
    assert page.ready() == (
        "Start a new project; ε = 7.08 stays charged on these images."
    )
    window.pages[0].start_sample(tmp_path / "another")
    calm(window)
    assert not window.state.lost
