"""Page 1: which images, who is protected, and how many you say there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QPushButton, QWidget

from app import flow
from app.flow import Opened, State
from app.pages.base import Page
from app.widgets.choice import Choice
from app.widgets.declared import ClassesCard, ReadingCard
from app.widgets.findings import FindingsCard
from app.widgets.message import Message, describe_field
from app.widgets.number import NumberField
from app.widgets.text import Card, label
from app.widgets.welcome import Welcome
from app.words import count

if TYPE_CHECKING:
    from app.engine import Engine
    from core.errors import Undeclared


class DatasetPage(Page):
    key = "dataset"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Dataset"),
            self.tr(
                "Choose the images to learn from. Nothing leaves this computer except "
                "what you export on the last page."
            ),
        )
        self.welcome = Welcome()
        self.welcome.sample_wanted.connect(self.start_sample)
        self.welcome.images_wanted.connect(self.start_images)
        self.welcome.project_wanted.connect(self.continue_project)
        self.findings = FindingsCard()
        self._number = self._number_card()
        self.classes = ClassesCard()
        self.classes.confirmed.connect(self._confirm)
        self.reading = ReadingCard()
        self.reading.wanted.connect(self.read_again)
        self._protection = self._protection_card()
        self.other = QPushButton(self.tr("Start with &other images …"))
        self.other.clicked.connect(self._start_over)
        self.erase = QPushButton(self.tr("&Erase the reduced copies"))
        self.erase.clicked.connect(self.forget)
        for widget in (self.welcome, *self._cards()):
            self.column.addWidget(widget)
        row = QHBoxLayout()
        row.addWidget(self.other)
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
        self._show_project(True)
        self.findings.show_findings(state.project.source, state.dataset, state.findings)
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
        if not self.classes.settled:
            return self.tr("Confirm the classes to learn.")
        if self._units_found() < 2:
            return self.tr("At least two are needed to learn from: choose more images.")
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
        return self.number if self.classes.settled else self.classes.list

    def busy(self, working: bool) -> None:
        for widget in (self.welcome, *self._cards(), self.other, self.erase):
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
        self.run(
            self.tr("Reading images"),
            lambda watcher: flow.read_again(engine, workspace, changed, watcher),
            self._adopt_or_ask,
        )

    def forget(self) -> None:
        """Close the project, and delete the copies of private images that it keeps."""
        assert self.state is not None and self.state.workspace is not None
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

    def _confirm(self, classes: tuple[str, ...]) -> None:
        assert self.state is not None and self.state.dataset is not None
        if set(classes) != set(self.state.dataset.class_names):
            self.read_again({"classes": classes})
            return
        self.state.change(classes=classes)
        self.state.save()
        self.classes.show_classes(self.state.dataset, classes, fixed=False)
        self.number.setFocus()
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
            self.message.note(self.tr("This project is open already."))
            return
        self.run(
            self.tr("Opening the project"),
            lambda watcher: flow.continue_project(engine, folder, watcher),
            self._adopt_and_move,
        )

    def stopped(self) -> None:
        self.message.note(self.tr("Stopped. No project was opened."))

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
        self.message.note(self.tr("The project that was open is kept in its folder."))

    def _show_project(self, there: bool) -> None:
        self.welcome.setVisible(not there)
        for widget in (*self._cards(), self.other, self.erase):
            widget.setVisible(there)

    def _cards(self) -> tuple[Card, ...]:
        return (
            self.findings, self.classes, self.reading, self._protection, self._number
        )  # fmt: skip

    def _number_card(self) -> Card:
        card = Card(self.tr("How many there are, as you would publish it"))
        name = label("", wrap=False)
        self.number = NumberField(self.tr("Declared number"), 1, 1_000_000_000)
        name.setBuddy(self.number)
        self._number_name = name
        self._number_hint = label("", "hint")
        self.number.valueChanged.connect(self._declare)
        row = QHBoxLayout()
        row.addWidget(name)
        row.addWidget(self.number)
        row.addStretch(1)
        card.rows.addLayout(row)
        card.rows.addWidget(self._number_hint)
        return card

    def _protection_card(self) -> Card:
        card = Card(self.tr("Who is protected"))
        self.unit = Choice(
            self.tr("Unit of protection"),
            (
                (
                    "image",
                    self.tr("Each &image"),
                    self.tr(
                        "The bound limits what the release can tell about any single "
                        "image."
                    ),
                ),
                (
                    "patient",
                    self.tr("Each pa&tient"),
                    self.tr(
                        "The bound limits what the release can tell about any single "
                        "patient, with all their images."
                    ),
                ),
            ),
        )
        self.unit.chosen.connect(self._protect)
        self._most = QWidget()
        grid = QGridLayout(self._most)
        grid.setContentsMargins(33, 0, 0, 0)
        name = label(self.tr("&Most images used of one patient"), wrap=False)
        self.most = NumberField(self.tr("Most images used of one patient"), 1, 10_000)
        self.most.valueChanged.connect(self._protect)
        name.setBuddy(self.most)
        grid.addWidget(name, 0, 0)
        grid.addWidget(self.most, 0, 1)
        grid.setColumnStretch(2, 1)
        grid.addWidget(
            label(self.tr("Each step looks at no more, chosen at random."), "hint"),
            1,
            0,
            1,
            3,
        )
        self._unit_note = Message()
        card.rows.addWidget(self.unit)
        card.rows.addWidget(self._most)
        card.rows.addWidget(self._unit_note)
        return card

    def _units_found(self) -> int:
        assert self.state is not None and self.state.findings is not None
        return self.state.findings.units(self.unit.value)

    def _show_choices(self) -> None:
        assert self.state is not None and self.state.project is not None
        assert self.state.findings is not None
        project, fixed = self.state.project, self.state.committed
        for widget in (self.number, self.most):
            widget.blockSignals(True)
        self.unit.choose(project.unit)
        self.most.setValue(project.max_images_per_unit)
        self.number.setValue(project.declared_count or 0)
        for widget in (self.number, self.most):
            widget.blockSignals(False)
            widget.setEnabled(not fixed)
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
        changed = self.unit.value != self.state.project.unit
        self.state.change(
            unit=self.unit.value,
            max_images_per_unit=(
                self.most.value() if self.unit.value == "patient" else 1
            ),
        )
        if changed:
            self.number.setValue(flow.round_up(self._units_found()))
        self._explain()
        self.changed.emit()

    def _declare(self, number: int) -> None:
        assert self.state is not None
        self.state.change(declared_count=number, delta=flow.default_delta(number))
        self._explain()
        self.changed.emit()

    def _explain(self) -> None:
        assert self.state is not None and self.state.findings is not None
        found = self.state.findings
        patient = self.unit.value == "patient"
        self._most.setVisible(patient)
        self._number_name.setText(
            self.tr("&Declared number of patients")
            if patient
            else self.tr("&Declared number of images")
        )
        least = self._units_found()
        wrong = self.number.value() < least
        hint = self.tr(
            "A number you are willing to publish, at least as many as there are. The "
            "exact number is private; a rounded one gives nothing away."
        )
        problem = self.tr(
            "There are {least} for training: declare that many or more."
        ).format(least=f"{least:,}")
        describe_field(
            self.number, self._number_hint, problem if wrong else hint, wrong=wrong
        )
        if found.patients is not None and not self.state.protects_patients:
            assert self.state.dataset is not None
            self._unit_note.note(
                self.tr(
                    "The images are grouped by {column}, and a patient may have "
                    "several. To protect patients, group them by patient above."
                ).format(column=self.state.dataset.unit_column)
            )
        elif not patient and found.patients is not None and found.largest_patient > 1:
            self._unit_note.warn(
                self.tr(
                    "Patients in this folder have up to {images} each. Protecting each "
                    "image does not protect a patient who has several: choose “Each "
                    "patient” if patients must be protected."
                ).format(images=count(found.largest_patient, "image"))
            )
        elif found.patients is None:
            self._unit_note.note(
                self.tr(
                    "This format does not say which images belong to one patient. If "
                    "someone has several images here, they are not protected as a "
                    "whole."
                )
            )
        else:
            self._unit_note.clear()
