"""Reads the CSV tables that come with a dataset, with limits and plain errors."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Final

from core.data.paths import leaves
from core.errors import UserError

MAX_BYTES: Final = 512 * 1024 * 1024
MAX_ROWS: Final = 10_000_000
_MAX_FIELD: Final = 4096
# Bidirectional marks can make one path look like another on the screen.
_UNSEEN: Final = re.compile(
    "[\u200e\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]"
)


def read_table(
    path: Path, root: Path, columns: tuple[str, ...]
) -> list[tuple[str, ...]]:
    """Read the named columns of a comma-separated UTF-8 table, all as text.

    Args:
        path: The file.
        root: The folder that it must not leave, resolved.
        columns: Names that its first line must contain, in any order and among others.

    Returns:
        One tuple per row, in the order of `columns`. Row k of the result is line k + 2
        of a table without line breaks in its fields.

    Raises:
        UserError: If it cannot be read, lacks a column, or breaks a limit.
    """
    name = path.name
    if leaves(path, root):
        raise UserError(
            f"The file {name} is a link that leaves {root}: copy the file itself there."
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"The file {name} is larger than {MAX_BYTES // 2**20} MB: split the "
                "dataset."
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    except UnicodeDecodeError:
        raise UserError(
            f"The file {name} is not UTF-8 text: save it as CSV in UTF-8."
        ) from None
    try:
        return _rows(text, name, columns)
    except csv.Error as error:
        raise UserError(
            f"The file {name} is not a valid CSV table ({error}): export it again."
        ) from None


def _rows(text: str, name: str, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [cell.strip() for cell in next(reader, [])]
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"The file {name} lacks the column {', '.join(missing)}: its first line "
            f"must name {', '.join(columns)}, separated by commas."
        )
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise UserError(
            f"The file {name} names the column {twice[0]} twice: remove one of them."
        )
    places = [header.index(column) for column in columns]
    rows = []
    for cells in reader:
        if not cells:
            continue
        line = reader.line_num
        if len(cells) != len(header):
            raise UserError(
                f"Line {line} of {name} has {len(cells)} fields instead of "
                f"{len(header)}: correct that line."
            )
        if len(rows) >= MAX_ROWS:
            raise UserError(
                f"The file {name} has more than {MAX_ROWS:,} rows: split the dataset."
            )
        row = tuple(cells[place].strip() for place in places)
        if any(len(cell) > _MAX_FIELD or _UNSEEN.search(cell) for cell in row):
            raise UserError(
                f"Line {line} of {name} holds invisible characters or an overlong "
                "field: correct that line."
            )
        rows.append(row)
    return rows
