"""What only the custodian can say about a folder; each asked only when it matters."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from app.widgets.choice import Choice
from app.widgets.text import label
from app.words import read_number

if TYPE_CHECKING:
    from core.workspace import Project

COLUMNS = ("path_column", "label_column", "unit_column", "split_column")
NEEDED = ("path_column", "label_column")
_LONGEST_COLUMN = 60


class Questions(QWidget):
    """Fields for the declarations that are wanted, hidden until some are.

    Signals:
        changed: Another answer; `problem` and `answers` may be different now.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.wanted: tuple[str, ...] = ()
        self.window_field = WindowField()
        self.window_field.changed.connect(self.changed)
        self.missing_unit = Choice(
            self.tr("Images without a patient"),
            (
                (
                    "own_unit",
                    self.tr("Treat each as if from a different person"),
                    self.tr("Right only if no two of them are of the same person."),
                ),
                (
                    "leave_out",
                    self.tr("Leave them out"),
                    self.tr("Choose this when you are not sure."),
                ),
            ),
        )
        self.missing_unit.chosen.connect(lambda _: self.changed.emit())
        self.grey = QCheckBox(self.tr("The images are gre&y, without colour"))
        self.grey.toggled.connect(lambda _: self.changed.emit())
        self._grey = QWidget()
        column = QVBoxLayout(self._grey)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.grey)
        column.addWidget(
            label(
                self.tr(
                    "X-rays and other images without colour teach more when they are "
                    "read so. Sfumato does not look it up in your files, as a single "
                    "picture in colour would then show in the release."
                ),
                "hint",
            )
        )
        self.columns = ColumnFields()
        self.columns.changed.connect(self.changed)
        self._missing = QWidget()
        column = QVBoxLayout(self._missing)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(
            label(self.tr("What becomes of images that name no patient?"), "strong")
        )
        column.addWidget(self.missing_unit)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(14)
        for part in (self._grey, self.columns, self._missing, self.window_field):
            rows.addWidget(part)
        self.ask((), ())

    def ask(
        self,
        wanted: Iterable[str],
        choices: tuple[str, ...],
        known: Project | None = None,
    ) -> None:
        """Show the fields that are `wanted`, names of fields of a project.

        `choices` are the columns that there are; `known` is what was declared before.
        """
        self.wanted = tuple(dict.fromkeys(wanted))
        columns = tuple(name for name in COLUMNS if name in self.wanted)
        self.columns.show_columns(columns, choices, known)
        self._missing.setVisible("missing_unit" in self.wanted)
        self.window_field.setVisible("window" in self.wanted)
        self._grey.setVisible("grey" in self.wanted)
        if known is not None:
            self.window_field.set_value(known.window)
            self.missing_unit.choose(known.missing_unit)
            self.grey.setChecked(known.grey)
        self.setVisible(bool(self.wanted))

    def first(self) -> QWidget | None:
        """The first field that is asked for and has no answer, for the keyboard."""
        fields: list[tuple[QWidget, bool]] = [
            (box, bool(box.currentData()) or name not in NEEDED)
            for name, box in self.columns.boxes.items()
        ]
        choice = self.missing_unit
        fields.append((choice.buttons["own_unit"], bool(choice.value)))
        fields.append((self.window_field.usual, bool(self.window_field.value)))
        open_ones = [w for w, done in fields if not done and w.isVisibleTo(self)]
        return open_ones[0] if open_ones else None

    def forget(self) -> None:
        """Ask nothing, and forget what was answered."""
        self.ask((), ())
        self.window_field.set_value("")
        self.missing_unit.choose("")

    def answers(self) -> dict[str, str | bool]:
        """What was answered, by the names of a project's fields."""
        answers: dict[str, str | bool] = {**self.columns.answers()}
        if "grey" in self.wanted:
            answers["grey"] = self.grey.isChecked()
        if "missing_unit" in self.wanted:
            answers["missing_unit"] = self.missing_unit.value
        if "window" in self.wanted:
            answers["window"] = self.window_field.value
        return answers

    def problem(self, free: Collection[str] = ()) -> str:
        """What is still to be answered, or empty; but for what may stay open."""
        if self.columns.problem():
            return self.columns.problem()
        if "missing_unit" in self.wanted and not self.missing_unit.value:
            return self.tr("Say what becomes of images without a patient.")
        asks_window = "window" in self.wanted and "window" not in free
        if asks_window and not self.window_field.value:
            return self.tr("Say which values are shown as black and as white.")
        return ""


