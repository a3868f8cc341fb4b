"""The window: moving between steps, opening where one stopped, and closing in peace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QScrollBar,
    QWidget,
)

from app import jobs
from app.crash import CrashDialog, redact


def states(window):
    return [window._steps.state(number) for number in range(len(window.pages))]


def test_a_walk_through_all_seven_pages(at, window, calm):
    page = at("release")
    assert states(window) == ["done"] * 6 + ["now"]
    page.export.click()
    calm(window)
    assert states(window) == ["done"] * 7
    assert not window.next.isVisible()
    assert "synthetic images" in window._summary.text()
    assert "ε = 10" in window._summary.text()


def test_states_are_told_in_words(at, window):
    at("budget")
    assert states(window) == ["done", "done", "now", *["not yet"] * 4]
    item = window._steps.item(1)
    spoken = item.data(Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "2 Checkpoint: done"


def test_a_step_ahead_cannot_be_opened_and_one_behind_can(at, window):
    at("checkpoint")
    window.go_to(3)
    assert window.current.key == "checkpoint"
    window._steps.picked.emit(0)
    assert window.current.key == "dataset"


@pytest.mark.parametrize(
    ("stop_at", "opens_at"),
    [
        ("checkpoint", "checkpoint"),
        ("training", "training"),
        ("samples", "samples"),
        ("utility", "utility"),
        ("release", "release"),
    ],
)
def test_a_project_opens_where_it_stopped(
    at, window, open_window, calm, qtbot, engine, stop_at, opens_at
):
    at(stop_at)
    folder = window.state.workspace.path
    window.close()
    assert window.state.workspace is None
    again = open_window(folder)
    qtbot.waitUntil(lambda: again.state.dataset is not None, timeout=20_000)
    calm(again)
    assert again.current.key == opens_at


def test_a_paused_training_opens_paused(at, window, open_window, calm, qtbot, engine):
    page = at("training")
    engine.gate.clear()
    page.authorise.click()
    qtbot.waitUntil(lambda: engine.steps_done == 20, timeout=20_000)
    page.pause.click()
    calm(window)
    folder = window.state.workspace.path
    window.close()
    engine.gate.set()
    again = open_window(folder)
    qtbot.waitUntil(lambda: again.current.key == "training", timeout=20_000)
    calm(again)
    assert again.current.resume.isVisible()
    assert "Paused after 20 steps" in again.current._activity.text()
    bar = again.current._steps
    assert (bar.value(), bar.maximum()) == (20, 40)
    assert not again.current.authorise.isVisible()


def test_a_folder_without_a_project_becomes_the_project_folder(open_window, tmp_path):
    window = open_window(tmp_path / "new")
    assert window.current.welcome.project.path == tmp_path / "new"
    assert not jobs.running()


def answer(window, text):
    (box,) = [box for box in window.findChildren(QMessageBox) if box.isVisible()]
    (button,) = [b for b in box.buttons() if b.text().replace("&", "") == text]
    button.click()


def test_closing_while_training_asks_and_keeping_goes_on(at, window, engine, qtbot):
    page = at("training")
    engine.gate.clear()
    page.authorise.click()
    qtbot.waitUntil(lambda: engine.steps_done == 20, timeout=20_000)
    window.close()
    answer(window, "Keep training")
    assert window.isVisible()
    engine.gate.set()
    qtbot.waitUntil(lambda: page.ready() is None, timeout=20_000)
    assert window.isVisible()


def test_closing_while_training_pauses_at_a_safe_point_first(at, window, engine, qtbot):
    page = at("training")
    engine.gate.clear()
    page.authorise.click()
    qtbot.waitUntil(lambda: engine.steps_done == 20, timeout=20_000)
    window.close()
    assert window.isVisible()
    answer(window, "Pause and close")
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=20_000)
    assert not engine.training.is_set()
    assert engine.steps_done == 20
    assert window.state.workspace is None


def test_the_window_stays_alive_while_a_stage_works(at, window, engine, qtbot):
    page = at("training")
    engine.gate.clear()
    page.authorise.click()
    qtbot.waitUntil(lambda: engine.steps_done == 20, timeout=20_000)
    window.back.click()
    assert window.current.key == "budget"
    assert states(window)[3] == "running"
    engine.gate.set()
    qtbot.waitUntil(lambda: page.ready() is None, timeout=20_000)


def test_a_bug_is_shown_as_a_bug_with_a_text_to_copy(at, window, engine, calm):
    page = at("samples")
    engine.fail["synthesise"] = ZeroDivisionError("seven")
    page.make.click()
    calm(window)
    (dialog,) = window.findChildren(CrashDialog)
    assert "ZeroDivisionError: seven" in dialog.text
    assert "a bug" in page.message.text
    dialog.close()


def test_a_bug_report_does_not_name_the_user(monkeypatch, tmp_path):
    assert redact(f"File {tmp_path}/images/a.png") == "File ~/images/a.png"


def controls(page):
    """What a person operates or reads off; not the parts that Qt makes of it."""
    kinds = (
        QAbstractButton,
        QAbstractItemView,
        QAbstractSlider,
        QAbstractSpinBox,
        QComboBox,
        QLineEdit,
        QProgressBar,
    )
    for widget in page.findChildren(QWidget):
        ancestor, whole = widget.parentWidget(), True
        while ancestor is not None and ancestor is not page:
            whole = whole and not isinstance(ancestor, kinds)
            ancestor = ancestor.parentWidget()
        if whole and isinstance(widget, kinds) and not isinstance(widget, QScrollBar):
            yield widget


def test_every_control_of_every_page_has_a_name(at, window, calm):
    page = at("release")
    page.export.click()
    calm(window)
    checked = 0
    for page in window.pages:
        buddies = {label.buddy() for label in page.findChildren(QLabel)}
        for widget in controls(page):
            text = widget.text() if isinstance(widget, QAbstractButton) else ""
            named = widget.accessibleName() or text or widget in buddies
            assert named, f"{page.key}: {widget}"
            checked += 1
    assert checked > 50


def test_the_keyboard_goes_over_a_page_from_top_to_bottom(at, window, qtbot):
    page = at("budget")
    first = page.epsilon.presets[1.0]
    first.setFocus()
    seen = []
    for _ in range(40):
        focused = window.focusWidget()
        if focused in seen:
            break
        seen.append(focused)
        qtbot.keyClick(focused, Qt.Key.Key_Tab)
    for earlier, later in (
        (first, page.epsilon.slider),
        (page.epsilon.slider, page.epsilon.spin),
        (page.epsilon.spin, page.delta),
        (page.delta, page.steps),
        (page.steps, window.back),
    ):
        assert seen.index(earlier) < seen.index(later)


def test_the_keyboard_finds_what_was_placed_after_the_page_was_shown(at, window, qtbot):
    """Cards that were hidden so far have no place yet when the page is refreshed."""
    page = at("budget")
    late = QPushButton("late", page)
    late.show()
    late.setFocus()
    place = page.epsilon.slider.mapTo(page, QPoint(-1, 0))
    late.setGeometry(place.x(), place.y(), 1, page.epsilon.slider.height())
    qtbot.keyClick(late, Qt.Key.Key_Tab)
    assert window.focusWidget() is page.epsilon.slider


def test_mnemonics_are_unique_on_each_page(at, window, calm):
    page = at("release")
    page.export.click()
    calm(window)
    shared = [action.text() for action in window.menuBar().actions()]
    shared += [window.back.text(), window.next.text()]
    for page in window.pages:
        window.go_to(window.pages.index(page))
        calm(window)
        assert_unique(shared + mnemonics(page), page.key)
        if page.key not in ("checkpoint", "budget"):  # They have nothing to stop.
            page.stage.begin("at work")
            assert_unique(shared + mnemonics(page), page.key)
            page.stage.end()
        if page.key == "dataset":
            page.other.click()
            assert_unique(shared + mnemonics(page), "another project")
            page.back.click()


def mnemonics(page) -> list[str]:
    """Texts of what a key leads to, as far as it is in sight."""
    return [
        widget.text()
        for widget in page.findChildren(QWidget)
        if isinstance(widget, QAbstractButton)
        or (isinstance(widget, QLabel) and widget.buddy())
        if widget.isVisibleTo(page)
    ]


def assert_unique(texts: list[str], where: str) -> None:
    keys = sorted(text[text.index("&") + 1].lower() for text in texts if "&" in text)
    assert keys == sorted(set(keys)), (where, keys)


def test_a_letter_leads_to_what_lies_below_the_fold(at, window, qtbot):
    page = at("dataset")
    window.resize(900, 640)
    window._areas[0].verticalScrollBar().setValue(0)
    qtbot.waitUntil(lambda: page.number.visibleRegion().isEmpty())
    qtbot.keyClick(window, Qt.Key.Key_D, Qt.KeyboardModifier.AltModifier)
    qtbot.keyRelease(window, Qt.Key.Key_Alt)
    assert window.focusWidget() is page.number
    qtbot.waitUntil(lambda: not page.number.visibleRegion().isEmpty())
    assert window._areas[0].verticalScrollBar().value() > 0


def test_focus_that_comes_back_moves_nothing(at, window, qtbot):
    page = at("dataset")
    window.resize(900, 640)
    bar = window._areas[0].verticalScrollBar()
    bar.setValue(0)
    qtbot.waitUntil(lambda: page.number.visibleRegion().isEmpty())
    window.next.setFocus()
    page.number.setFocus(Qt.FocusReason.ActiveWindowFocusReason)
    # What scrolls does so once these events are through.
    scrolled = []
    QTimer.singleShot(0, lambda: scrolled.append(bar.value()))
    qtbot.waitUntil(lambda: scrolled == [0])


def test_enter_presses_next(at, window, qtbot):
    page = at("dataset")
    page.number.setFocus()
    qtbot.keyClick(page.number, Qt.Key.Key_Return)
    assert window.current.key == "checkpoint"


def test_pages_fit_the_smallest_window(at, window, calm):
    at("release")
    window.resize(900, 640)
    for number, page in enumerate(window.pages):
        window.go_to(number)
        calm(window)
        area = window._areas[number]
        needed = area.widget().minimumSizeHint().width()
        assert needed <= area.viewport().width(), page.key


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="None is immortal from Python 3.12 on"
)
def test_the_qt_binding_keeps_count_of_its_references(qtbot):
    # PySide6 6.12.0 on Python 3.11 lost a reference at every call, until it crashed.
    before = sys.getrefcount(None)
    for _ in range(1000):
        QApplication.processEvents()
    assert before - sys.getrefcount(None) < 500


def test_opening_the_window_imports_no_torch():
    code = """
        import sys
        from PySide6.QtWidgets import QApplication
        application = QApplication([])
        from app import theme
        from app.engine import PipelineEngine
        from app.window import Window
        theme.install(application)
        window = Window(PipelineEngine())
        window.show()
        application.processEvents()
        heavy = {"torch", "diffusers", "opacus", "matplotlib", "pyqtgraph", "pandas"}
        print(sorted(heavy & set(sys.modules)))
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


