"""Hugging Face `imagefolder`: images with a `metadata.csv` or `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from core.data.formats.base import Index
from core.data.formats.listed import (
    UNIT_COLUMNS,
    Row,
    index_of_rows,
    other_columns,
    require_column,
    unit_column,
)
from core.data.options import ReadOptions
from core.data.paths import is_clutter
from core.data.splitting import SPLIT_NAMES
from core.data.tables import check_cell, read_header, read_json_lines, read_table
from core.errors import UserError

_NAMES: Final = ("metadata.csv", "metadata.jsonl")
_PATH: Final = "file_name"
_LABEL: Final = "label"


class ImageFolder:
    """`[data/][train|validation|test/]metadata.csv|jsonl` beside the images.

    Each line names a file relative to the table (`file_name`) and its class (`label`).
    JSON may leave out other keys in some lines, but none of file, class, unit or split.
    Without such a table the layout is that of class folders.
    """

    name = "Hugging Face imagefolder"

    def detect(self, path: Path) -> bool:
        return bool(_tables(path))

    def index(self, path: Path, options: ReadOptions) -> Index:
        root = path.resolve()
        tables = _tables(root)
        if len({table.suffix for table, _ in tables}) > 1:
            raise UserError(
                f"The folder {path} holds metadata.csv and metadata.jsonl: keep one "
                "kind."
            )
        rows: list[Row] = []
        columns, choices = set(), {}
        for table, split in tables:
            found, column, others = _read(table, root, split, options)
            rows += found
            columns.add(column)
            choices |= dict.fromkeys(others)
        if len(columns) > 1:
            raise UserError(
                f"The tables of {path} name the patient in some splits only: give all "
                "of them the same columns."
            )
        return index_of_rows(
            rows,
            format_name=self.name,
            root=root,
            options=options,
            unit_column=columns.pop(),
            unit_choices=tuple(choices),
            has_splits=bool(options.split_column)
            or any(split in ("val", "test") for _, split in tables),
        )


def _tables(path: Path) -> list[tuple[Path, str]]:
    """Every table and the split it is for, "" for a table of no split."""
    if not path.is_dir():
        return []
    found = []
    for top in (path, path / "data"):
        folders = [(top, "")]
        if top.is_dir():
            folders += [
                (folder, SPLIT_NAMES[folder.name.lower()])
                for folder in sorted(top.iterdir())
                if folder.name.lower() in SPLIT_NAMES and folder.is_dir()
            ]
        for folder, split in folders:
            for name in _NAMES:
                if (folder / name).is_file() and not is_clutter(folder.name):
                    found.append((folder / name, split))
        if found:
            return found
    return found


def _read(
    table: Path, root: Path, split: str, options: ReadOptions
) -> tuple[list[Row], str, tuple[str, ...]]:
    """The rows of one table, the column of its patients, and what else could be it."""
    path, label = options.path_column or _PATH, options.label_column or _LABEL
    split_column = options.split_column
    units = (options.unit_column,) if options.unit_column else UNIT_COLUMNS
    lines = _lines(table, root, (path, label, split_column, *units))
    header = next(lines)
    require_column(label, header, table.name, "label_column")
    require_column(path, header, table.name, "path_column")
    unit = unit_column(options, header, table.name)
    if split_column:
        require_column(split_column, header, table.name, "split_column")
    folder = table.parent.relative_to(root).as_posix()
    rows = []
    for where, cells in lines:
        rows.append(
            Row(
                path=_text(cells, path, where),
                label=_text(cells, label, where),
                unit=_text(cells, unit, where) if unit else "",
                split=_text(cells, split_column, where) if split_column else split,
                where=where,
                folder="" if folder == "." else folder,
            )
        )
    return rows, unit, other_columns(header, path, label, split_column)


def _lines(table: Path, root: Path, deciding: tuple[str, ...]) -> Iterator[Any]:
    """First the names of the columns, then (where, {column: value}) line by line.

    Raises:
        UserError: If the table is empty, or one line has a column of `deciding` and
            another has not.
    """
    if table.suffix == ".csv":
        header = read_header(table, root)
        yield header
        named = tuple(name for name in header if name)
        for number, row in enumerate(read_table(table, root, named), start=2):
            yield f"Row {number} of {table.name}", dict(zip(named, row, strict=True))
        return
    entries = list(read_json_lines(table, root))
    if not entries:
        raise UserError(f"The file {table.name} is empty: write it again.")
    for key in filter(None, deciding):
        _refuse_some_lines_only(key, entries, table.name)
    yield list(entries[0][1])
    for number, entry in entries:
        yield f"Line {number} of {table.name}", entry


def _refuse_some_lines_only(
    key: str, entries: list[tuple[int, dict[str, Any]]], table: str
) -> None:
    having = [number for number, entry in entries if key in entry]
    # PRIVACY: all lines have a column or none has. If one line decided whether there
    # are patients, this one record would move a fifth of the others.
    if 0 < len(having) < len(entries):
        lacking = next(number for number, entry in entries if key not in entry)
        raise UserError(
            f"Line {having[0]} of {table} has the key {key!r} and line {lacking} has "
            "not: write it into every line, with null where nothing is known, or into "
            "none."
        )


def _text(cells: dict[str, Any], column: str, where: str) -> str:
    """A cell as text; whole numbers count as text, other values as none."""
    value = cells.get(column)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(
            f"{where} has a {column} that is neither text nor a whole number: correct "
            "that line."
        )
    return check_cell(str(value).strip(), where)
