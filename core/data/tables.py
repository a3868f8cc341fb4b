"""Reads the CSV and JSON tables beside a dataset, with limits and plain errors."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from core.data.dataset import shown
from core.data.paths import leaves
from core.data.reading import is_picture
from core.errors import UserError

MAX_BYTES: Final = 512 * 1024 * 1024
MAX_ROWS: Final = 10_000_000
_MAX_FIELD: Final = 4096
_MAX_COLUMNS: Final = 1000
_MAX_LINE: Final = 1024 * 1024
_SEPARATORS: Final = (",", ";", "\t")
# Bidirectional marks can make one path look like another on the screen.
_UNSEEN: Final = re.compile(
    "[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x1f\x7f-\x9f\ud800-\udfff]"
)


def read_table(
    path: Path, root: Path, columns: tuple[str, ...]
) -> list[tuple[str, ...]]:
    """Read the named columns of a UTF-8 table, all as text.

    Commas, semicolons or tabs separate the columns, as the first two lines tell: what a
    spreadsheet writes depends on the country.

    Args:
        path: The file.
        root: The folder that it must not leave, resolved.
        columns: Names that its first line must contain, in any order and among others.

    Returns:
        One tuple per row, in the order of `columns`.

    Guarantee: a row is what one line says. A quote that is left open in one patient's
    line would otherwise take the lines of others into its field, up to the next quote,
    so that one patient more were many patients less.

    Raises:
        UserError: If it cannot be read, lacks a column, or breaks a limit.
    """
    with _opened(path, root) as file:
        reader = _reader(file, path.name)
        header = _header(reader, path.name)
        missing = [column for column in columns if column not in header]
        if missing:
            raise UserError(
                f"The file {path.name} lacks the column {', '.join(missing)}: its "
                f"first line must name {', '.join(columns)}.{no_heading(header)}"
            )
        places = [header.index(column) for column in columns]
        return list(_rows(reader, path.name, len(header), places))


def read_header(path: Path, root: Path) -> list[str]:
    """The column names of a table.

    Raises:
        UserError: If it cannot be read or names a column twice.
    """
    with _opened(path, root) as file:
        return _header(_reader(file, path.name), path.name)


def no_heading(header: Iterable[str]) -> str:
    """A sentence to add when a table names an image where its columns should be."""
    for cell in filter(is_picture, header):
        return (
            f" It names no columns, but an image already ({shown(cell)}): add a line "
            "above it that does."
        )
    return ""


def read_json_lines(path: Path, root: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every line of a `.jsonl` table as (line number, object).

    Raises:
        UserError: If it cannot be read, or a line is no JSON object.
    """
    with _opened(path, root) as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), ""), 1):
            if number > MAX_ROWS:
                raise _too_many(path.name)
            if line.strip():
                entry = parse_json(line, f"Line {number} of {path.name}")
                if not isinstance(entry, dict):
                    raise UserError(
                        f"Line {number} of {path.name} is no JSON object: correct that "
                        "line."
                    )
                yield number, entry


def read_json_file(path: Path, root: Path) -> Any:
    """One JSON value.

    Raises:
        UserError: If it cannot be read.
    """
    with _opened(path, root) as file:
        return parse_json(file.read(), f"The file {path.name}")


def parse_json(text: str, what: str) -> Any:
    """JSON in which no key comes twice and no number is infinite.

    Raises:
        UserError: naming `what`, if it is anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a name comes twice")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise UserError(
            f"{what} is not valid JSON, or names a field twice: export it again."
        ) from None


def check_cell(value: str, where: str) -> str:
    """The same text, if it can be shown as it is.

    Raises:
        UserError: naming `where`, if it is overlong or holds invisible characters.
    """
    if len(value) > _MAX_FIELD or _UNSEEN.search(value):
        raise UserError(
            f"{where} holds invisible characters or an overlong field: correct that "
            "line."
        )
    return value


@contextmanager
def _opened(path: Path, root: Path) -> Iterator[IO[str]]:
    name = path.name
    if leaves(path, root):
        raise UserError(
            f"The file {name} is a link that leaves {root}: copy the file itself there."
        )
    try:
        if not path.is_file():
            raise UserError(f"{path} is no ordinary file: remove it.")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"The file {name} is larger than {MAX_BYTES // 2**20} MB: split the "
                "dataset."
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    except UnicodeDecodeError:
        raise UserError(
            f"The file {name} is not UTF-8 text: save it as CSV in UTF-8."
        ) from None
    except csv.Error as error:
        raise UserError(
            f"The file {name} is not a valid CSV table ({error}): export it again."
        ) from None


def _reader(file: IO[str], name: str) -> Any:
    """A reader of the table's rows, whichever separator it has."""
    top = [file.readline(_MAX_LINE) for _ in range(2)]
    file.seek(0)
    return csv.reader(_lines(file, name), strict=True, delimiter=_separator(*top))


def _separator(first: str, second: str) -> str:
    """What parts both lines into as many columns, or else the first; a comma else."""

    def columns(line: str, separator: str) -> int:
        try:
            return len(next(csv.reader([line], strict=True, delimiter=separator), []))
        except csv.Error:
            return 0

    parting = [sign for sign in _SEPARATORS if columns(first, sign) > 1]
    alike = [sign for sign in parting if columns(first, sign) == columns(second, sign)]
    return next(iter(alike or parting), ",")


def _lines(file: IO[str], name: str) -> Iterator[str]:
    """The lines of a table, none of them so long that it fills the memory."""
    for line in iter(lambda: file.readline(_MAX_LINE), ""):
        if len(line) == _MAX_LINE:
            raise UserError(f"A line of {name} is overlong: correct that line.")
        yield line


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    header = [cell.strip() for cell in next(reader, [])]
    if len(header) > _MAX_COLUMNS:
        raise UserError(
            f"The file {name} has more than {_MAX_COLUMNS:,} columns: leave out those "
            "that are not needed."
        )
    for cell, times in Counter(header).items():
        check_cell(cell, f"Line 1 of {name}")
        if cell and times > 1:
            raise UserError(
                f"The file {name} names the column {cell} twice: remove one of them."
            )
    return header


def _rows(
    reader: Any, name: str, width: int, places: Iterable[int]
) -> Iterator[tuple[str, ...]]:
    for count, cells in enumerate(filter(None, reader)):
        if len(cells) != width:
            raise UserError(
                f"Line {reader.line_num} of {name} has {len(cells)} fields instead of "
                f"{width}: correct that line."
            )
        if count >= MAX_ROWS:
            raise _too_many(name)
        where = f"Line {reader.line_num} of {name}"
        # PRIVACY: in any column, read or not: a row never swallows another's.
        if any("\n" in cell or "\r" in cell for cell in cells):
            raise UserError(
                f"{where} ends a field of several lines, which a stray quote makes of "
                "many rows: put each row on one line, or remove the quotes."
            )
        yield tuple(check_cell(cells[place].strip(), where) for place in places)


def _too_many(name: str) -> UserError:
    return UserError(
        f"The file {name} has more than {MAX_ROWS:,} rows: split the dataset."
    )
