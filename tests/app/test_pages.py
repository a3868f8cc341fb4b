"""What each page asks for before one may go on, and what it shows."""

from __future__ import annotations

import re

import pytest
from PySide6.QtWidgets import QLabel

from app import flow
from app.pages import PAGES
from core.errors import Stopped, UserError
from core.events import Watcher


def test_the_pages_come_in_the_order_of_the_story():
    keys = [page.key for page in PAGES]
    assert keys == [
        "dataset",
        "checkpoint",
        "budget",
        "training",
        "samples",
        "utility",
        "release",
    ]


def test_without_images_one_cannot_go_on(window):
    assert "Choose images" in window.current.ready()
    assert not window.next.isEnabled()
    assert window._reason.text() == window.current.ready()


def test_choosing_images_suggests_a_project_folder(window, tmp_path):
    welcome = window.current.welcome
    assert not welcome.read.isEnabled()
    welcome.images.set_path(tmp_path / "lymph nodes")
    assert welcome.project.path == tmp_path / "Sfumato" / "lymph nodes"
    assert welcome.read.isEnabled()
    welcome.project.set_path(tmp_path / "mine")
    welcome.images.set_path(tmp_path / "other")
    assert welcome.project.path == tmp_path / "mine"


def test_a_wrong_folder_is_told_on_the_page_in_the_engines_words(
    window, tmp_path, calm
):
    welcome = window.current.welcome
    welcome.images.set_path(tmp_path / "nowhere")
    welcome.read.click()
    calm(window)
    assert "There is no folder" in window.current.message.text
    assert welcome.isVisible() and welcome.isEnabled()
    assert window.state.workspace is None


@pytest.mark.parametrize("grey", [False, True])
def test_images_are_grey_when_they_are_declared_so(window, tmp_path, calm, grey):
    welcome = window.current.welcome
    (tmp_path / "images").mkdir()
    welcome.images.set_path(tmp_path / "images")
    welcome.project.set_path(tmp_path / "project")
    welcome.grey.setChecked(grey)
    welcome.read.click()
    calm(window)
    assert window.state.project.grey is grey


def test_the_declared_number_must_not_be_below_what_was_found(at):
    page = at("dataset")
    found = page.state.findings.train
    page.number.setValue(found - 1)
    assert "must not be below" in page.ready()
    assert "declare that many or more" in page.declared.hint.text()
    assert page.number.property("wrong") is True
    page.number.setValue(found)
    assert page.ready() is None
    assert page.state.project.declared_count == found


def test_a_number_is_declared_by_the_custodian_and_never_by_the_images(
    window, tmp_path, calm
):
    """Noise and report depend on it: one image more must not change it."""
    welcome = window.current.welcome
    (tmp_path / "images").mkdir()
    welcome.images.set_path(tmp_path / "images")
    welcome.project.set_path(tmp_path / "project")
    welcome.read.click()
    calm(window)
    page = window.current
    assert window.state.project.declared_count is None
    assert page.number.value() == 0 and page.number.text() == "not declared"
    page.classes.confirm.click()
    page.unit.buttons["image"].click()
    assert "Declare how many" in page.ready()
    page.number.setValue(5_000)
    assert window.state.project.declared_count == 5_000
    assert page.ready() is None


def test_another_unit_wants_a_number_of_its_own(at):
    """As many images are not as many patients."""
    page = at("dataset")
    assert page.ready() is None
    page.unit.buttons["patient"].click()
    assert page.number.value() == 0 and page.state.project.declared_count is None
    assert "Declare how many" in page.ready()
    page.number.setValue(500)
    assert page.ready() is None and page.state.project.declared_count == 500


def test_image_level_is_said_not_to_protect_patients(at):
    page = at("dataset")
    assert page.unit.value == "image"
    assert "does not protect a patient" in page.protection.note.text
    page.unit.buttons["patient"].click()
    assert page.protection.note.text == ""
    assert page.state.project.unit == "patient"
    page.most.setValue(4)
    assert page.state.project.max_images_per_unit == 4


def test_without_patient_ids_patients_cannot_be_chosen(engine, at):
    engine.patients = False
    page = at("dataset")
    assert not page.unit.buttons["patient"].isEnabled()
    assert "does not say which images" in page.protection.note.text


