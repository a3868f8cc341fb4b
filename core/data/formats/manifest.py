"""A CSV manifest of any hospital: one line for each image, columns of any name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from core.data.formats.base import Index
from core.data.formats.listed import (
    Row,
    index_of_rows,
    other_columns,
    require_column,
    unit_column,
)
from core.data.options import ReadOptions
from core.data.tables import read_header, read_table
from core.errors import UserError

_USUAL_NAME: Final = "manifest.csv"
_PATH: Final = "path"
_LABEL: Final = "label"
_SPLIT: Final = "split"


class Manifest:
    """A `.csv` that names path and class of every image, and perhaps patient and split.

    The file itself may be chosen, or a folder with `manifest.csv`. Paths are relative
    to the table.
    """

    name = "CSV manifest"

    def detect(self, path: Path) -> bool:
        if path.is_file():
            return path.suffix.lower() == ".csv"
        return (path / _USUAL_NAME).is_file()

    def index(self, path: Path, options: ReadOptions) -> Index:
        table = path if path.is_file() else path / _USUAL_NAME
        root = table.parent.resolve()
        table = root / table.name
        header = read_header(table, root)

        def column(declaration: str, usual: str) -> str:
            name = getattr(options, declaration) or usual
            return require_column(name, header, table.name, declaration)

        unit = unit_column(options, header, table.name)
        split = ""
        if options.split_column or _SPLIT in header:
            split = column("split_column", _SPLIT)
        columns = (
            column("path_column", _PATH),
            column("label_column", _LABEL),
            *([unit] if unit else []),
            *([split] if split else []),
        )
        if len(set(columns)) < len(columns):
            raise UserError(
                f"One column of {table.name} is declared for two things: declare "
                "another for one of them."
            )
        rows = [
            Row(
                path=cells[0],
                label=cells[1],
                unit=cells[2] if unit else "",
                split=cells[-1] if split else "",
                where=f"Row {number} of {table.name}",
            )
            for number, cells in enumerate(read_table(table, root, columns), start=2)
        ]
        return index_of_rows(
            rows,
            format_name=self.name,
            root=root,
            options=options,
            unit_column=unit,
            unit_choices=other_columns(header, *columns[:2], split),
            has_splits=bool(split),
        )
