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
    "accession", "acquisition", "admission", "appointment", "biopsy", "block",
    "breast", "core", "crop", "dicom", "encounter", "episode", "exam", "examination",
    "eye", "file", "frame", "hadm", "icustay", "image", "instance", "laterality",
    "lesion", "node", "nodule", "order", "patch", "photo", "picture", "polyp",
    "region", "report", "roi", "sample", "scan", "section", "series", "session",
    "side", "slice", "slide", "sop", "specimen", "stay", "study", "tile", "tumor",
    "tumour", "video", "view", "visit", "volume", "wsi",
)  # fmt: skip
"""A sample is of tissue or of data: of either one patient may have several."""
_COARSER: Final = (
    "batch", "bed", "camera", "care", "center", "centre", "city", "clinic", "cohort",
    "consultant", "country", "department", "device", "district", "doctor",
    "facility", "family", "fold", "gender", "hospital", "household", "institute",
    "institution", "lab", "laboratory", "machine", "manufacturer", "microscope",
    "operator", "organisation", "organization", "pathologist", "physician",
    "practice", "province", "radiologist", "room", "scanner", "sex", "site",
    "station", "team", "trust", "university", "vendor", "ward",
)  # fmt: skip
_ENDINGS: Final = (
    "code", "date", "id", "idx", "index", "key", "name", "no", "nr", "num", "number",
    "path", "uid",
)  # fmt: skip
"""What may be written onto such a word ("slideid"); so no core is in a "score"."""


_NOBODY: Final = frozenset(
    {"", "unknown", "unbekannt", "inconnu", "n/a", "na", "nan", "none", "null", "nil",
     "-", "--", "?", "anon", "anonym", "anonymous", "anonymized", "anonymised",
     "not available", "missing", "tbd", "xxx", "<na>", "#n/a"}
)  # fmt: skip
"""What stands in tables and headers for a name that is not known."""


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
            classes are left out; one of these may have no image. Empty: those found.
            Their order does not matter: classes are always numbered by name.
        unit_column: Which column groups the images, and names the unit of protection
            where patients are protected (`refuse_wrong_unit`): "patient", "slide" or
            "hospital" (Camelyon17), "patient", "study" or "series" (DICOM), or a column
            of the dataset's table. Empty: what the layout usually takes.
        missing_unit: What becomes of images whose unit is not told: "own_unit" makes
            each a unit of its own (the frames of a file together), "leave_out" leaves
            them out. Empty: it is refused, and the custodian asked.
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


def nobody(name: str) -> bool:
    """Whether a name says only that none is known."""
    return name.strip().casefold() in _NOBODY


def finer_than_patients(unit_column: str) -> bool:
    """Whether a column names, by its words, what one patient may have several of."""
    return _named(unit_column) is _FINER


def coarser_than_patients(unit_column: str) -> bool:
    """Whether a column names, by its words, what several patients may share."""
    return _named(unit_column) is _COARSER


def stands_for_patients(unit_column: str) -> bool:
    """Whether a bound for each group of a column is one for each patient in it."""
    return _named(unit_column) not in (_FINER, _COARSER)


def refuse_wrong_unit(unit_column: str, unit: str) -> None:
    """Refuse to promise patients what holds for other groups only.

    Args:
        unit_column: What the images are grouped by.
        unit: Whom the bound protects, as a project says it: "image" or "patient".

    Raises:
        UserError: If patients are to be protected and a group is less or more than one.
    """
    # PRIVACY: the promise speaks of patients, so no smaller unit may stand for them.
    # Nor may a larger one: with one patient more it is there all the same, and its
    # clipped part of a sum changes by up to twice the clip norm. Under replace_one it
    # would be covered, but for a patient who is in two groups, or alone in one.
    if unit != "patient" or stands_for_patients(unit_column):
        return
    if coarser_than_patients(unit_column):
        raise UserError(
            f"The images are grouped by {unit_column}, which patients may share, and "
            "one patient more or less can change all that such a group contributes: to "
            "protect patients, declare a unit column that names them (rename it if "
            "this one does), or protect each image."
        )
    raise UserError(
        f"The images are grouped by {unit_column}, and one patient may have several: "
        f"to protect patients, declare another unit column than {unit_column}, or "
        "protect each image."
    )


def refuse_frames_as_units(several_frames: bool, unit: str) -> None:
    """Refuse to protect single images where a file holds several.

    Raises:
        UserError: If it does.
    """
    # PRIVACY: one frame that cannot be read leaves out all of its file, and one frame
    # more moves the others between training and test: they are no units.
    if several_frames and unit == "image":
        raise UserError(
            "Some files hold several images each, which are read or left out together, "
            "so that no bound holds for a single one: protect patients instead."
        )


def refuse_studies_apart(studies_apart: bool, unit: str) -> None:
    """Refuse to count each file of a study, which is of one patient, as a patient.

    Raises:
        UserError: If that was declared, and patients are to be protected.
    """
    # PRIVACY: nor are they put together unasked: some who make files anonymous write
    # the same study into all of them, and two people would share a unit.
    if studies_apart and unit == "patient":
        raise UserError(
            "Some files that name no patient are of one study, so that they are no "
            "patients each: name their patients in a table, or leave images without a "
            f"patient out ({LEAVE_OUT})."
        )


def _named(unit_column: str) -> tuple[str, ...]:
    """`_PERSONS`, `_FINER` or `_COARSER`, or () when no word tells.

    The last word that tells decides, as it does in English: a "study_subject" is a
    person, a "patient_eye" is an eye, and a "study_site" is a site.
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unit_column)
    known, ends = "|".join({*_FINER, *_COARSER, *_ENDINGS}), "|".join(_ENDINGS)
    for word in reversed(re.findall(r"[a-z]+", parted.casefold())):
        if word.startswith(_PERSONS):
            return _PERSONS
        for names in (_FINER, _COARSER):
            if re.fullmatch(f"({known})*({'|'.join(names)})(e?s)?({ends})*", word):
                return names
    return ()


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
