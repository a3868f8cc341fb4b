"""All that is known of the images, folded away: most custodians need none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QPushButton

from app.widgets.counts import Counts
from app.widgets.disclosure import Disclosure
from app.widgets.message import Message
from app.widgets.table import ROWS_IN_VIEW, Table
from app.widgets.text import Card, label
from app.words import count

if TYPE_CHECKING:
    from core.data import Inspection, Problem

MOST_PROBLEMS = 1000
"""Rows of problems that the table shows; more of them help nobody."""

OWN_SPLITS = {"train", "held_out"}
"""Names of the splits that Sfumato makes, where the data set names none."""


class DetailsCard(Card):
    """Histograms, look-alikes and every problem; nothing can be changed here.

    Signals:
        wanted: The files shall be looked at once more, for what only they tell.
    """

    wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.rows.setContentsMargins(8, 8, 8, 8)
        self.fold = Disclosure(self.tr("More about these images"))
        self.look = QPushButton(self.tr("&Look through the files"))
        self.look.clicked.connect(self.wanted)
        self._hint = label(
            self.tr(
                "Finds images that look alike although they are said to be of "
                "different patients, and counts sizes and kinds of pixels. It reads "
                "every image once more, which takes about as long as the first time."
            ),
            "hint",
        )
        self._alike = Message()
        self._pairs = Table(
            self.tr("Images that look alike"),
            (self.tr("This image"), self.tr("looks like this one")),
        )
        self._sizes = Counts(self.tr("Sizes of the stored images, in pixels"))
        self._modes = Counts(self.tr("Kinds of pixels"))
        self._units = Counts()
        self._splits = Counts(self.tr("Splits that the data set names"))
        self._kinds_told = label(self.tr("Left out, or to look at"), "strong")
        self._kinds = Table(
            self.tr("Problems by kind"),
            (self.tr("Problem"), self.tr("Number"), self.tr("For example")),
        )
        self._files_told = label(
            self.tr("Left out, or to look at, file by file"), "strong"
        )
        self._files = Table(
            self.tr("Problems by file"), (self.tr("File"), self.tr("Problem"))
        )
        for widget in (self._units, self._splits):
            self.fold.rows.addWidget(widget)
        self.fold.rows.addWidget(self._hint)
        self.fold.rows.addWidget(self.look, 0, Qt.AlignmentFlag.AlignLeft)
        for widget in (
            self._alike, self._pairs, self._sizes, self._modes,
            self._kinds_told, self._kinds, self._files_told, self._files,
        ):  # fmt: skip
            self.fold.rows.addWidget(widget)
        self.rows.addWidget(self.fold)

    def show_inspection(self, found: Inspection) -> None:
        """Fill the card; what only the files tell is there once they were looked at."""
        self._units.heading.setText(
            self.tr("How many images there are of one {unit}").format(
                unit=found.unit_column
            )
        )
        images = {
            self.tr("1 image")
            if size == "1"
            else self.tr("{size} images").format(size=size): number
            for size, number in found.group_sizes.items()
        }
        self._units.show_counts(images, found.unit_column)
        named = set(found.official_counts) - OWN_SPLITS
        self._splits.show_counts(found.official_counts if named else {})
        looked = found.look_alikes is not None
        self._hint.setVisible(not looked)
        self.look.setVisible(not looked)
        self._sizes.show_counts(found.sizes)
        self._modes.show_counts(found.modes)
        self._pairs.show_rows(list(found.look_alike_examples))
        self._pairs.setVisible(bool(found.look_alike_examples))
        self._show_look_alikes(found)
        self._show_problems(found.problems, found.problem_counts)

    def _show_look_alikes(self, found: Inspection) -> None:
        grouped = found.groups is not None
        if found.look_alikes is None:
            self._alike.clear()
        elif not found.look_alikes:
            self._alike.note(
                self.tr(
                    "No image was found that looks like one of another {unit}."
                ).format(unit=found.unit_column)
                if grouped
                else self.tr("No two images were found that look alike.")
            )
        elif grouped:
            self._alike.warn(
                self.tr(
                    "At least {images} look like an image of another {unit}. If one "
                    "person is here under two names, correct the names and read the "
                    "images again: such a person is protected less than promised."
                ).format(
                    images=count(found.look_alikes, "image"), unit=found.unit_column
                )
            )
        else:
            self._alike.warn(
                self.tr(
                    "At least {images} look like another one. Copies of one image are "
                    "not protected as a whole: remove them if they are not wanted."
                ).format(images=count(found.look_alikes, "image"))
            )

    def _show_problems(
        self, problems: tuple[Problem, ...], counts: dict[str, int]
    ) -> None:
        examples: dict[str, str] = {}
        for problem in problems:
            examples.setdefault(problem.kind, self._where(problem))
        self._kinds.show_rows(
            [(kind, number, examples[kind]) for kind, number in counts.items()]
        )
        self._files.show_rows(
            [(self._where(p), p.message) for p in problems[:MOST_PROBLEMS]]
        )
        # A few are told one by one just as fast.
        many = len(problems) > ROWS_IN_VIEW
        for widget in (self._kinds_told, self._kinds):
            widget.setVisible(many)
        for widget in (self._files_told, self._files):
            widget.setVisible(bool(problems))

    def _where(self, problem: Problem) -> str:
        return problem.path if problem.path != "." else self.tr("the folder")
