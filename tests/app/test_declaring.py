"""What the first page asks about a folder, and only when it matters; real reading."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import Qt

from app import flow
from app.engine import PipelineEngine
from core.events import Watcher
from tests.app.fake_engine import FakeEngine
from tests.core.data.fakes import camelyon17, class_folders


class ReadingEngine(FakeEngine):
    """The stand-in, with the real reading of images."""

    load_dataset = PipelineEngine.load_dataset


@pytest.fixture
def engine():
    return ReadingEngine()


@pytest.fixture
def begin(window, tmp_path, calm):
    """Chooses images on the first page and reads them."""

    def start(source):
        page = window.current
        page.welcome.images.set_path(source)
        page.welcome.project.set_path(tmp_path / "project")
        page.welcome.read.click()
        calm(window)
        return page

    return start


def deep(root, classes=("dark", "bright"), count=9):
    """Classes of 16-bit images."""
    for shade, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            values = np.full((9, 9), 100 * number + 2000 * shade, np.uint16)
            Image.fromarray(values).save(root / name / f"deep{number}.png")
    return root


def select(box, value):
    box.setCurrentIndex(box.findData(value))


def toggle(qtbot, classes, row):
    """Tick or untick a class with the keyboard."""
    classes.list.setCurrentRow(row)
    qtbot.keyClick(classes.list, Qt.Key.Key_Space)


def test_a_plain_folder_is_asked_but_for_classes_and_colour(begin, tmp_path, qtbot):
    page = begin(class_folders(tmp_path / "d", {"a": 9, "b": 9}))
    assert page.findings.isVisible() and page.reading.questions.wanted == ("grey",)
    assert "Confirm the classes" in page.ready()
    assert page.default_focus() is page.classes.list
    page.classes.confirm.click()
    assert "Declare how many" in page.ready()
    page.number.setValue(50)
    assert page.ready() is None and page.state.project.classes == ("a", "b")
    assert not page.classes.confirm.isEnabled()
    assert page.state.workspace.project.classes == ("a", "b")


def test_a_class_without_its_tick_is_left_out_and_comes_back(
    begin, window, tmp_path, calm, qtbot
):
    page = begin(class_folders(tmp_path / "d", {"a": 9, "b": 9, "c": 9}))
    toggle(qtbot, page.classes, 1)
    page.classes.confirm.click()
    calm(window)
    assert page.state.dataset.class_names == ("a", "c")
    page.number.setValue(50)
    assert page.state.project.classes == ("a", "c") and page.ready() is None
    shown = [page.classes.list.item(row).text() for row in range(3)]
    assert shown == ["a", "c", "b"]
    toggle(qtbot, page.classes, 2)
    assert "Confirm the classes" in page.ready()
    page.classes.confirm.click()
    calm(window)
    assert page.state.dataset.class_names == ("a", "b", "c")


def test_one_class_is_not_enough(begin, tmp_path, qtbot):
    page = begin(class_folders(tmp_path / "d", {"a": 9, "b": 9}))
    toggle(qtbot, page.classes, 0)
    assert not page.classes.confirm.isEnabled()
    assert "At least two" in page.classes._told.text()


def test_images_are_declared_grey_after_a_first_reading(begin, window, tmp_path, calm):
    """Who left the tick out would learn from three noisy channels instead of one."""
    page = begin(class_folders(tmp_path / "d", {"a": 9, "b": 9}))
    assert page.state.dataset.images.shape[3] == 3
    assert page.reading.isVisible() and not page.reading.again.isEnabled()
    page.classes.confirm.click()
    page.number.setValue(50)
    assert page.ready() is None and window.next.isEnabled()
    for grey, channels in ((True, 1), (False, 3)):
        page.reading.questions.grey.click()
        assert "not been read so yet" in page.reading._told.text()
        assert "Read the images again" in page.ready() and not window.next.isEnabled()
        page.reading.again.click()
        calm(window)
        assert page.state.project.grey is grey
        assert page.state.dataset.images.shape[3] == channels
        assert page.reading.questions.grey.isChecked() is grey
        assert not page.reading.again.isEnabled()


def test_deep_images_ask_for_their_window(begin, window, tmp_path, calm):
    page = begin(deep(tmp_path / "d"))
    questions = page.welcome.questions
    assert "more than 8 bits" in page.message.text
    assert window.state.workspace is None
    assert questions.window_field.isVisible() and not questions.columns.isVisible()
    assert not page.welcome.read.isEnabled()
    field = questions.window_field
    select(field.usual, "other")
    field.low.setText("4095")
    field.high.setText("0")
    assert not page.welcome.read.isEnabled()
    field.low.setText("-100")
    field.high.setText("4095")
    page.welcome.read.click()
    calm(window)
    assert page.state.project.window == "-100,4095"
    assert len(page.state.dataset) == 18
    assert page.reading.questions.window_field.value == "-100,4095"


def test_another_folder_is_not_asked_what_the_last_one_was(begin, tmp_path):
    page = begin(deep(tmp_path / "d"))
    page.welcome.images.set_path(tmp_path / "other")
    assert not page.welcome.questions.isVisible()
    assert page.welcome.read.isEnabled()
    assert page.welcome.questions.answers() == {}


def test_some_deep_images_are_told_of_and_may_be_read_after_all(
    begin, window, tmp_path, calm
):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9})
    page = begin(deep(root, ("a", "b"), count=2))
    reading = page.reading
    assert len(page.state.dataset) == 18
    assert "4 images were left out" in reading.note.text
    assert not reading.again.isEnabled() and not reading.pending
    # They may stay out while something else is changed, which nobody forgets to read.
    reading.questions.grey.click()
    assert reading.again.isEnabled() and reading.pending
    reading.questions.grey.click()
    select(reading.questions.window_field.usual, "0,4095")
    reading.again.click()
    calm(window)
    assert len(page.state.dataset) == 22 and reading.note.text == ""
    assert page.state.project.window == "0,4095"
    page.number.setValue(page.state.findings.train - 1)
    assert page.number.property("wrong") is True


@pytest.fixture
def ward(tmp_path):
    """A list with a hospital's own columns; two images name no patient."""
    root = class_folders(tmp_path / "ward", {"x": 16})
    rows = [["Bild", "Befund", "Fall"]]
    for number in range(16):
        rows.append([f"x/{number}.png", "ab"[number % 2], f"F{number // 2}"])
    rows[1][2] = rows[16][2] = ""
    with (root / "liste.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "liste.csv"


def test_the_columns_of_a_list_are_asked_for(begin, window, ward, calm):
    page = begin(ward)
    boxes = page.welcome.questions.columns.boxes
    assert all(box.isVisible() for box in boxes.values())
    offered = [boxes["label_column"].itemData(row) for row in range(4)]
    assert offered == ["", "Bild", "Befund", "Fall"]
    select(boxes["path_column"], "Bild")
    assert not page.welcome.read.isEnabled()
    select(boxes["label_column"], "Bild")
    assert "cannot say two things" in page.welcome._unanswered.text()
    select(boxes["label_column"], "Befund")
    select(boxes["unit_column"], "Fall")
    page.welcome.read.click()
    calm(window)
    missing = page.welcome.questions.missing_unit
    assert missing.isVisible() and " images name no Fall" in page.message.text
    assert boxes["unit_column"].currentData() == "Fall"
    missing.buttons["leave_out"].click()
    page.welcome.read.click()
    calm(window)
    assert page.state.dataset.unit_column == "Fall"
    assert len(page.state.dataset) == 14
    assert page.state.project.missing_unit == "leave_out"


def test_patients_of_a_list_may_be_named_after_a_first_reading(
    begin, window, ward, calm
):
    page = begin(ward)
    boxes = page.welcome.questions.columns.boxes
    select(boxes["path_column"], "Bild")
    select(boxes["label_column"], "Befund")
    page.welcome.read.click()
    calm(window)
    assert page.state.findings.patients is None
    reading = page.reading
    select(reading.questions.columns.boxes["unit_column"], "Fall")
    reading.again.click()
    calm(window)
    assert " images name no Fall" in page.message.text
    assert page.state.findings.patients is None, "nothing has changed yet"
    assert not reading.again.isEnabled()
    reading.questions.missing_unit.buttons["own_unit"].click()
    reading.again.click()
    calm(window)
    assert page.state.dataset.unit_column == "Fall"
    assert page.state.dataset.has_groups and len(page.state.dataset) == 16


def test_another_unit_can_be_chosen(begin, window, tmp_path, calm):
    page = begin(camelyon17(tmp_path / "d"))
    box = page.reading.questions.columns.boxes["unit_column"]
    assert [box.itemData(n) for n in range(3)] == ["patient", "slide", "hospital"]
    assert box.currentData() == "patient" and not page.reading.again.isEnabled()
    select(box, "hospital")
    page.reading.again.click()
    calm(window)
    assert page.state.dataset.unit_column == "hospital"
    assert box.currentData() == "hospital" and not page.reading.again.isEnabled()
    select(box, "patient")
    page.reading.again.click()
    calm(window)
    assert page.state.dataset.unit_column == "patient"
    assert page.unit.buttons["patient"].isEnabled()


def test_a_hospital_does_not_pass_for_its_patients(begin, window, tmp_path, calm):
    page = begin(camelyon17(tmp_path / "d"))
    page.unit.buttons["patient"].click()
    select(page.reading.questions.columns.boxes["unit_column"], "hospital")
    page.reading.again.click()
    calm(window)
    assert not page.unit.buttons["patient"].isEnabled()
    assert page.state.project.unit == "image"
    assert "hospital, which patients may share" in page.protection.note.text
    assert "× hospital" in " ".join(labels(page.findings))


def test_a_slide_does_not_pass_for_a_patient(begin, window, tmp_path, calm):
    page = begin(camelyon17(tmp_path / "d"))
    page.unit.buttons["patient"].click()
    select(page.reading.questions.columns.boxes["unit_column"], "slide")
    page.reading.again.click()
    calm(window)
    assert not page.unit.buttons["patient"].isEnabled()
    assert page.state.project.unit == "image"
    assert "grouped by slide" in page.protection.note.text
    assert "3 × slide" in " ".join(labels(page.findings))


def test_images_for_neither_are_not_counted_as_held_back(begin, tmp_path):
    """id_val of hospitals 0, 3 and 4 is of patients that are trained on."""
    page = begin(camelyon17(tmp_path / "d"))
    found = page.state.findings
    assert (found.train, found.held_out, found.unused) == (6, 8, 6)
    assert sum(of["held_out"] for of in page.state.inspection.counts.values()) == 8
    assert not page.findings._classes.isColumnHidden(3)
    texts = " ".join(text for text in labels(page.findings))
    assert "6 for training, 8 held back for testing. 6 for neither" in texts


def labels(widget):
    from PySide6.QtWidgets import QLabel

    return [child.text() for child in widget.findChildren(QLabel)]


def test_a_question_leaves_no_project_behind(engine, tmp_path):
    answer = flow.start_project(
        engine, tmp_path / "project", deep(tmp_path / "d"), Watcher()
    )
    assert answer.wanted == ("window",)
    with engine.open_workspace(tmp_path / "project") as workspace:
        assert workspace.project is None


def test_choices_are_fixed_once_budget_was_spent(begin, window, tmp_path, calm):
    page = begin(camelyon17(tmp_path / "d"))
    page.classes.confirm.click()
    page.number.setValue(500)
    window.state.fine_tuned = object()
    page.enter(window.state)
    assert not page.classes.list.isEnabled() and not page.classes.confirm.isEnabled()
    assert not page.reading.questions.isEnabled()
    assert page.ready() is None


def test_the_reduced_copies_can_be_kept_in_memory(begin, window, tmp_path):
    select(window.current.welcome.copies, "memory")
    page = begin(class_folders(tmp_path / "d", {"a": 9, "b": 9}))
    assert page.state.project.cache == "memory"
    assert list((tmp_path / "project/dataset/cache").iterdir()) == []


def test_without_a_keyring_the_other_ways_are_told(begin, window, tmp_path):
    import keyring
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        select(window.current.welcome.copies, "encrypted")
        page = begin(class_folders(tmp_path / "d", {"a": 9, "b": 9}))
    finally:
        keyring.set_keyring(before)
    assert "in memory only" in page.message.text
    assert window.state.workspace is None


def test_the_reduced_copies_can_be_erased(begin, window, tmp_path, calm):
    page = begin(class_folders(tmp_path / "d", {"a": 9, "b": 9}))
    cache = tmp_path / "project/dataset/cache"
    assert len(list(cache.iterdir())) == 1
    page.erase.click()
    calm(window)
    assert list(cache.iterdir()) == []
    assert window.state.workspace is None and window.state.dataset is None
    assert page.welcome.isVisible() and "erased" in page.message.text
    page.continue_project(tmp_path / "project")
    calm(window)
    assert len(window.state.dataset) == 18 and len(list(cache.iterdir())) == 1