def test_after_yes_only_a_kind_without_the_checkpoint_goes_on(at, window, calm):
    page = at("checkpoint")
    page.answer.buttons["yes"].click()
    assert "Choose another checkpoint" in page._answer_note.text
    assert not page.done()
    window.next.click()
    budget = window.current
    assert budget.key == "budget" and "cannot be used" in budget.ready()
    budget.recipe.setCurrentIndex(budget.recipe.findData("useful"))
    calm(window)
    assert budget.ready() is None


def test_the_checkpoint_question_must_be_answered(at):
    page = at("checkpoint")
    assert "Answer the question" in page.ready()
    page.answer.buttons["unsure"].click()
    assert page.ready() is None
    assert "not known" in page._answer_note.text
    assert page.state.project.overlap_answer == "unsure"


def test_an_older_run_without_an_answer_goes_on_and_can_be_given_one(at, monkeypatch):
    budget, page = at("budget"), at("checkpoint")
    for answered in (False, True):
        answer = "no" if answered else ""
        page.state.project = page.state.project.changed(overlap_answer=answer)
        for committed in (False, True):
            monkeypatch.setattr(type(page.state), "committed", committed)
            page.enter(page.state)
            assert page.answer.isEnabled() == (not answered or not committed)
            assert (page.ready() is None) == (answered or committed)
            assert (not budget._missing_of_checkpoint()) == (answered or committed)


def test_the_reason_is_kept_and_costs_no_new_plan(at, qtbot):
    page = at("checkpoint")
    page.answer.buttons["no"].click()
    page.state.plan = plan = object()
    qtbot.keyClicks(page.reason, "of 1998 ")
    assert page.state.project.overlap_reason == "of 1998"
    assert page.state.plan is plan
    page.enter(page.state)
    assert page.reason.text() == "of 1998"


def test_the_card_tells_what_was_answered_at_the_import(at):
    page = at("checkpoint")
    told = "\n".join(
        child.text() for frame in page._frames for child in frame.findChildren(QLabel)
    )
    assert "could not hold the patients of then (all were published in 1998)" in told
    assert "https://example.org/photographs" in told and "CC-BY-4.0" in told


def test_another_checkpoint_asks_the_question_again(at, qtbot):
    page = at("checkpoint")
    page.answer.buttons["no"].click()
    qtbot.keyClicks(page.reason, "known")
    page.buttons[1].click()
    assert page.answer.value == "" and page.reason.text() == ""
    assert page.state.project.overlap_reason == ""
    assert page.state.project.checkpoint == "photographs"
    assert "Answer the question" in page.ready()


def test_presets_slider_and_number_move_together(at, calm, window):
    page = at("budget")
    field = page.epsilon
    field.presets[3.0].click()
    assert field.value == 3.0
    assert field.presets[3.0].isChecked() and not field.presets[8.0].isChecked()
    field.slider.setValue(field.slider.maximum())
    assert field.value == 20.0
    field.spin.setValue(0.37)
    assert page.state.project.epsilon == pytest.approx(0.37)
    assert not any(button.isChecked() for button in field.presets.values())


@pytest.mark.parametrize(
    ("epsilon", "shown"),
    [(0.125, "0.125"), (0.005, "0.005"), (1 / 3, "0.333333333"), (3.0, "3.00"),
     (2000.0, "2000.00"), (1e-11, "0.00")],
)  # fmt: skip
def test_other_edits_leave_the_budget_as_it_is_to_the_last_digit(at, epsilon, shown):
    page = at("budget")
    wished = {"epsilon": epsilon, "delta": 1.23456789e-6}
    page.state.change(**wished)
    page.enter(page.state)
    assert page.epsilon.spin.text() == shown
    page.batch.setValue(32)
    page.steps.setValue(77)
    project = page.state.project
    assert {name: getattr(project, name) for name in wished} == wished
    assert (project.batch_size, project.steps) == (32, 77)
    page.delta.setText("1e-6")
    assert page.state.project.epsilon == epsilon
    assert page.state.project.delta == 1e-6
    page.epsilon.spin.setValue(0.25)
    assert page.state.project.epsilon == 0.25


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epsilon", 0.0, "ε must be above 0"),
        ("delta", "0.5", "δ must be below 1 /"),
        ("delta", "many", "Type a number above 0"),
        ("delta", "0", "Type a number above 0"),
        ("batch", 9_000_000, "The batch must be below"),
    ],
)
def test_a_wrong_budget_is_told_at_its_field_and_asks_nothing(
    at, engine, field, value, said
):
    page = at("budget")
    before = page.state.project
    widgets = {
        "epsilon": (page.epsilon.spin, page._epsilon_note),
        "delta": (page.delta, page._delta_note),
        "batch": (page.batch, page._batch_note),
    }
    widget, note = widgets[field]
    if isinstance(value, str):
        widget.setText(value)
    else:
        widget.setValue(value)
    assert said in page.ready()
    assert said in note.text()
    assert said in widget.accessibleDescription()
    assert page.state.project == before


