"""Page 1: which images, who is protected, and how many you say there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QWidget

from app import flow
from app.flow import Opened, State
from app.pages.base import Page
from app.widgets.declared import ClassesCard, ReadingCard
from app.widgets.details import DetailsCard
from app.widgets.findings import FindingsCard
from app.widgets.protection import NumberCard, ProtectionCard
from app.widgets.text import Card
from app.widgets.welcome import Welcome
from app.words import count
from core.privacy.budget import suggested_delta

if TYPE_CHECKING:
    from app.engine import Engine
    from core.data import Inspection
    from core.errors import Undeclared


class DatasetPage(Page):
    key = "dataset"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Dataset"),
            self.tr(
                "Choose the images to learn from. Sfumato sends nothing anywhere; what "
                "may leave is what you export on the last page."
            ),
        )
        self.welcome = Welcome()
        self.welcome.sample_wanted.connect(self.start_sample)
        self.welcome.images_wanted.connect(self.start_images)
        self.welcome.project_wanted.connect(self.continue_project)
        self.findings = FindingsCard()
        self.details = DetailsCard()
        self.details.wanted.connect(self.look_closer)
        self.details.fold.button.toggled.connect(lambda _: self._rearranged())
        self.classes = ClassesCard()
        self.classes.confirmed.connect(self._confirm)
        self.reading = ReadingCard()
        self.reading.wanted.connect(self.read_again)
        self.reading.questions.changed.connect(lambda: self.changed.emit())
        self.protection = ProtectionCard()
        self.protection.chosen.connect(self._protect)
        self.unit, self.most = self.protection.unit, self.protection.most
        self.declared = NumberCard()
        self.number = self.declared.number
        self.number.valueChanged.connect(self._declare)
        self.other = QPushButton(self.tr("Start a new pro&ject …"))
        self.other.clicked.connect(self._start_over)
        self.back = QPushButton(self.tr("B&ack to the project that is open"))
        self.back.clicked.connect(lambda: self._go_back())
        self.erase = QPushButton(self.tr("&Erase the reduced copies and close"))
        self.erase.clicked.connect(self.forget)
        for widget in (self.welcome, *self._cards()):
            self.column.addWidget(widget)
        row = QHBoxLayout()
        row.addWidget(self.other)
        row.addWidget(self.back)
        row.addStretch(1)
        row.addWidget(self.erase)
        self.column.addLayout(row)
        self.column.addStretch(1)
        self._show_project(False)

    def enter(self, state: State) -> None:
        super().enter(state)
        if state.dataset is None or state.findings is None or state.project is None:
            self._show_project(False)
            return
        assert state.inspection is not None
        self._show_project(True)
        self.findings.show_findings(
            state.project.source,
            state.dataset,
            state.findings,
            state.inspection.counts,
        )
        self.details.show_inspection(state.inspection)
        self.classes.show_classes(
            state.dataset, state.project.classes, fixed=state.committed
        )
        self.reading.show_dataset(state.dataset, state.project, fixed=state.committed)
        self._show_choices()

    def ready(self) -> str | None:
        state = self.state
        if self.job is not None:
            return self.tr("Wait until the images have been read.")
        if state is None or state.project is None or state.findings is None:
            return self.tr("Choose images first, or the sample dataset.")
        if self.welcome.isVisibleTo(self):
            return self.tr("Read other images, or go back to the project that is open.")
        if not self.classes.settled:
            return self.tr("Confirm the classes to learn.")
        if self.reading.pending:
            return self.tr("Read the images again, or take that change back.")
        if not state.unit_chosen:
            return self.tr("Choose who is protected: each image, or each patient.")
        if self._units_found() < 2:
            return self.tr("At least two are needed to learn from: choose more images.")
        if not self.number.value():
            return self.tr("Declare how many there are, as you would publish it.")
        if self.number.value() < self._units_found():
            return self.tr("The number you declare must not be below what was found.")
        return None

    def summary(self) -> str:
        if self.state is None or self.state.project is None:
            return ""
        project = self.state.project
        return self.tr("{number} declared, each {unit} protected").format(
            number=count(project.declared_count or 0, project.unit), unit=project.unit
        )

    def default_focus(self) -> QWidget | None:
        if self.welcome.isVisibleTo(self):
            return self.welcome.images.line
        if not self.classes.settled:
            return self.classes.list
        if self.state is not None and not self.state.unit_chosen:
            return self.unit.buttons["patient"]
        return self.number

    def busy(self, working: bool) -> None:
        buttons = (self.other, self.back, self.erase)
        for widget in (self.welcome, *self._cards(), *buttons):
            widget.setEnabled(not working)

    def open_folder(self, folder: Path) -> None:
        """Go on with the project in `folder`, or begin one there if it is empty."""
        if self._engine().holds_project(folder):
            self.continue_project(folder)
        else:
            self.welcome.pin(folder)

    def start_sample(self, folder: Path) -> None:
        """Make a project of the sample dataset."""
        engine = self._engine()
        self.run(
            self.tr("Drawing the sample dataset"),
            lambda watcher: flow.start_sample(engine, folder, watcher),
            self._adopt,
        )

    def start_images(
        self, folder: Path, source: Path, declared: dict[str, Any] | None = None
    ) -> None:
        """Make a project of the images in `source`, with what is declared of them."""
        engine = self._engine()
        self.run(
            self.tr("Reading images"),
            lambda watcher: flow.start_project(
                engine, folder, source, watcher, **(declared or {})
            ),
            self._adopt_or_ask,
        )

    def read_again(self, declared: dict[str, Any]) -> None:
        """Read the images of the open project with other declarations."""
        engine = self._engine()
        assert self.state is not None
        workspace, project = self.state.workspace, self.state.project
        assert workspace is not None and project is not None
        changed = project.changed(**declared)
        if changed.unit_column != project.unit_column:
            # Of other groups another number, and whom it protects is asked anew.
            changed = replace(changed, declared_count=None)
        self.run(
            self.tr("Reading images"),
            lambda watcher: flow.read_again(engine, workspace, changed, watcher),
            self._adopt_or_ask,
        )

    def look_closer(self) -> None:
        """Read the files once more, for sizes, kinds of pixels and look-alikes."""
        assert self.state is not None and self.state.project is not None
        engine, project = self._engine(), self.state.project
        self.run(
            self.tr("Looking through the files"),
            lambda watcher: engine.inspect(project, watcher),
            self._show_closer,
        )

    def forget(self) -> None:
        """Close the project, and delete the copies of private images that it keeps."""
        assert self.state is not None and self.state.workspace is not None
        # What trains or draws in the background still needs the project.
        if self.refused_as_busy():
            return
        engine, folder = self._engine(), self.state.workspace.path
        self.state.leave()
        self.enter(self.state)
        self.run(
            self.tr("Erasing the reduced copies"),
            lambda _: engine.forget(folder),
            lambda _: self.message.note(
                self.tr(
                    "The reduced copies are erased, and the project is closed. Your "
                    "images and all results are where they were; opening the project "
                    "reads the images again."
                )
            ),
            panel=False,
        )

    def _show_closer(self, found: Inspection) -> None:
        assert self.state is not None
        self.state.inspection = found
        self.details.show_inspection(found)
        self._rearranged()
        self.reveal(self.details)
        self.details.fold.button.setFocus()

    def _rearranged(self) -> None:
        """Have the keyboard follow the page, once the layout has settled."""
        QTimer.singleShot(0, self.changed.emit)

    def _confirm(self, classes: tuple[str, ...]) -> None:
        assert self.state is not None and self.state.dataset is not None
        if set(classes) != set(self.state.dataset.class_names):
            self.read_again({"classes": classes})
            return
        self.state.change(classes=classes)
        self.state.save()
        self.classes.show_classes(self.state.dataset, classes, fixed=False)
        if (first := self.default_focus()) is not None:
            first.setFocus()
        self.changed.emit()

    def _adopt_or_ask(self, answer: Opened | Undeclared) -> None:
        if isinstance(answer, Opened):
            self._adopt(answer)
            if (first := self.default_focus()) is not None:
                first.setFocus()
            return
        asking = self.welcome if self.welcome.isVisibleTo(self) else self.reading
        asking.ask(answer)
        self.message.warn(
            self.tr(
                "{fact}. Please answer what is asked below, and read them again."
            ).format(fact=answer.fact),
            self.tr("One question"),
        )
        if (field := asking.questions.first()) is not None:
            self.reveal(field)
            field.setFocus()

    def continue_project(self, folder: Path) -> None:
        """Open a project folder with all its results."""
        engine = self._engine()
        assert self.state is not None
        if self.state.workspace is not None and self.state.workspace.path == folder:
            self._go_back()
            self.message.note(self.tr("This project is open already."))
            return
        self.run(
            self.tr("Opening the project"),
            lambda watcher: flow.continue_project(engine, folder, watcher),
            self._adopt_and_move,
        )

    def stopped(self) -> None:
        self.message.note(self.tr("Stopped. Nothing was changed."))

    def _engine(self) -> Engine:
        assert self.state is not None
        return self.state.engine

    def _adopt(self, opened: Opened) -> None:
        assert self.state is not None
        self.state.adopt(opened)
        self.enter(self.state)

    def _adopt_and_move(self, opened: Opened) -> None:
        self._adopt(opened)
        self.opened.emit()

    def _start_over(self) -> None:
        self._show_project(False)
        self.welcome.images.setFocus()
        self.message.note(
            self.tr("The project that is open is kept in its folder, as it is.")
        )
        self.changed.emit()

    def _go_back(self) -> None:
        assert self.state is not None
        self.message.clear()
        self.enter(self.state)
        self.changed.emit()

    def _show_project(self, there: bool) -> None:
        self.welcome.setVisible(not there)
        open_behind = self.state is not None and self.state.project is not None
        self.back.setVisible(open_behind and not there)
        for widget in (*self._cards(), self.other, self.erase):
            widget.setVisible(there)

    def _cards(self) -> tuple[Card, ...]:
        return (
            self.findings, self.details, self.classes, self.reading, self.protection,
            self.declared,
        )  # fmt: skip

    def _units_found(self) -> int:
        assert self.state is not None and self.state.findings is not None
        return self.state.findings.units(self.unit.value)

    def _show_choices(self) -> None:
        assert self.state is not None and self.state.project is not None
        assert self.state.findings is not None
        project, fixed = self.state.project, self.state.committed
        for widget in (self.number, self.most):
            widget.blockSignals(True)
        self.unit.choose(project.unit if self.state.unit_chosen else "")
        self.most.setValue(project.max_images_per_unit)
        self.number.setValue(project.declared_count or 0)
        for widget in (self.number, self.most):
            widget.blockSignals(False)
        self.most.setEnabled(not fixed)
        has_patients = self.state.protects_patients
        self.unit.buttons["image"].setEnabled(not fixed)
        self.unit.buttons["patient"].setEnabled(has_patients and not fixed)
        if fixed:
            self.message.note(
                self.tr(
                    "Training has started with these choices, so they are fixed. For "
                    "other choices start a new project; it spends budget of its own."
                )
            )
        self._explain()

    def _protect(self) -> None:
        assert self.state is not None and self.state.project is not None
        self.state.unit_picked = True
        changed = self.unit.value != self.state.project.unit
        self.state.change(
            unit=self.unit.value,
            max_images_per_unit=(
                self.most.value() if self.unit.value == "patient" else 1
            ),
        )
        if changed:  # As many images are not as many patients.
            self.number.setValue(0)
        self._explain()
        self.changed.emit()

    def _declare(self, number: int) -> None:
        assert self.state is not None and self.state.project is not None
        self.state.unit_picked = True  # Who changes a number of them means them.
        if number:
            # A smaller one may have been typed.
            delta = min(suggested_delta(number), self.state.project.delta)
            self.state.change(declared_count=number, delta=delta)
        else:
            self.state.change(declared_count=None)
        self._explain()
        self.changed.emit()

    def _explain(self) -> None:
        assert self.state is not None and self.state.findings is not None
        assert self.state.dataset is not None
        self.protection.explain(
            self.state.findings,
            self.state.dataset.unit_column,
            patients=self.state.protects_patients,
        )
        fixed = self.state.committed or not self.state.unit_chosen
        self.number.setEnabled(not fixed)
        self.declared.explain(self.unit.value, self._units_found())