class ColumnFields(QWidget):
    """Which column of a table says what."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        names = {
            "path_column": self.tr("Image file"),
            "label_column": self.tr("Class"),
            "unit_column": self.tr("Patient"),
            "split_column": self.tr("Training or testing"),
        }
        self._title = label("", "strong")
        self.boxes: dict[str, QComboBox] = {}
        self._labels = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(14)
        grid.setColumnStretch(2, 1)
        grid.addWidget(self._title, 0, 0, 1, 3)
        for row, (field, text) in enumerate(names.items(), start=1):
            box = QComboBox()
            box.setAccessibleName(text)
            box.setMinimumWidth(260)
            box.currentIndexChanged.connect(lambda _: self.changed.emit())
            name = label(text, wrap=False)
            name.setBuddy(box)
            grid.addWidget(name, row, 0)
            grid.addWidget(box, row, 1)
            self.boxes[field], self._labels[field] = box, name

    def show_columns(
        self, wanted: tuple[str, ...], choices: tuple[str, ...], known: Project | None
    ) -> None:
        """Offer the columns of a table, with what was chosen of them so far."""
        from core.data.formats.listed import UNIT_COLUMNS

        usual = {"path_column": ("path",), "label_column": ("label",)}
        usual |= {"unit_column": UNIT_COLUMNS, "split_column": ("split",)}
        self.setVisible(bool(wanted))
        only_unit = wanted == ("unit_column",)
        self._title.setText(
            self.tr("Which images are of one person?")
            if only_unit
            else self.tr("Which column of the list says what?")
        )
        self._labels["unit_column"].setText(
            self.tr("Those with the same") if only_unit else self.tr("Patient")
        )
        for field, box in self.boxes.items():
            box.setVisible(field in wanted)
            self._labels[field].setVisible(field in wanted)
            before = getattr(known, field) if known is not None else box.currentData()
            likely = next((name for name in usual[field] if name in choices), "")
            box.blockSignals(True)
            box.clear()
            nothing = (
                self.tr("Choose a column")
                if field in NEEDED
                else self.tr("None: the list does not say")
            )
            box.addItem(nothing, "")
            for name in choices:
                box.addItem(name[:_LONGEST_COLUMN], name)
            box.setCurrentIndex(max(box.findData(before or likely), 0))
            box.blockSignals(False)

    def answers(self) -> dict[str, str]:
        return {
            field: str(box.currentData() or "")
            for field, box in self.boxes.items()
            if not box.isHidden() and not self.isHidden()
        }

    def problem(self) -> str:
        answers = self.answers()
        if any(not answers.get(field, "none asked") for field in NEEDED):
            return self.tr("Say which column names the image file and the class.")
        chosen = [name for name in answers.values() if name]
        if len(set(chosen)) < len(chosen):
            return self.tr("One column cannot say two things: choose another.")
        return ""


class WindowField(QWidget):
    """Which values of deep pixels are shown as black and as white."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        usual = (
            (self.tr("Choose what they are"), ""),
            (self.tr("CT, soft tissue: −160 to 240"), "-160,240"),
            (self.tr("CT, lung: −1350 to 150"), "-1350,150"),
            (self.tr("CT, bone: −450 to 1050"), "-450,1050"),
            (self.tr("12 bits: 0 to 4095"), "0,4095"),
            (self.tr("16 bits: 0 to 65535"), "0,65535"),
            (self.tr("Other values"), "other"),
        )
        self.usual = QComboBox()
        self.usual.setAccessibleName(self.tr("Kind of images"))
        for text, value in usual:
            self.usual.addItem(text, value)
        self.usual.currentIndexChanged.connect(lambda _: self._chosen())
        self.low, self.high = QLineEdit(), QLineEdit()
        self._ends = QWidget()
        row = QHBoxLayout(self._ends)
        row.setContentsMargins(0, 0, 0, 0)
        for field, text in (
            (self.low, self.tr("Shown as black")),
            (self.high, self.tr("Shown as white")),
        ):
            field.setFixedWidth(110)
            field.setAccessibleName(text)
            field.textChanged.connect(lambda _: self.changed.emit())
            name = label(text, wrap=False)
            name.setBuddy(field)
            row.addWidget(name)
            row.addWidget(field)
        row.addStretch(1)
        name = label(self.tr("Values in the images"), wrap=False)
        name.setBuddy(self.usual)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(14)
        grid.setColumnStretch(2, 1)
        grid.addWidget(
            label(
                self.tr("These images have more shades than a screen shows"), "strong"
            ),
            *(0, 0, 1, 3),
        )
        grid.addWidget(name, 1, 0)
        grid.addWidget(self.usual, 1, 1)
        grid.addWidget(self._ends, 2, 1, 1, 2)
        grid.addWidget(
            label(
                self.tr(
                    "Say which values become black and white. Take them from the "
                    "protocol of the device, or ask who exported the images; do not "
                    "work them out from these images, for what is worked out from "
                    "patients' images is private."
                ),
                "hint",
            ),
            *(3, 0, 1, 3),
        )
        self._chosen()

    @property
    def value(self) -> str:
        """ "low,high", or empty while that is not a range."""
        chosen = str(self.usual.currentData())
        if chosen != "other":
            return chosen
        low, high = read_number(self.low.text()), read_number(self.high.text())
        if low is None or high is None or low >= high:
            return ""
        return f"{low:.12g},{high:.12g}"

    def set_value(self, value: str) -> None:
        """Show a range that was declared before, or none."""
        self.usual.blockSignals(True)
        place = self.usual.findData(value)
        if place < 0:
            self.low.setText(value.split(",")[0].strip())
            self.high.setText(value.split(",")[-1].strip())
            place = self.usual.findData("other")
        self.usual.setCurrentIndex(place)
        self._ends.setVisible(self.usual.currentData() == "other")
        self.usual.blockSignals(False)

    def _chosen(self) -> None:
        self._ends.setVisible(self.usual.currentData() == "other")
        self.changed.emit()