def test_the_preview_shows_what_the_newest_values_buy(at, engine, calm, window):
    page = at("budget")
    calm(window)
    page.epsilon.spin.setValue(1.0)
    page.epsilon.spin.setValue(2.0)
    page.epsilon.spin.setValue(3.0)
    assert "Working out" in page.ready()
    calm(window)
    assert page.state.preview.noise_multiplier == pytest.approx(0.6 + 4 / 3)
    assert [project.epsilon for project in engine.previewed] == [10.0, 3.0]
    assert engine.channels == page.state.dataset.images.shape[3]
    assert page.curve._curve == page.state.preview.epsilon_curve
    assert "20.1 times" in page._sentence.text()


def test_a_recipe_without_a_network_shows_no_steps(at, calm, window):
    page = at("budget")
    assert page.curve.isVisible()
    page.recipe.setCurrentIndex(page.recipe.findData("useful"))
    calm(window)
    assert not page.curve.isVisible()
    labels = page._facts.findChildren(QLabel)
    told = " ".join(label.text() for label in labels if label.isVisible())
    assert "drawn from noisy statistics" in told and "each step" not in told
    for field in (page.batch, page.steps):
        assert not field.isEnabled()
        assert "trains no network" in field.accessibleDescription()
    page.recipe.setCurrentIndex(page.recipe.findData("upright"))
    calm(window)
    assert page.curve.isVisible()
    for field in (page.batch, page.steps):
        assert field.isEnabled()
        assert "trains no network" not in field.accessibleDescription()


def test_no_checkpoint_is_asked_for_where_none_is_used(at, calm, window):
    page = at("checkpoint", recipe="useful")
    assert "None is needed" in page._not_needed.text
    assert not page._asked.isVisible() and page._frames
    assert not any(frame.isVisible() for frame in page._frames)
    assert page.ready() is None and page.summary() == "No checkpoint"
    window.next.click()
    calm(window)
    budget = window.current
    assert budget.key == "budget" and budget.ready() is None
    budget.recipe.setCurrentIndex(budget.recipe.findData("upright"))
    assert "go back and answer" in budget.ready()
    assert not window.next.isEnabled()
    window.back.click()
    calm(window)
    assert page._asked.isVisible() and all(f.isVisible() for f in page._frames)
    assert page._not_needed.text == ""
    assert page.ready() == "Answer the question about these patients."
    page.answer.buttons["no"].click()
    window.next.click()
    calm(window)
    assert budget.ready() is None


def test_the_whole_way_without_a_checkpoint(at, calm, window):
    page = at("release", recipe="useful")
    assert "statistics measured" in window._summary.text()
    samples = next(page for page in window.pages if page.key == "samples")
    assert "like noise" in samples._drawn_how.text()
    page.export.click()
    calm(window)
    assert page.done()


def test_a_preview_of_other_values_says_so(at, calm, window):
    page = at("budget")
    calm(window)
    assert not page._working.isVisible()
    page.delta.setText("0.5")
    assert page._working.isVisible() and "values before" in page._working.text()
    page.delta.setText("1e-5")
    calm(window)
    assert not page._working.isVisible()


def test_steps_that_the_engine_refuses_can_be_taken_back(at, engine, calm, window):
    page = at("budget")
    page.recipe.setCurrentIndex(page.recipe.findData("useful"))
    calm(window)
    engine.fail["preview"] = UserError("No network is trained: leave steps empty.")
    page.epsilon.spin.setValue(2.0)
    calm(window)
    assert page.steps.isEnabled()


def test_the_preview_shows_what_others_get(at, calm, window):
    page = at("budget")
    page.epsilon.spin.setValue(2.0)
    calm(window)
    shown = " ".join(child.text() for child in page._facts.findChildren(QLabel))
    assert "a patient with 5 images: ε = 8.65" in shown


