"""What the custodian declares about a folder, so that nothing is guessed from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from core.errors import UserError

OWN_UNIT: Final = "own_unit"
LEAVE_OUT: Final = "leave_out"
_PERSONS: Final = ("patient", "subject", "participant", "person", "donor")
_FINER: Final = (
    "slide", "wsi", "study", "series", "visit", "lesion", "scan", "exam", "image",
    "file", "tile", "patch", "specimen", "biopsy", "accession", "acquisition",
    "session", "encounter", "episode", "instance",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Declarations about a dataset. All are public: none is found out from pixels.

    Attributes:
        grey: The images are to be grey. Otherwise the layout decides (IDX and grey
            arrays are grey, files are colour), never the images.
        window: Values (low, high) that become black and white where pixels have more
            than 8 bits or are floats: grey levels as stored, or as DICOM's modality
            table gives them (Hounsfield units). None: such images are left out, unless
            they are DICOM files with a window of their own.
        classes: Names of the classes, as the custodian confirmed them. Images of other
            classes are left out; each of these must have images. Empty: those found.
            Their order does not matter: classes are always numbered by name.
        unit_column: Which column names the unit of protection: "patient", "slide" or
            "hospital" (Camelyon17), "patient", "study" or "series" (DICOM), or a column
            of the dataset's table. Empty: what the layout usually takes.
        missing_unit: What becomes of images whose unit is not told: "own_unit" makes
            each a unit of its own, "leave_out" leaves them out. Empty: it is refused,
            and the custodian asked.
        path_column, label_column, split_column: Columns of a CSV manifest. Empty:
            "path", "label" and "split".
    """

    grey: bool = False
    window: tuple[float, float] | None = None
    classes: tuple[str, ...] = ()
    unit_column: str = ""
    missing_unit: str = ""
    path_column: str = ""
    label_column: str = ""
    split_column: str = ""

    def __post_init__(self) -> None:
        """Raises `UserError` when a declaration makes no sense."""
        if self.window is not None:
            low, high = self.window
            if not (abs(low) < 1e9 and abs(high) < 1e9 and low < high):
                raise UserError(
                    f"The window {low:g} to {high:g} is no range of values: give the "
                    "value shown as black, then a larger one shown as white."
                )
        if self.missing_unit not in ("", OWN_UNIT, LEAVE_OUT):
            raise UserError(
                f"The choice {self.missing_unit!r} for images without a patient is "
                f"unknown: use {OWN_UNIT} or {LEAVE_OUT}."
            )
        if len(set(self.classes)) < len(self.classes):
            raise UserError("A class is declared twice: name each class once.")


def finer_than_patients(unit_column: str) -> bool:
    """Whether a column names, by its words, what one patient may have several of.

    A word that names a person decides before all others ("study_subject").
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unit_column)
    words = re.findall(r"[a-z]+", parted.casefold())
    if any(word.startswith(_PERSONS) for word in words):
        return False
    return any(word.startswith(_FINER) for word in words)


def choose_unit(options: ReadOptions, known: tuple[str, ...]) -> str:
    """The unit column that was declared, or the first of those that a layout knows.

    Raises:
        UserError: If the layout has no column of that name.
    """
    if not options.unit_column:
        return known[0]
    if options.unit_column not in known:
        raise UserError(
            f"This dataset has no units called {options.unit_column!r}: choose "
            f"{' or '.join(known)}."
        )
    return options.unit_column


def parse_options(
    *,
    grey: bool = False,
    window: str = "",
    classes: str | tuple[str, ...] = "",
    **columns: str,
) -> ReadOptions:
    """The same declarations, as they stand in a project file or on a command line.

    Args:
        grey: As in `ReadOptions`.
        window: Two numbers separated by a comma ("-160,240"), or "".
        classes: Names, or the same in one text, separated by semicolons.
        columns: The other fields of `ReadOptions`.

    Raises:
        UserError: If one of them makes no sense.
    """
    names = split_names(classes) if isinstance(classes, str) else classes
    return ReadOptions(
        grey=grey, window=_parse_window(window), classes=names, **columns
    )


def split_names(text: str) -> tuple[str, ...]:
    """Names that are separated by semicolons."""
    return tuple(name.strip() for name in text.split(";") if name.strip())


def _parse_window(text: str) -> tuple[float, float] | None:
    if not text.strip():
        return None
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise UserError(
            f"The window {text!r} is not two numbers separated by a comma: give the "
            "value shown as black and the one shown as white, such as -160,240."
        ) from None
    return low, high
