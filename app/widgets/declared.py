"""What the custodian says of images that were read: their classes, and the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
)

from app.widgets.message import Message
from app.widgets.questions import Questions
from app.widgets.text import Card, label
from app.words import count

if TYPE_CHECKING:
    from core.data import ImageDataset
    from core.errors import Undeclared
    from core.workspace import Project

ROWS_IN_VIEW = 6

MANY = 12
"""Classes above which one is searched for rather than seen."""


class ClassesCard(Card):
    """The list of classes, to be confirmed; those without a tick are left out.

    Signals:
        confirmed: Names of the ticked classes, in the order shown.
    """

    confirmed = Signal(object)

    def __init__(self) -> None:
        super().__init__(self.tr("Classes to learn"))
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Classes to learn"))
        self.list.itemChanged.connect(lambda _: self._show_state())
        self.search = QLineEdit()
        self.search.setAccessibleName(self.tr("Find a class"))
        self.search.setPlaceholderText(self.tr("Find a class"))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._find)
        self.confirm = QPushButton(self.tr("Con&firm these classes"))
        self.confirm.setProperty("primary", True)
        self.confirm.clicked.connect(lambda: self.confirmed.emit(self.ticked()))
        self._told = label("", "hint")
        self._declared: tuple[str, ...] = ()
        self._fixed = False
        row = QHBoxLayout()
        row.addWidget(self._told, 1)
        row.addWidget(self.confirm)
        self.rows.addWidget(
            label(
                self.tr(
                    "The names come from the folder, and anyone who gets the release "
                    "can read them. Take the tick away from what is no class, or must "
                    "not be named."
                ),
                "hint",
            )
        )
        self.rows.addWidget(self.search)
        self.rows.addWidget(self.list)
        self.rows.addLayout(row)

    def show_classes(
        self, dataset: ImageDataset, declared: tuple[str, ...], *, fixed: bool
    ) -> None:
        """The classes that were read, and those that were left out before."""
        left_out = [p.path for p in dataset.problems if p.kind == "undeclared class"]
        self._declared, self._fixed = declared, fixed
        self.list.blockSignals(True)
        self.list.clear()
        for name in (*dataset.class_names, *left_out):
            item = QListWidgetItem(name)
            item.setFlags(
                Qt.ItemFlag.ItemIsEnabled
                | Qt.ItemFlag.ItemIsSelectable
                | Qt.ItemFlag.ItemIsUserCheckable
            )
            ticked = name in dataset.class_names
            item.setCheckState(
                Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
            )
            self.list.addItem(item)
        self.list.setCurrentRow(0)
        self.list.blockSignals(False)
        self.list.setEnabled(not fixed)
        rows = min(self.list.count(), ROWS_IN_VIEW)
        self.list.setFixedHeight(rows * max(self.list.sizeHintForRow(0), 1) + 10)
        self.search.setVisible(self.list.count() > MANY)
        self.search.clear()
        self._show_state()

    def ticked(self) -> tuple[str, ...]:
        """Names of the ticked classes."""
        items = (self.list.item(row) for row in range(self.list.count()))
        return tuple(
            item.text() for item in items if item.checkState() == Qt.CheckState.Checked
        )

    @property
    def settled(self) -> bool:
        """Whether what is ticked is what was confirmed."""
        return self._fixed or set(self.ticked()) == set(self._declared)

    def _find(self, wanted: str) -> None:
        """Show the classes with these letters in their names; all keep their ticks."""
        for row in range(self.list.count()):
            item = self.list.item(row)
            item.setHidden(wanted.strip().casefold() not in item.text().casefold())
        first = next(
            (r for r in range(self.list.count()) if not self.list.isRowHidden(r)), -1
        )
        self.list.setCurrentRow(first)

    def _show_state(self) -> None:
        ticked = self.ticked()
        self.confirm.setEnabled(not self.settled and len(ticked) >= 2)
        if self._fixed:
            text = ""
        elif len(ticked) < 2:
            text = self.tr("At least two classes are needed.")
        elif self.settled:
            text = self.tr("Confirmed: {classes}.").format(
                classes=count(len(ticked), "class", "classes")
            )
        else:
            text = self.tr("Not confirmed yet.")
        self._told.setText(text)


class ReadingCard(Card):
    """What else was declared of the folder, and may be declared in another way.

    Signals:
        wanted: Answers by the names of a project's fields, to read the images with.
    """

    wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__(self.tr("How the images are read"))
        self.note = Message()
        self.questions = Questions()
        self.questions.changed.connect(self._show_state)
        self.again = QPushButton(self.tr("Read a&gain"))
        self.again.clicked.connect(lambda: self.wanted.emit(self.questions.answers()))
        self._told = label("", "hint")
        self._project: Project | None = None
        self._demanded: tuple[str, ...] = ()
        self.pending = False
        """Whether something is answered otherwise than the images were read."""
        row = QHBoxLayout()
        row.addWidget(self._told, 1)
        row.addWidget(self.again)
        self.rows.addWidget(self.note)
        self.rows.addWidget(self.questions)
        self.rows.addLayout(row)

    def show_dataset(
        self, dataset: ImageDataset, project: Project, *, fixed: bool
    ) -> None:
        """Show what matters for this data set; nothing, when nothing does."""
        deep = sum(problem.kind == "no window" for problem in dataset.problems)
        wanted = []
        # The layout says which are in colour, or the custodian; never the images.
        if dataset.images.shape[3] == 3 or project.grey:
            wanted.append("grey")
        if dataset.unit_choices:
            wanted.append("unit_column")
        if project.missing_unit:
            wanted.append("missing_unit")
        if deep or project.window:
            wanted.append("window")
        self._project, self._choices = project, dataset.unit_choices
        self._demanded = ()
        self._reading = dataset.unit_column
        self.questions.ask(wanted, dataset.unit_choices, project)
        if "unit_column" in wanted and dataset.unit_column:
            box = self.questions.columns.boxes["unit_column"]
            box.removeItem(0)  # They are named; that they are not is no choice.
            box.setCurrentIndex(max(box.findData(dataset.unit_column), 0))
        self.questions.setEnabled(not fixed)
        self.setVisible(bool(wanted))
        self.note.clear()
        if deep:
            self.note.warn(
                self.tr(
                    "{images} were left out, since nobody said how to show them."
                ).format(images=count(deep, "image"))
            )
        self._show_state()

    def ask(self, question: Undeclared) -> None:
        """Ask, beside what is asked already, for what turned out to be missing."""
        answers = self.questions.answers()
        assert self._project is not None
        known = self._project.changed(**answers)
        self._demanded = tuple(question.wanted)
        wanted = (*self.questions.wanted, *question.wanted)
        self.questions.ask(wanted, self._choices, known)
        self._show_state()

    def _show_state(self) -> None:
        if self._project is None:
            return
        project = self._project
        before = {"unit_column": self._reading}
        answers = self.questions.answers()
        changed = {
            field
            for field, value in answers.items()
            if value != before.get(field, getattr(project, field))
        }
        # Deep images that were left out may stay so, while something else is changed.
        free = {"window"} - changed - set(self._demanded)
        problem = self.questions.problem(free) if changed else ""
        unread = self.tr("The images have not been read so yet.") if changed else ""
        self._told.setText(problem or unread)
        self.pending = bool(changed) and self.questions.isEnabled()
        self.again.setEnabled(self.pending and not problem)