def test_what_the_engine_refuses_blocks_and_is_shown(at, engine, calm, window):
    page = at("budget")
    engine.fail["preview"] = UserError("No noise keeps this budget: raise ε.")
    page.epsilon.spin.setValue(0.2)
    calm(window)
    assert page.message.text == "No noise keeps this budget: raise ε."
    assert page.ready() is not None
    del engine.fail["preview"]
    page.epsilon.spin.setValue(3.0)
    calm(window)
    assert page.ready() is None and page.message.text == ""


def test_a_high_budget_is_warned_of_in_words(at):
    page = at("budget")
    page.epsilon.spin.setValue(15.0)
    assert "weak bound" in page._epsilon_note.text()
    page.epsilon.spin.setValue(1.0)
    assert "Strict" in page._epsilon_note.text()


def test_nothing_is_spent_before_it_is_authorised(at, engine):
    page = at("training")
    assert engine.steps_done == 0
    assert page.authorise.isVisible() and not page.pause.isVisible()
    assert "Authorise" in page.ready()
    assert not page.state.committed


def test_a_training_without_a_network_counts_no_steps(at, engine, calm, window):
    page = at("training")
    engine.steps = 0
    page.authorise.click()
    calm(window)
    assert "no network was trained" in page._left.text()


def test_a_pause_keeps_the_steps_and_resume_goes_on(at, engine, calm, window, qtbot):
    page = at("training")
    engine.gate.clear()
    page.authorise.click()
    qtbot.waitUntil(lambda: engine.steps_done == 20, timeout=20_000)
    assert page.running and "pause it" in page.ready()
    page.pause.click()
    calm(window)
    assert not page.running
    assert "Paused after 20 steps" in page._activity.text()
    assert "resume" in page.ready()
    assert page.state.committed
    engine.gate.set()
    page.resume.click()
    calm(window)
    assert page.ready() is None
    assert engine.steps_done == 40
    assert "ε = 10 of 10" in page._charged.text()


def test_a_failure_while_training_is_told_and_can_be_resumed(at, engine, calm, window):
    page = at("training")
    engine.fail["fine_tune"] = UserError("The disk is full: free some space.")
    page.authorise.click()
    calm(window)
    assert page.message.text == "The disk is full: free some space."
    assert page.ready() is not None
    del engine.fail["fine_tune"]
    page.authorise.click()
    calm(window)
    assert page.ready() is None


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), UserError("Full.")])
def test_what_a_broken_training_has_spent_fixes_the_choices(
    at, engine, calm, window, qtbot, error
):
    page = at("training")
    page.crashed.disconnect()  # No dialog.
    engine.gate.clear()
    page.authorise.click()
    qtbot.waitUntil(lambda: engine.steps_done == 20, timeout=20_000)
    engine.fail["fine_tune"] = error
    engine.gate.set()
    calm(window)
    assert page.state.committed
    assert not page.authorise.isVisible() and page.resume.isVisible()
    assert "Paused after" in page._activity.text() and page.message.text
    window.go_to(2)
    assert not window.current.epsilon.isEnabled()


def test_choices_are_fixed_once_budget_was_spent(at, window):
    at("samples")
    assert window.state.committed
    for number in (0, 1, 2):
        window.go_to(number)
        assert window.current.ready() is None
    dataset, checkpoint, budget = window.pages[:3]
    assert not dataset.number.isEnabled()
    assert not any(button.isEnabled() for button in dataset.unit.buttons.values())
    assert not checkpoint.answer.isEnabled()
    assert not any(button.isEnabled() for button in checkpoint.buttons)
    assert not budget.epsilon.isEnabled() and not budget.delta.isEnabled()


def test_before_there_are_images_the_page_keeps_to_its_top(at):
    page = at("samples")
    card = page.make.parentWidget()
    assert card.height() <= card.sizeHint().height() + 4


def test_the_gallery_shows_the_classes_in_turn_and_one_on_request(at, calm, window):
    page = at("samples")
    assert "Make the images" in page.ready()
    page.number.setValue(12)
    page.make.click()
    calm(window)
    images = page.gallery.images
    assert images.rowCount() == 24
    names = [images.data(images.index(row)) for row in range(4)]
    assert names == ["normal", "tumour", "normal", "tumour"]
    page.filter.setCurrentText("tumour")
    assert images.rowCount() == 12
    assert {images.data(images.index(row)) for row in range(12)} == {"tumour"}


