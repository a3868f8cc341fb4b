"""Who is protected, and how many of them the custodian says there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QWidget

from app.widgets.choice import Choice
from app.widgets.message import Message, describe_field
from app.widgets.number import NumberField
from app.widgets.text import Card, label
from app.words import count

if TYPE_CHECKING:
    from app.flow import Findings


class ProtectionCard(Card):
    """The unit of protection: an image, or a patient with all images.

    Signals:
        chosen: The unit, or how many of its images are used, is another now.
    """

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__(self.tr("Who is protected"))
        self.unit = Choice(
            self.tr("Unit of protection"),
            (
                (
                    "patient",
                    self.tr("Each pa&tient"),
                    self.tr(
                        "The bound limits what the release can tell about any single "
                        "patient, with all their images."
                    ),
                ),
                (
                    "image",
                    self.tr("Each &image"),
                    self.tr(
                        "The bound limits what the release can tell about any single "
                        "image."
                    ),
                ),
            ),
        )
        self.unit.chosen.connect(lambda *_: self.chosen.emit())
        self._most = QWidget()
        grid = QGridLayout(self._most)
        grid.setContentsMargins(33, 0, 0, 0)
        name = label(self.tr("&Most images used of one patient"), wrap=False)
        self.most = NumberField(self.tr("Most images used of one patient"), 1, 10_000)
        self.most.valueChanged.connect(lambda _: self.chosen.emit())
        name.setBuddy(self.most)
        grid.addWidget(name, 0, 0)
        grid.addWidget(self.most, 0, 1)
        grid.setColumnStretch(2, 1)
        grid.addWidget(
            label(
                self.tr(
                    "Of a patient with more, that many are taken at random. The bound "
                    "is the same for any number; a larger one uses more of your images."
                ),
                "hint",
            ),
            1,
            0,
            1,
            3,
        )
        self.note = Message()
        self.unit.add_below("patient", self._most)
        self.rows.addWidget(self.unit)
        self.rows.addWidget(self.note)

    def explain(self, found: Findings, column: str, *, patients: bool) -> None:
        """Say what the choice means here.

        Args:
            found: What was found in the folder.
            column: What the images are grouped by.
            patients: Whether patients can be protected by it.
        """
        from core.data.options import coarser_than_patients

        patient = self.unit.value == "patient"
        self._most.setVisible(patient)
        if found.patients is not None and not patients:
            shared = coarser_than_patients(column)
            why = (
                self.tr("The images are grouped by {column}, which patients may share.")
                if shared
                else self.tr(
                    "The images are grouped by {column}, and a patient may have "
                    "several."
                )
            )
            what = self.tr("To protect patients, group them by patient above.")
            self.note.note(f"{why} {what}".format(column=column))
        elif not patient and found.patients is not None and found.largest_patient > 1:
            self.note.warn(
                self.tr(
                    "Up to {images} are of one {column}. Protecting each image does "
                    "not protect a patient who has several: choose “Each patient” if "
                    "patients must be protected."
                ).format(images=count(found.largest_patient, "image"), column=column)
            )
        elif found.patients is None:
            self.note.note(
                self.tr(
                    "This format does not say which images belong to one patient. If "
                    "someone has several images here, they are not protected as a "
                    "whole."
                )
            )
        else:
            self.note.clear()


class NumberCard(Card):
    """The declared, public number of units."""

    def __init__(self) -> None:
        super().__init__(self.tr("How many there are, as you would publish it"))
        self._name = label("", wrap=False)
        self.number = NumberField(
            self.tr("Declared number"), 0, 1_000_000_000, self.tr("not declared")
        )
        self._name.setBuddy(self.number)
        self.hint = label("", "hint")
        row = QHBoxLayout()
        row.addWidget(self._name)
        row.addWidget(self.number)
        row.addStretch(1)
        self.rows.addLayout(row)
        self.rows.addWidget(self.hint)

    def explain(self, unit: str, least: int) -> None:
        """Name the field after the unit, and say whether its number can be right.

        Without a unit, it waits for one.
        """
        names = {
            "image": self.tr("&Declared number of images"),
            "patient": self.tr("&Declared number of patients"),
        }
        self._name.setText(names.get(unit, self.tr("&Declared number")))
        if not unit:
            hint = self.tr("Choose first who is protected.")
            describe_field(self.number, self.hint, hint, wrong=False)
            return
        number = self.number.value()
        wrong = 0 < number < least
        # PRIVACY: never filled in from the images: noise and report depend on it.
        hint = self.tr(
            "A number you are willing to publish, at least the {least} there are for "
            "training. Take one that you would also name with one {unit} more or less, "
            "such as a round one well above: the exact number is private."
        ).format(least=f"{least:,}", unit=unit)
        problem = self.tr(
            "There are {least} for training: declare that many or more."
        ).format(least=f"{least:,}")
        describe_field(self.number, self.hint, problem if wrong else hint, wrong=wrong)