def test_the_real_window_opens_on_a_screen(tmp_path):
    if shutil.which("Xvfb") is None or shutil.which("xvfb-run") is None:
        pytest.fail("Xvfb is missing. Install it: apt-get install -y xvfb xauth")
    code = """
        import sys
        from PySide6.QtCore import QTimer
        from PySide6.QtGui import QGuiApplication
        from app import main, window

        class Photographed(window.Window):
            def showEvent(self, event):
                super().showEvent(event)
                QTimer.singleShot(1500, self.photograph)

            def photograph(self):
                screen = QGuiApplication.primaryScreen()
                screen.grabWindow(self.winId()).save(sys.argv[1])
                print(QGuiApplication.platformName())
                self.close()

        window.Window = Photographed
        raise SystemExit(main.main([]))
    """
    picture = tmp_path / "window.png"
    script = tmp_path / "photograph.py"
    script.write_text(textwrap.dedent(code))
    ran = subprocess.run(
        [
            "xvfb-run",
            "-a",
            "-s",
            "-screen 0 1280x900x24",
            sys.executable,
            str(script),
            str(picture),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=os.getcwd(),
        env=os.environ
        | {
            "QT_QPA_PLATFORM": "xcb",
            "XDG_CONFIG_HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]),
        },
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "xcb"
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size == (1100, 760)
        colours = image.convert("RGB").getcolors(maxcolors=1_000_000)
    assert len(colours) > 50
    assert max(count for count, _ in colours) < 0.9 * 1100 * 760
