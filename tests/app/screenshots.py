"""Pictures of every page: `python -m tests.app.screenshots OUT [PROJECT_FOLDER]`.

Without a project folder the pages are filled by the stand-in engine; with one, they
show that project's own results as far as it has got.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LONGEST_WAIT = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("project", type=Path, nargs="?")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--size", default="1100x760")
    options = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

    from PySide6.QtCore import QCoreApplication, QSettings, QStandardPaths, Qt
    from PySide6.QtWidgets import QApplication

    QStandardPaths.setTestModeEnabled(True)
    QCoreApplication.setOrganizationName("Sfumato screenshots")
    QSettings().clear()
    application = QApplication(sys.argv[:1])

    from app import theme

    theme.install(application)
    if options.dark:
        theme.wear(application, Qt.ColorScheme.Dark)
    options.out.mkdir(parents=True, exist_ok=True)
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as home:
        camera = Camera(options.out, width, height)
        if options.project is None:
            photograph_stand_in(camera, Path(home))
        else:
            photograph_project(camera, options.project)


class Camera:
    """Waits for the window to be calm, then takes the picture."""

    def __init__(self, out: Path, width: int, height: int) -> None:
        self.out = out
        self.size = width, height

    @staticmethod
    def events() -> None:
        """Let the window live for a moment."""
        from PySide6.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(20, loop.quit)
        loop.exec()

    def wait(self, until: Callable[[], bool]) -> None:
        import time

        end = time.monotonic() + LONGEST_WAIT
        while not until():
            if time.monotonic() > end:
                raise SystemExit("the window did not get where it should")
            self.events()

    def calm(self, window: object) -> None:
        from app import jobs

        budget = window.pages[2]
        self.wait(
            lambda: (
                not jobs.running()
                and (window.current is not budget or budget.ready() is None)
            )
        )
        for _ in range(5):
            self.events()

    def take(self, window: object, name: str) -> None:
        self.calm(window)
        window.grab().save(str(self.out / f"{name}.png"))
        area = window._areas[window._current]
        bar = area.verticalScrollBar()
        if bar.maximum() > 0:
            bar.setValue(bar.maximum())
            self.events()
            window.grab().save(str(self.out / f"{name}-below.png"))
            bar.setValue(0)

    def show(self, engine: object, folder: Path | None = None) -> object:
        from app.window import Window

        window = Window(engine, folder)
        window.resize(*self.size)
        window.show()
        return window


def photograph_stand_in(camera: Camera, home: Path) -> None:
    from tests.app.fake_engine import FakeEngine

    engine = FakeEngine()
    window = camera.show(engine)
    camera.take(window, "0-welcome")
    dataset, checkpoint, budget, training, samples, utility, release = window.pages
    dataset.start_sample(home / "lymph nodes")
    camera.take(window, "1-dataset")
    dataset.details.fold.button.click()
    camera.take(window, "1-dataset-details")
    dataset.details.look.click()
    camera.calm(window)
    window.grab().save(str(camera.out / "1-dataset-looked-through.png"))
    camera.take(window, "1-dataset-after")
    dataset.details.fold.button.click()
    dataset.unit.buttons["patient"].click()
    camera.take(window, "1-dataset-undeclared")
    dataset.number.setValue(500)
    window.next.click()
    camera.calm(window)
    camera.take(window, "2-checkpoint-not-needed")
    window.next.click()
    camera.take(window, "3-budget-no-network")
    budget.recipe.setCurrentIndex(budget.recipe.findData("starter"))
    camera.events()
    window.grab().save(str(camera.out / "3-budget-checkpoint-needed.png"))
    window.back.click()
    checkpoint.answer.buttons["no"].click()
    camera.take(window, "2-checkpoint")
    window.next.click()
    camera.take(window, "3-budget")
    budget.epsilon.spin.setValue(12)
    budget.delta.setText("0.1")
    camera.events()
    window.grab().save(str(camera.out / "3-budget-wrong.png"))
    budget.delta.setText("1e-3")
    budget.epsilon.spin.setValue(3)
    camera.calm(window)
    window.next.click()
    camera.take(window, "4-training-review")
    engine.gate.clear()
    training.authorise.click()
    camera.wait(lambda: training._left.text().startswith("20 of"))
    window.grab().save(str(camera.out / "4-training.png"))
    training.pause.click()
    camera.take(window, "4-training-paused")
    engine.gate.set()
    training.resume.click()
    camera.take(window, "4-training-done")
    window.next.click()
    camera.calm(window)
    samples.number.setValue(1000)
    samples.make.click()
    camera.take(window, "5-samples")
    window.next.click()
    camera.take(window, "6-utility-before")
    utility.measure.click()
    camera.take(window, "6-utility")
    window.next.click()
    release.name.setText("Synthetic lymph node patches")
    camera.take(window, "7-release-before")
    release.export.click()
    camera.calm(window)
    release.verify.click()
    camera.take(window, "7-release")
    window.close()


def photograph_project(camera: Camera, folder: Path) -> None:
    from app.engine import PipelineEngine

    window = camera.show(PipelineEngine(), folder)
    camera.calm(window)
    for number, page in enumerate(window.pages):
        window.go_to(number)
        if window.current is page:
            camera.take(window, f"{number + 1}-{page.key}")
    window.close()


if __name__ == "__main__":
    main()
