"""What the first page tells of the images beyond the few lines for everybody."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QTableWidget

from app.engine import PipelineEngine
from app.widgets.declared import MANY
from app.widgets.details import DetailsCard
from core.data import inspect
from core.errors import UserError
from tests.app.fake_engine import FakeEngine
from tests.core.data.fakes import class_folders, image


class ReadingEngine(FakeEngine):
    """The stand-in, with the real reading of images."""

    load_dataset = PipelineEngine.load_dataset
    inspect = PipelineEngine.inspect


@pytest.fixture
def engine():
    return ReadingEngine()


@pytest.fixture
def ward(tmp_path):
    """Two classes of 40 images of many patients, two of them alike, nine damaged."""
    root = class_folders(tmp_path / "d", {"a": 40, "b": 40})
    for number in range(9):
        (root / "a" / f"bad{number}.png").write_bytes(b"bad")
    image(5, (64, 64)).save(root / "a" / "one.png")
    image(5, (64, 64)).save(root / "b" / "two.png", compress_level=0)
    files = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*.png"))]
    rows = [f"{file},p{number // 3}" for number, file in enumerate(files)]
    (root / "units.csv").write_text("\n".join(["file,unit", *rows]))
    return root


@pytest.fixture
def begin(window, tmp_path, calm):
    def start(source):
        window.current.start_images(tmp_path / "project", source)
        calm(window)
        return window.current

    return start


def texts(widget):
    """Everything that can be read of a widget."""
    said = [told.text() for told in widget.findChildren(QLabel) if told.isVisible()]
    for table in widget.findChildren(QTableWidget):
        if table.isVisible():
            for row in range(table.rowCount()):
                said += [table.item(row, c).text() for c in range(table.columnCount())]
    return said


def test_the_few_lines_first_and_the_rest_behind_a_button(begin, ward, qtbot):
    page = begin(ward)
    assert "cannot be decoded (9)" in texts(page.findings)
    assert not page.details.look.isVisible() and texts(page.details) == []
    page.details.fold.button.setFocus()
    qtbot.keyClick(page.details.fold.button, Qt.Key.Key_Space)
    said = texts(page.details)
    sizes = page.state.inspection.group_sizes
    assert sizes and all(f"{number:,} × unit" in said for number in sizes.values())
    assert "a/bad0.png" in said and "9" in said
    qtbot.keyClick(page.details.fold.button, Qt.Key.Key_Space)
    assert texts(page.details) == []


def test_looking_through_the_files_tells_what_inspect_tells(begin, window, ward, calm):
    page = begin(ward)
    before = page.state.inspection
    page.details.fold.button.click()
    page.details.look.click()
    assert page.job is not None and not page.details.isEnabled()
    calm(window)
    found = page.state.inspection
    assert found == inspect(ward) and found.counts == before.counts
    said = texts(page.details)
    assert "a/one.png" in said and "b/two.png" in said
    assert "At least 2 images look like an image of another unit" in " ".join(said)
    assert all(size in said for size in list(found.sizes)[:8])
    assert "RGB" in said
    assert not page.details.look.isVisible()


def test_what_cannot_be_looked_through_is_told(begin, window, ward, engine, calm):
    page = begin(ward)
    page.details.fold.button.click()

    def refuse(project, watcher):
        raise UserError("The disk is gone.")

    engine.inspect = refuse
    page.details.look.click()
    calm(window)
    assert page.message.text == "The disk is gone."
    assert page.details.look.isEnabled() and page.state.inspection.look_alikes is None


def test_another_reading_forgets_the_look_alikes(begin, window, ward, calm):
    page = begin(ward)
    page.details.look.click()
    calm(window)
    assert page.state.inspection.look_alikes == 2
    page.read_again({"classes": ("a", "b")})
    calm(window)
    assert page.state.inspection.look_alikes is None


def test_that_nobody_is_held_back_is_seen_at_once(begin, tmp_path):
    root = class_folders(tmp_path / "d", {"a": 4, "b": 4})
    files = [file.relative_to(root).as_posix() for file in root.rglob("*.png")]
    (root / "units.csv").write_text(
        "\n".join(["file,unit", *(f"{file},only" for file in files)])
    )
    page = begin(root)
    assert "No unit is held back" in page.findings._warnings.text


def test_images_without_units_are_told_of_as_such(qtbot, tmp_path):
    root = class_folders(tmp_path / "d", {"a": 4, "b": 4})
    card = DetailsCard()
    qtbot.addWidget(card)
    card.show()
    card.fold.button.click()
    card.show_inspection(inspect(root))
    said = " ".join(texts(card))
    assert "No two images were found that look alike" in said and "unit" not in said
    image(5, (64, 64)).save(root / "a" / "one.png")
    image(5, (64, 64)).save(root / "b" / "two.png", compress_level=0)
    card.show_inspection(inspect(root))
    assert "Copies of one image are not protected as a whole" in " ".join(texts(card))


def test_one_of_many_classes_can_be_searched_for(begin, tmp_path, qtbot):
    few = class_folders(tmp_path / "few", {"a": 3, "b": 3})
    page = begin(few)
    assert not page.classes.search.isVisible()
    names = {f"class {n}": 2 for n in range(MANY)} | {"Other": 2}
    page.read_again({"source": str(class_folders(tmp_path / "many", names))})
    qtbot.waitUntil(lambda: page.job is None, timeout=20_000)
    classes = page.classes
    assert classes.search.isVisible() and len(classes.ticked()) == MANY + 1
    qtbot.keyClicks(classes.search, "oth")
    shown = [
        classes.list.item(row).text()
        for row in range(classes.list.count())
        if not classes.list.isRowHidden(row)
    ]
    assert shown == ["Other"]
    qtbot.keyClick(classes.list, Qt.Key.Key_Space)
    assert len(classes.ticked()) == MANY and "Other" not in classes.ticked()
    classes.search.clear()
    assert not any(classes.list.isRowHidden(r) for r in range(classes.list.count()))


def test_the_keyboard_goes_from_the_details_to_the_classes(begin, window, ward, qtbot):
    page = begin(ward)
    page.details.fold.button.setFocus()
    qtbot.keyClick(window, Qt.Key.Key_Return)
    assert window.current is page and page.details.look.isVisible()
    qtbot.wait(1)
    seen = []
    for _ in range(12):
        qtbot.keyClick(window.focusWidget(), Qt.Key.Key_Tab)
        seen.append(window.focusWidget())
    assert seen.index(page.details.look) < seen.index(page.classes.list)
    assert seen.index(page.details.look) < seen.index(page.details._files)
    assert page.details.fold.button.text() and page.details._files.accessibleName()
