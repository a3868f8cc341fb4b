"""Three ways to begin: your images, the sample dataset, or an older project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.flow import HOME
from app.widgets.folder import FolderField, dropped_folder
from app.widgets.questions import COLUMNS, Questions
from app.widgets.text import Card, dress, label

if TYPE_CHECKING:
    from core.errors import Undeclared


class Welcome(QWidget):
    """Asks what to begin with, and changes nothing by itself.

    Signals:
        sample_wanted: Project folder for the sample dataset.
        images_wanted: Project folder, folder of images, and what is declared of them by
            the names of a project's fields.
        project_wanted: Project folder to go on with.
    """

    sample_wanted = Signal(object)
    images_wanted = Signal(object, object, object)
    project_wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._pinned: Path | None = None
        self._suggested: Path | None = None
        self._choices: tuple[str, ...] = ()
        self.setAcceptDrops(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(14)
        self._own = self._own_images()
        column.addWidget(self._own)
        column.addWidget(self._sample())
        column.addWidget(self._go_on())

    def pin(self, folder: Path) -> None:
        """Use `folder` as the project folder, whatever is chosen to begin with."""
        self._pinned = folder
        self.project.set_path(folder)

    def _own_images(self) -> Card:
        card = Card(self.tr("Start with your own images"))
        images_label = label(self.tr("Folder of &images"), wrap=False)
        self.images = FolderField(
            self.tr("Folder of images"),
            self.tr("&Choose …"),
            buddy=images_label,
            lists=self.tr("Choose a &list …"),
        )
        self.images.edited.connect(self._suggest)
        project_label = label(self.tr("&Keep the work in"), wrap=False)
        self.project = FolderField(
            self.tr("Project folder"), self.tr("Chan&ge …"), buddy=project_label
        )
        self.project.line.setPlaceholderText(str(HOME / self.tr("name")))
        self.project.edited.connect(lambda _: self._enable())
        self.grey = QCheckBox(self.tr("The images are gre&y, without colour"))
        self.read = QPushButton(self.tr("&Read the images"))
        self.read.setProperty("primary", True)
        self.read.clicked.connect(self._read)
        grid = QGridLayout()
        grid.setHorizontalSpacing(14)
        grid.setVerticalSpacing(4)
        grid.addWidget(images_label, 0, 0)
        grid.addWidget(self.images, 0, 1)
        grid.addWidget(
            label(
                self.tr(
                    "You can also drop the folder here. One folder per class (PNG, "
                    "JPEG, TIFF, BMP or DICOM), a CSV list of images with their "
                    "classes, or a public data set (Camelyon17, PatchCamelyon, "
                    "MedMNIST, MNIST)."
                ),
                "hint",
            ),
            1,
            1,
        )
        grid.addWidget(self.grey, 2, 1)
        grid.setRowMinimumHeight(3, 8)
        grid.addWidget(project_label, 4, 0)
        grid.addWidget(self.project, 4, 1)
        grid.addWidget(
            label(
                self.tr(
                    "Your images stay where they are; reduced copies and results go "
                    "here, for your user account only. Choose a folder on this "
                    "computer, not on a network drive or a synchronised one."
                ),
                "hint",
            ),
            5,
            1,
        )
        self.copies = QComboBox()
        for text, value in (
            (self.tr("On the disk, readable by your account only"), "disk"),
            (self.tr("On the disk, encrypted with a key in the keyring"), "encrypted"),
            (self.tr("In memory only: read again each time"), "memory"),
        ):
            self.copies.addItem(text, value)
        copies_label = label(self.tr("Reduced copies"), wrap=False)
        copies_label.setBuddy(self.copies)
        grid.addWidget(copies_label, 6, 0)
        grid.addWidget(self.copies, 6, 1)
        self.questions = Questions()
        self.questions.changed.connect(self._enable)
        self._unanswered = label("", "hint")
        card.rows.addLayout(grid)
        card.rows.addSpacing(6)
        card.rows.addWidget(self.questions)
        card.rows.addLayout(_right(self._unanswered, self.read))
        self._enable()
        return card

    def _sample(self) -> Card:
        card = Card(self.tr("Look around first"))
        self.sample = QPushButton(self.tr("&Try it with the sample dataset"))
        self.sample.clicked.connect(self._begin_sample)
        row = QHBoxLayout()
        row.setSpacing(24)
        row.addWidget(
            label(
                self.tr(
                    "Computed drawings that look like stained tissue. No patient is in "
                    "them, so you can try every step without any risk."
                ),
                "hint",
            ),
            1,
        )
        row.addWidget(self.sample)
        card.rows.addLayout(row)
        return card

    def _go_on(self) -> Card:
        card = Card(self.tr("Go on with a project"))
        self.go_on = QPushButton(self.tr("&Open a project folder …"))
        self.go_on.clicked.connect(self.browse_project)
        row = QHBoxLayout()
        row.setSpacing(24)
        row.addWidget(
            label(self.tr("It opens at the step where you stopped."), "hint"), 1
        )
        row.addWidget(self.go_on)
        card.rows.addLayout(row)
        return card

    def browse_project(self) -> None:
        """Ask for a project folder."""
        start = HOME if HOME.is_dir() else Path.home()
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("Open a project folder"), str(start)
        )
        if chosen:
            self.project_wanted.emit(Path(chosen))

    def _begin_sample(self) -> None:
        self.sample_wanted.emit(self._pinned or free_folder("sample"))

    def _read(self) -> None:
        if self.images.path is not None and self.project.path is not None:
            declared = {"grey": self.grey.isChecked(), **self.questions.answers()}
            declared["cache"] = self.copies.currentData()
            self.images_wanted.emit(self.project.path, self.images.path, declared)

    def ask(self, question: Undeclared) -> None:
        """Show the fields that a first look at the images has shown to be needed."""
        wanted = (*self.questions.wanted, *question.wanted)
        if set(wanted) & set(COLUMNS):
            wanted = (*wanted, *COLUMNS)
        self.questions.ask(wanted, question.choices or self._choices)
        self._choices = question.choices or self._choices
        self._enable()

    def _suggest(self) -> None:
        images = self.images.path
        self.questions.forget()
        untouched = self.project.path in (None, self._suggested)
        if images is not None and self._pinned is None and untouched:
            self._suggested = free_folder(images.stem or "project")
            self.project.set_path(self._suggested)
        self._enable()

    def _enable(self) -> None:
        problem = self.questions.problem()
        self._unanswered.setText(problem)
        self.read.setEnabled(
            bool(self.images.path and self.project.path) and not problem
        )

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if dropped_folder(event, lists=True) is not None:
            dress(self._own, dropping=True)
            event.acceptProposedAction()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        dress(self._own, dropping=False)

    def dropEvent(self, event: QDropEvent) -> None:
        dress(self._own, dropping=False)
        if (folder := dropped_folder(event, lists=True)) is not None:
            self.images.set_path(folder)
            event.acceptProposedAction()


def free_folder(name: str) -> Path:
    """A folder under the user's Sfumato folder that is not there yet."""
    folder, number = HOME / name, 2
    while folder.exists():
        folder, number = HOME / f"{name}-{number}", number + 1
    return folder


def _right(told: QWidget, button: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.addWidget(told, 1)
    row.addWidget(button)
    return row
