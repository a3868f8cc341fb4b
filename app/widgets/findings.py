"""What was found in the folder, in the few lines that everybody has to see."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from app.flow import Findings
from app.widgets.message import Message
from app.widgets.table import Table
from app.widgets.text import Card, Facts, label
from app.words import count

if TYPE_CHECKING:
    from core.data import ImageDataset, Problem

MOST_KINDS = 4
MOST_WARNINGS = 5


class FindingsCard(Card):
    """Reads a dataset's description; nothing can be changed here."""

    def __init__(self) -> None:
        super().__init__(self.tr("What was found"))
        self._facts = Facts()
        self._classes = Table(
            self.tr("Images by class"),
            (
                self.tr("Class"),
                self.tr("For training"),
                self.tr("Held back for testing"),
                self.tr("Neither"),
            ),
        )
        self._warnings = Message()
        self.rows.addWidget(self._facts)
        self.rows.addWidget(self._classes)
        self.rows.addWidget(
            label(
                self.tr(
                    "These exact numbers are private. They are shown to you only and "
                    "are not written into anything you release."
                ),
                "hint",
            )
        )
        self.rows.addWidget(self._warnings)

    def show_findings(
        self,
        source: str,
        dataset: ImageDataset,
        found: Findings,
        counts: dict[str, dict[str, int]],
    ) -> None:
        """Fill the card; `counts` are images by class and split."""
        from core.data.options import coarser_than_patients, finer_than_patients

        height, width, channels = dataset.images.shape[1:]
        colour = self.tr("colour") if channels == 3 else self.tr("grey")
        patients = ""
        column = dataset.unit_column
        groups = finer_than_patients(column) or coarser_than_patients(column)
        if found.patients is not None:
            number = f"{found.patients:,} × {column}"
            patients = self.tr("{patients}, with up to {images} each").format(
                patients=number if groups else count(found.patients, "patient"),
                images=count(found.largest_patient, "image"),
            )
        use = self.tr("{train} for training, {held} held back for testing").format(
            train=f"{found.train:,}", held=f"{found.held_out:,}"
        )
        if found.unused:
            use += self.tr(
                ". {unused} for neither: the format keeps them back, but they are of "
                "patients whose other images are trained on"
            ).format(unused=f"{found.unused:,}")
        self._facts.show_facts(
            (self.tr("Folder"), source),
            (self.tr("Read as"), dataset.format_name),
            (self.tr("Images"), use),
            (self.tr("Groups") if groups else self.tr("Patients"), patients),
            (
                self.tr("Size of the synthetic images"),
                self.tr(
                    "{width} × {height} pixels, {colour}; yours are brought to this"
                ).format(width=width, height=height, colour=colour),
            ),
            (self.tr("Left out"), self._left_out(dataset.problems)),
        )
        self._classes.show_rows(
            [
                (name, split["train"], split["held_out"], split["unused"])
                for name, split in counts.items()
            ]
        )
        self._classes.setColumnHidden(3, not found.unused)
        warnings = [p.message for p in dataset.problems if not p.left_out]
        self._warnings.warn("\n".join(warnings[:MOST_WARNINGS]))

    def _left_out(self, problems: tuple[Problem, ...]) -> str:
        """How many files were left out, and for what; empty when none was."""
        kinds = Counter(problem.kind for problem in problems if problem.left_out)
        told = [f"{kind} ({number:,})" for kind, number in kinds.most_common()]
        if len(told) > MOST_KINDS:
            told[MOST_KINDS:] = [self.tr("and others")]
        total = f"{kinds.total():,}: " if len(told) > 1 else ""
        return total + ", ".join(told)