def test_thumbnails_are_read_when_they_are_seen(at, calm, window):
    from PySide6.QtCore import Qt

    page = at("samples")
    page.number.setValue(80)
    page.make.click()
    calm(window)
    images = page.gallery.images
    page.gallery.grab()
    assert 0 < len(images._thumbnails) < images.rowCount()
    picture = images.data(images.index(0), Qt.ItemDataRole.DecorationRole)
    assert (picture.width(), picture.height()) == (96, 96)


def test_other_images_make_the_old_figures_void(at, calm, window):
    at("release")
    window.go_to(4)
    assert window.state.utility is not None
    window.current.make.click()
    calm(window)
    assert window.state.utility is None


def test_internal_figures_are_marked_so(at, calm, window):
    page = at("utility")
    assert page.ready() is None and not page.done()
    page.measure.click()
    calm(window)
    assert "Internal: do not publish" in page.banner.accessibleName()
    assert page._bars.isVisible()
    assert "Examined on 869" in page._tested.text()


@pytest.mark.parametrize(
    ("key", "stage", "button", "kept"),
    [
        ("samples", "synthesise", "make", "What was drawn is kept"),
        ("utility", "evaluate", "measure", "begins anew"),
        ("release", "export", "export", "begins anew"),
    ],
)
def test_stopping_says_what_is_kept(
    at, engine, calm, window, monkeypatch, key, stage, button, kept
):
    """Drawing goes on where it was stopped; a classifier half trained is of no use."""
    page = at(key)

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(engine, stage, stop)
    getattr(page, button).click()
    calm(window)
    assert kept in page.message.text


def test_a_release_is_exported_and_checked(at, calm, window):
    page = at("release")
    assert "ε = 10" in page._claim.text() and "each image" in page._claim.text()
    page.export.click()
    calm(window)
    folder = page.state.release
    assert folder.is_dir()
    assert page._where.text() == str(folder)
    assert page.destination.path != folder
    page.verify.click()
    calm(window)
    assert "Everything holds" in page._verdict.text
    (folder / "README.md").unlink()
    page.verify.click()
    calm(window)
    assert "do not pass this release on" in page._verdict.text
    assert page._checks.item(0, 0).text() == "README.md"


def test_an_export_that_fails_says_why_and_leaves_the_page(at, engine, calm, window):
    page = at("release")
    engine.fail["export"] = UserError("The folder is not empty: choose another.")
    page.export.click()
    calm(window)
    assert page.message.text == "The folder is not empty: choose another."
    assert page.state.release is None and page.export.isEnabled()


def test_one_stage_at_a_time(at, calm, window):
    page = at("samples")
    window.state.busy = "training"
    page.make.click()
    assert "Wait until" in page.message.text
    window.state.busy = ""


def test_words_that_promise_too_much_are_never_used(at, window):
    from PySide6.QtWidgets import QAbstractButton, QLabel

    at("release")
    told = [
        widget.text().lower()
        for kind in (QLabel, QAbstractButton)
        for widget in window.findChildren(kind)
    ]
    assert len(told) > 100
    for word in (r"anonym", r"verified private", r"\bsafe\b", r"guarantee"):
        assert not [text for text in told if re.search(word, text)]


def test_beside_an_open_project_another_can_be_begun_or_not(at, window):
    page = at("dataset")
    assert page.ready() is None and not page.back.isVisible()
    opened = window.state.workspace
    for back in (page.back.click, lambda: page.continue_project(opened.path)):
        page.other.click()
        assert page.welcome.isVisible() and not page.findings.isVisible()
        # What is seen is not what would be gone on with.
        assert "go back to the project" in page.ready() and not window.next.isEnabled()
        back()
        assert page.findings.isVisible() and not page.welcome.isVisible()
        assert page.ready() is None and window.state.workspace is opened


def test_what_runs_keeps_its_project(at, window, calm):
    page = at("dataset")
    window.state.busy = "training"
    workspace = window.state.workspace
    page.erase.click()
    assert "Wait until the step training" in page.message.text
    assert window.state.workspace is workspace and window.state.dataset is not None
    window.state.busy = ""


def test_a_started_page_of_another_project_forgets_the_first(window, tmp_path, calm):
    page = window.pages[0]
    page.start_sample(tmp_path / "one")
    calm(window)
    first = window.state.workspace
    page.start_sample(tmp_path / "two")
    calm(window)
    assert window.state.workspace.path == tmp_path / "two"
    flow.continue_project(window.state.engine, first.path, Watcher())
