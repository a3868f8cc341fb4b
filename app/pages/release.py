"""Page 7: what leaves the house, and the proof that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLineEdit, QPushButton, QWidget

from app.flow import State
from app.pages.base import Page
from app.widgets.folder import FolderField
from app.widgets.message import Message
from app.widgets.table import Table
from app.widgets.text import Card, Facts, label
from app.words import count, epsilon, probability

if TYPE_CHECKING:
    from core.events import Watcher
    from core.pipeline import Release
    from core.release import Verification


class ReleasePage(Page):
    key = "release"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Release"),
            self.tr(
                "Export the synthetic images with a report that states the privacy "
                "bound and lets anyone check it."
            ),
        )
        self.column.addWidget(self._claim_card())
        self.column.addWidget(self._export_card())
        self.column.addWidget(self._done_card())
        self.column.addStretch(1)

    def enter(self, state: State) -> None:
        super().enter(state)
        assert state.project is not None and state.workspace is not None
        if not self.name.text():
            self.name.setText(state.project.title)
        if self.destination.path is None or self._of is not state.workspace:
            self._of = state.workspace
            self.destination.set_path(free_release(state.workspace.path))
            self.name.setText(state.project.title)
        self._show_claim()
        self._show_release()

    def ready(self) -> str | None:
        if self.job is not None:
            return self.tr("Wait until the export has finished.")
        return None

    def done(self) -> bool:
        return self.state is not None and self.state.release is not None

    def default_focus(self) -> QWidget | None:
        return self.name

    def busy(self, working: bool) -> None:
        for widget in (self.export, self.verify, self.name, self.destination):
            widget.setEnabled(not working)

    def start(self) -> None:
        """Write the release."""
        state, destination = self.state, self.destination.path
        assert state is not None and state.workspace is not None
        if destination is None:
            self.message.error(
                self.tr("The release has no folder: type or choose a new one.")
            )
            return
        state.change(title=self.name.text().strip())
        state.save()
        engine, space, plan = state.engine, state.workspace, state.plan
        assert plan is not None

        def export(watcher: Watcher) -> Release:
            return engine.export(space, plan, destination, watcher)

        self.run(self.tr("Writing the release"), export, self._exported)

    def check(self) -> None:
        """Verify the release as a recipient would."""
        state = self.state
        assert state is not None and state.release is not None
        engine, folder = state.engine, state.release
        self.run(
            self.tr("Checking the release"),
            lambda _: engine.verify(folder),
            self._checked,
        )

    def open_folder(self) -> None:
        """Show the release in the file manager."""
        assert self.state is not None and self.state.release is not None
        url = QUrl.fromLocalFile(str(self.state.release))
        if not QDesktopServices.openUrl(url):
            self.message.note(
                self.tr("No file manager answered. The release is in {folder}.").format(
                    folder=self.state.release
                )
            )

    def _claim_card(self) -> Card:
        card = Card(self.tr("What the release promises"))
        self._claim = label("", "heading")
        self._relation = label()
        self._limits = label(
            self.tr(
                "This is an upper bound, proven by calculation, for anyone with any "
                "other knowledge. It is not a legal finding: whether it is enough for "
                "your purpose is for you and your data protection officer to decide."
            ),
            "hint",
        )
        for widget in (self._claim, self._relation, self._limits):
            card.rows.addWidget(widget)
        return card

    def _export_card(self) -> Card:
        self._export = Card(self.tr("What goes out"))
        self._contents = Facts()
        name_label = label(self.tr("&Title"), wrap=False)
        self.name = QLineEdit()
        self.name.setPlaceholderText(self.tr("such as: Synthetic lymph node patches"))
        self.name.setAccessibleName(self.tr("Title of the release"))
        name_label.setBuddy(self.name)
        folder_label = label(self.tr("New &folder"), wrap=False)
        self.destination = FolderField(
            self.tr("New folder for the release"),
            self.tr("&Choose …"),
            buddy=folder_label,
        )
        self._of: object = None
        self.export = QPushButton(self.tr("&Export the release"))
        self.export.setProperty("primary", True)
        self.export.clicked.connect(self.start)
        grid = QGridLayout()
        grid.setHorizontalSpacing(14)
        grid.setVerticalSpacing(8)
        grid.addWidget(name_label, 0, 0)
        grid.addWidget(self.name, 0, 1)
        grid.addWidget(folder_label, 1, 0)
        grid.addWidget(self.destination, 1, 1)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.export)
        self._export.rows.addWidget(self._contents)
        self._export.rows.addLayout(grid)
        self._export.rows.addLayout(row)
        return self._export

    def _done_card(self) -> Card:
        self._done = Card(self.tr("The release is written"))
        self._where = label("", "path")
        self.open = QPushButton(self.tr("&Open the folder"))
        self.open.clicked.connect(self.open_folder)
        self.verify = QPushButton(self.tr("Check it as a &recipient would"))
        self.verify.clicked.connect(self.check)
        self._verdict = Message()
        self._checks = Table(
            self.tr("Result of the check"),
            (self.tr("About"), self.tr("What was found")),
        )
        row = QHBoxLayout()
        row.addWidget(self.open)
        row.addWidget(self.verify)
        row.addStretch(1)
        self._done.rows.addWidget(self._where)
        self._done.rows.addLayout(row)
        self._done.rows.addWidget(self._verdict)
        self._done.rows.addWidget(self._checks)
        return self._done

    def _show_claim(self) -> None:
        assert self.state is not None and self.state.project is not None
        assert self.state.samples is not None
        project, samples = self.state.project, self.state.samples
        unit = self.tr("patient") if project.unit == "patient" else self.tr("image")
        self._claim.setText(
            self.tr(
                "(ε = {epsilon}, δ = {delta}) differential privacy for each {unit}"
            ).format(
                epsilon=epsilon(project.epsilon),
                delta=probability(project.delta),
                unit=unit,
            )
        )
        assert self.state.plan is not None
        self._relation.setText(self.state.plan.sentence())
        total = samples.per_class * len(samples.class_names)
        self._contents.show_facts(
            (
                self.tr("Images"),
                self.tr(
                    "{images} in {classes}, one folder each, and metadata.csv"
                ).format(
                    images=count(total, "synthetic image"),
                    classes=count(len(samples.class_names), "class", "classes"),
                ),
            ),
            (
                self.tr("Size"),
                self.tr("{side} × {side} pixels each").format(side=project.resolution),
            ),
            (
                self.tr("Report"),
                self.tr(
                    "the audit report to sign (PDF, HTML) and audit.json. They name "
                    "the title, the classes, the number you declared and, where "
                    "patients are protected, the column that tells them apart; and "
                    "all that was ever charged on these images, earlier runs too"
                ),
            ),
            (self.tr("To check it"), self.tr("SHA256SUMS, README.md")),
            (
                self.tr("Stays inside"),
                self.tr(
                    "your images, exact counts, and every figure of the Utility page"
                ),
            ),
        )

    def _exported(self, release: Release) -> None:
        assert self.state is not None and self.state.workspace is not None
        self.state.release = release.folder
        self._verdict.clear()
        self._checks.hide()
        self._show_release()
        self.open.setFocus()
        self.reveal(self._done)
        # Exporting once more makes another folder.
        self.destination.set_path(free_release(self.state.workspace.path))

    def _show_release(self) -> None:
        assert self.state is not None
        release = self.state.release
        self._done.setVisible(release is not None)
        if release is None:
            self._verdict.clear()
            self._checks.hide()
        else:
            self._where.setText(str(release))

    def _checked(self, result: Verification) -> None:
        if result.holds:
            self._verdict.note(
                self.tr(
                    "Everything holds: every file is as it was written, and ε computed "
                    "again from the noise, the sampling and the steps is {epsilon}."
                ).format(epsilon=epsilon(result.epsilon_recomputed or 0.0))
            )
        else:
            self._verdict.error(
                self.tr("{findings} not hold: do not pass this release on.").format(
                    findings=count(len(result.findings), "thing does", "things do")
                )
            )
        rows = [(item.subject, item.message) for item in result.findings]
        rows += [(self.tr("Note"), note) for note in result.notes]
        self._checks.show_rows(rows)
        self._checks.setVisible(bool(rows))
        self.reveal(self._done)


def free_release(project: Path) -> Path:
    """A folder beside the project that is not there yet."""
    folder, number = project.with_name(f"{project.name}-release"), 2
    while folder.exists():
        folder = project.with_name(f"{project.name}-release-{number}")
        number += 1
    return folder
