"""Who is protected, δ, and the kind of images: what is asked, kept and offered."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel

from app import flow
from core.events import Watcher
from core.privacy.budget import suggested_delta


@pytest.fixture
def begin(window, tmp_path, calm):
    """Reads images as a custodian does, and confirms the classes."""

    def start():
        welcome = window.current.welcome
        (tmp_path / "images").mkdir()
        welcome.images.set_path(tmp_path / "images")
        welcome.project.set_path(tmp_path / "project")
        welcome.read.click()
        calm(window)
        window.current.classes.confirm.click()
        return window.current

    return start


def test_who_is_protected_is_asked_where_patients_are_known(begin):
    page = begin()
    assert page.unit.value == ""
    assert list(page.unit.buttons) == ["patient", "image"]
    assert page.ready() == "Choose who is protected: each image, or each patient."
    assert page.default_focus() is page.unit.buttons["patient"]
    assert not page.number.isEnabled()
    assert "Choose first who" in page.declared.hint.text()
    assert page.declared._name.text() == "&Declared number"
    page.unit.buttons["image"].click()
    assert page.number.isEnabled() and "Declare how many" in page.ready()


def test_who_is_protected_is_still_asked_when_the_page_comes_back(begin, window):
    page = begin()
    page.enter(window.state)
    assert page.unit.value == ""
    page.unit.buttons["image"].click()
    page.enter(window.state)
    assert page.unit.value == "image"


def test_nothing_is_asked_where_nobody_has_several_images(begin, engine):
    engine.patients = False
    page = begin()
    assert page.unit.value == "image" and "Declare how many" in page.ready()


def test_a_declared_number_keeps_the_choice_for_the_next_day(
    begin, window, engine, tmp_path
):
    page = begin()
    page.unit.buttons["image"].click()
    page.number.setValue(5_000)
    page.number.setValue(0)
    assert page.number.isEnabled() and page.unit.value == "image"
    page.number.setValue(5_000)
    window.state.save()
    window.state.leave()
    opened = flow.continue_project(engine, tmp_path / "project", Watcher())
    window.state.adopt(opened)
    page.enter(window.state)
    assert page.unit.value == "image" and page.ready() is None


def test_other_groups_want_another_number(at, calm, window):
    page = at("dataset")
    assert page.state.project.declared_count
    page.read_again({"unit_column": "slide"})
    calm(window)
    assert page.state.project.declared_count is None and page.unit.value == ""


def test_most_images_of_a_patient_stand_under_the_patient(at):
    page = at("dataset")
    page.unit.buttons["patient"].click()
    places = [page.unit.buttons[name].y() for name in ("patient", "image")]
    page.unit.layout().activate()
    assert page.most.isVisible() and places[0] < places[1]
    assert page.protection._most.parentWidget() is page.unit


def test_a_declared_number_lowers_delta_and_never_raises_it(at):
    page = at("dataset")
    for number in (5_000, 70_000, 3_300_000):
        page.number.setValue(number)
        assert page.state.project.delta == suggested_delta(number)
    page.state.change(delta=1e-8)
    page.number.setValue(5_000)
    assert page.state.project.delta == 1e-8


def test_the_size_of_the_synthetic_images_is_told_first_and_last(at, window):
    at("release")
    dataset, release = window.pages[0], window.pages[-1]
    for page in (dataset.findings, release._contents):
        shown = " ".join(label.text() for label in page.findChildren(QLabel))
        assert "32 × 32 pixels" in shown
    shown = [label.text() for label in dataset.findings.findChildren(QLabel)]
    assert "Size of the synthetic images" in shown


def test_a_kind_that_does_not_fit_says_why(at, engine, calm, window):
    engine.unfit = {"upright": "Draws 28 × 28 pixels."}
    page = at("budget")
    row = page.recipe.findData("upright")
    item = page.recipe.model().item(row)
    assert not item.isEnabled() and item.toolTip() == engine.unfit["upright"]
    assert page.recipe.model().item(page.recipe.findData("useful")).isEnabled()
    assert page.kind.hint.text() == "1 kind locked: Draws 28 × 28 pixels."
    assert page.kind.hint.isVisible()


def test_the_kind_stands_above_what_it_means(at):
    page = at("budget")
    card = page._sentence.parentWidget()
    assert page.column.indexOf(page.kind) < page.column.indexOf(card)


def test_an_advised_kind_is_a_click_away(at, engine, calm, window):
    page = at("budget")
    calm(window)
    assert not page.better.isVisible()
    engine.better_kind = "upright"
    page.epsilon.spin.setValue(0.5)
    calm(window)
    assert page.better.isVisible()
    engine.better_kind = ""
    page.better.click()
    assert page.state.project.recipe == "upright" and not page.better.isVisible()


def test_an_advised_kind_that_does_not_fit_has_no_button(at, engine, calm, window):
    engine.unfit = {"upright": "Draws 28 × 28 pixels."}
    engine.better_kind = "upright"
    page = at("budget")
    calm(window)
    assert not page.better.isVisible()


def test_a_kind_with_a_network_asks_for_the_answer_only(at, calm, window):
    page = at("budget", recipe="useful")
    page.recipe.setCurrentIndex(page.recipe.findData("starter"))
    assert page.ready() == (
        "This kind uses a public network: go back and answer whether it could have "
        "seen these patients."
    )
    page.state.change(checkpoint="gone")
    assert "go back and choose one" in page.ready()


def test_a_checkpoint_that_the_kind_cannot_use_says_why(at, engine):
    engine.unfit = {"photographs": "Draws 64 × 64 pixels."}
    page = at("checkpoint")
    starter, photographs = page.buttons
    assert starter.isEnabled() and not photographs.isEnabled()
    assert engine.unfit["photographs"] in photographs.accessibleDescription()
    assert page._reasons[1].text() == engine.unfit["photographs"]
    assert page._reasons[1].isVisible() and not page._reasons[0].isVisible()
    page.answer.buttons["no"].click()
    assert page.ready() is None
    engine.unfit = {"starter": "Draws 64 × 64 pixels."}
    page.enter(page.state)
    assert page.ready() == "Choose a checkpoint that can be used."


def test_where_no_checkpoint_fits_the_kind_can_still_be_changed(at, engine):
    page = at("checkpoint")
    page.answer.buttons["no"].click()
    engine.unfit = dict.fromkeys(("starter", "photographs"), "Draws 64 × 64 pixels.")
    page.enter(page.state)
    assert page.ready() is None


def test_the_reason_is_read_out(at, engine):
    engine.unfit = {"upright": "Draws 28 × 28 pixels."}
    page = at("budget")
    item = page.recipe.model().item(page.recipe.findData("upright"))
    role = Qt.ItemDataRole.AccessibleDescriptionRole
    assert item.data(role) == engine.unfit["upright"]
