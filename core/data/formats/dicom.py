"""DICOM files in any layout of files: their patients, their frames, their warnings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.data.dataset import Problem, shown
from core.data.formats.base import Index
from core.data.options import (
    LEAVE_OUT,
    OWN_UNIT,
    ReadOptions,
    choose_unit,
    nobody,
)
from core.data.reading import FileImages, Opener, ask_about_files, is_picture
from core.data.refusals import Refused
from core.data.sandbox import Answer
from core.errors import UserError

UNITS: Final = ("patient", "study", "series")
"""What units a DICOM file names by itself."""

FORMAT_NAME: Final = "DICOM folders"

_ENDINGS: Final = (".dcm", ".dicom", ".ima")
_MOST_FRAMES: Final = 4096
_LONGEST_UNIT: Final = 256


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What one file says of itself."""

    unit: str = ""
    study: str = ""
    frames: int = 1
    burned_in: bool = False
    recognisable: bool = False


def is_dicom(root: Path, path: str) -> bool:
    """Whether a file below `root` is DICOM; only unusual endings make it be opened."""
    if is_picture(path):
        return False
    if path.lower().endswith(_ENDINGS):
        return True
    try:
        return Opener(root).read(path, start=132)[128:] == b"DICM"
    except Refused:
        return False


def with_dicom_headers(index: Index, options: ReadOptions) -> Index:
    """The same records, with what DICOM files among them say: units and frames.

    Files whose header cannot be read are left out. A unit that the layout's own table
    names goes before the file's.

    Raises:
        UserError: If the folders hold one patient each, so that they are no classes.
    """
    images = index.images
    assert isinstance(images, FileImages)
    numbers = [
        number
        for number, path in enumerate(images.paths)
        if is_dicom(images.root, path)
    ]
    if not numbers:
        return index
    unit = choose_unit(options, UNITS) if index.groups is None else index.unit_column
    asked = unit if index.groups is None else UNITS[0]
    headers, problems = _read_headers(images, numbers, asked)
    if index.groups is not None and options.missing_unit == OWN_UNIT:
        _refuse_nameless_in_table(index, headers)
    lost = set(numbers) - set(headers)
    rows = [number for number in range(len(images.paths)) if number not in lost]
    frames = [headers[row].frames if row in headers else 1 for row in rows]
    each = np.repeat(np.array(rows, np.int64), frames)
    groups = index.groups or tuple(
        headers[number].unit if number in headers else ""
        for number in range(len(images.paths))
    )
    found = replace(
        index,
        format_name=FORMAT_NAME
        if len(numbers) == len(images.paths)
        else (f"{index.format_name} with DICOM"),
        images=replace(
            images,
            paths=tuple(images.paths[row] for row in rows),
            frames=tuple(frames),
            studies=tuple(headers[r].study if r in headers else "" for r in rows),
            dicom=True,
        ),
        labels=index.labels[each],
        groups=tuple(groups[row] for row in each.tolist()),
        unit_column=unit,
        unit_choices=_unit_choices(index),
        official_splits=None
        if index.official_splits is None
        else index.official_splits[each],
        problems=(*index.problems, *problems, *_warnings(images, headers)),
    )
    if index.groups is None and unit == "patient":
        _refuse_folders_of_patients(found)
    return found


def _unit_choices(index: Index) -> tuple[str, ...]:
    """What the files name, and what the layout's table has; its units.csv is fixed."""
    if index.groups is not None and not index.unit_choices:
        return ()
    return tuple(dict.fromkeys((*UNITS, *index.unit_choices)))


def _read_headers(
    images: FileImages, numbers: list[int], unit: str
) -> tuple[dict[int, _Header], list[Problem]]:
    """The header of each file by its number, and why others could not be read."""
    headers: dict[int, _Header] = {}
    problems: list[Problem] = []
    paths = [images.paths[number] for number in numbers]

    def checked(_: int, __: bytes, answer: Answer) -> _Header:
        return _checked(answer[0].get("described"), unit)

    for batch in ask_about_files(
        images.root, paths, {"task": "describe"}, checked, most=lambda _: 0, dicom=True
    ):
        for place, outcome in batch:
            if isinstance(outcome, Problem):
                problems.append(outcome)
            else:
                headers[numbers[place]] = outcome
    return headers, problems


def _checked(said: Any, unit: str) -> _Header:
    match said:
        case {
            "units": dict(units),
            "frames": int(frames),
            "burned_in": bool(burned_in),
            "recognisable": bool(recognisable),
        } if 1 <= frames <= _MOST_FRAMES:
            name = str(units.get(unit, "")).strip()
            if len(name) > _LONGEST_UNIT or not name.isprintable():
                raise Refused("cannot be decoded")
            return _Header(
                unit="" if nobody(name) else name,
                study=str(units.get("study", "")),
                frames=frames,
                burned_in=burned_in,
                recognisable=recognisable,
            )
    raise Refused("cannot be decoded")


def _refuse_nameless_in_table(index: Index, headers: dict[int, _Header]) -> None:
    """Refuse to call a file nobody's that names its patient itself."""
    # PRIVACY: each file of that patient would be a unit. Nor can the file's own name go
    # beside the table's, which may be pseudonyms: of others, or of the same patient.
    assert index.groups is not None
    for number, header in headers.items():
        if header.unit and nobody(index.groups[number]):
            raise UserError(
                f"The table names no {index.unit_column} for "
                f"{shown(index.images.name(number))}, whose own header does: name one "
                f"in the table, or leave such images out ({LEAVE_OUT})."
            )


def _warnings(images: FileImages, headers: dict[int, _Header]) -> Iterable[Problem]:
    kinds = {
        "burned_in": "do not say that no text is burnt into their pixels, such as a "
        "name: look at them before you train.",
        "recognisable": "say that a face can be recognised in them: look at them "
        "before you train.",
    }
    for field, words in kinds.items():
        numbers = [n for n, header in headers.items() if getattr(header, field)]
        if numbers:
            count = f"{len(numbers):,} of {len(headers):,} DICOM files"
            yield Problem(
                path=images.paths[numbers[0]],
                kind=field.replace("_", "-"),
                message=f"{count} {words}",
                left_out=False,
            )


def _refuse_folders_of_patients(index: Index) -> None:
    """Folders by patient, as archives export them, must not pass for classes."""
    assert index.groups is not None
    groups: dict[int, set[str]] = {}
    for label, group in zip(index.labels.tolist(), index.groups, strict=True):
        groups.setdefault(label, set()).add(group)
    together = set().union(*groups.values())
    if len(groups) >= 2 and "" not in together and len(together) == len(groups):
        if all(len(found) == 1 for found in groups.values()):
            raise UserError(
                "Every folder holds the files of one patient, so that the folders seem "
                "to be patients and not classes: add a manifest.csv with the columns "
                "path and label."
            )
