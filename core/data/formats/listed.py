"""What the layouts have in common whose images are listed in a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from core.data.dataset import Problem, shown
from core.data.formats.base import Index
from core.data.formats.dicom import UNITS, with_dicom_headers
from core.data.options import ReadOptions
from core.data.paths import escapes, natural
from core.data.reading import FileImages
from core.data.splitting import SPLIT_NAMES, official_splits
from core.data.tables import no_heading
from core.errors import Undeclared, UserError

UNIT_COLUMNS: Final = ("patient_id", "patient", "subject_id", "subject")
"""Names by which a table's column of patients is known without being declared."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        path: Of the image, as written there.
        label: Name of its class, "" when it has none.
        unit: Name of its patient, "" when it is not told.
        split: As written there, or "".
        where: The line, for sentences ("Row 7 of manifest.csv").
        folder: What the path is relative to, below the root; "" for the root itself.
    """

    path: str
    label: str
    unit: str = ""
    split: str = ""
    where: str
    folder: str = ""


def unit_column(options: ReadOptions, header: Iterable[str], table: str) -> str:
    """The column of patients: the declared one, else one of a usual name, else "".

    Raises:
        UserError: If the table lacks the declared one.
    """
    names = list(header)
    if options.unit_column in UNITS and options.unit_column not in names:
        return ""  # DICOM files name these by themselves.
    if options.unit_column:
        return require_column(options.unit_column, names, table, "unit_column")
    return next((name for name in UNIT_COLUMNS if name in names), "")


COLUMN_NAMES: Final = {
    "path_column": "the image file",
    "label_column": "the class",
    "unit_column": "the patient",
    "split_column": "the split",
}
"""What the columns of a table may name, by the declaration that says which one does."""


def require_column(name: str, header: list[str], table: str, declared: str) -> str:
    """The name itself, if the table has such a column.

    Args:
        name: Of the column.
        header: The columns that there are.
        table: The file, for the sentence.
        declared: Which declaration says so, a key of `COLUMN_NAMES`.

    Raises:
        Undeclared: If it has not; the sentence lists the columns that there are.
    """
    if name in header:
        return name
    named = tuple(column for column in header if column)
    known = ", ".join(map(shown, named[:30])) or "no columns at all"
    raise Undeclared(
        f"The file {table} has no column {name!r}",
        f"say which column names {COLUMN_NAMES[declared]}; it has {known}."
        f"{no_heading(header)}",
        wanted=(declared,),
        choices=named,
    )


def other_columns(header: Iterable[str], *taken: str) -> tuple[str, ...]:
    """The columns of a table that may name the patient: those that name nothing else.

    Args:
        header: All of its columns.
        taken: Those that name the file, the class and the split.
    """
    return tuple(name for name in header if name and name not in taken)


def index_of_rows(
    rows: Iterable[Row],
    *,
    format_name: str,
    root: Path,
    options: ReadOptions,
    unit_column: str,
    unit_choices: tuple[str, ...] = (),
    has_splits: bool = False,
) -> Index:
    """The records of a table; an image that is listed twice, of one unit, counts once.

    Args:
        rows: In the order of the table.
        format_name: Of the layout.
        root: The dataset's folder, resolved.
        options: What the custodian declared.
        unit_column: What `Row.unit` comes from, "" when there is no such column.
        unit_choices: Columns that it could come from.
        has_splits: Whether the layout has held-out splits (`splitting`).

    Raises:
        UserError: If a path leads out of the folder, a split has an unknown name, or an
            image is listed for two units.
    """
    paths, labels, units, splits = [], [], [], []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for row in rows:
        path = _checked_path(row)
        if path in seen:
            check_same_unit(path, seen[path], row.unit, row.where)
            problems.append(_left_out(path, "listed twice", row))
            continue
        seen[path] = row.unit
        if not row.label:
            problems.append(_left_out(path, "no class", row))
            continue
        paths.append(path)
        labels.append(row.label)
        units.append(row.unit)
        splits.append(_split(row))
    class_names = tuple(sorted(set(labels), key=natural))
    number = {name: position for position, name in enumerate(class_names)}
    official = official_splits(splits, known=has_splits)
    index = Index(
        format_name=format_name,
        class_names=class_names,
        images=FileImages(root=root, paths=tuple(paths), window=options.window),
        labels=np.fromiter((number[name] for name in labels), np.int64, len(labels)),
        groups=tuple(units) if unit_column else None,
        unit_column=unit_column,
        unit_choices=unit_choices,
        official_splits=official.numbers,
        official_split_names=official.names,
        problems=tuple(problems),
    )
    return with_dicom_headers(index, options)


def check_same_unit(path: str, first: str, second: str, where: str) -> None:
    """An image of two units would be in the sum or not as the other unit is present.

    Raises:
        UserError: If the units differ.
    """
    # PRIVACY: a unit's presence must not change what another one contributes.
    if first != second:
        raise UserError(
            f"{where} lists {path} again, for {second!r} instead of {first!r}: an "
            "image must not belong to two patients; correct the table."
        )


_WHY: Final = {
    "listed twice": "it is listed before, and the first line counts: remove this one.",
    "no class": "it names no class: fill it in, or remove the line.",
}


def _left_out(path: str, kind: str, row: Row) -> Problem:
    return Problem(path=path, kind=kind, message=f"{row.where}: {_WHY[kind]}")


def _checked_path(row: Row) -> str:
    if escapes(row.path):
        raise UserError(
            f"{row.where} names {row.path!r}, which is not a path below the dataset's "
            "folder: use a relative path such as class/a.png."
        )
    parts = [part for part in row.path.split("/") if part not in ("", ".")]
    return "/".join([row.folder, *parts] if row.folder else parts)


def _split(row: Row) -> str:
    if not row.split:
        return ""
    known = SPLIT_NAMES.get(row.split.casefold())
    if known is None:
        raise UserError(
            f"{row.where} has the split {row.split!r}: use train, val or test, or "
            "declare another column for the split."
        )
    return known
