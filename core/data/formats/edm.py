"""EDM and StyleGAN folders: PNG files in numbered folders and one `dataset.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.data.formats.base import Index
from core.data.formats.listed import Row, index_of_rows
from core.data.options import ReadOptions
from core.data.tables import check_cell, read_json_file
from core.errors import UserError

_TABLE: Final = "dataset.json"


class Edm:
    """`dataset.json` = {"labels": [["00000/img00000000.png", 6], …]} and the images.

    Classes are called by their numbers.
    """

    name = "EDM dataset.json"

    def detect(self, path: Path) -> bool:
        return (path / _TABLE).is_file()

    def index(self, path: Path, options: ReadOptions) -> Index:
        root = path.resolve()
        content = read_json_file(root / _TABLE, root)
        labels = content.get("labels") if isinstance(content, dict) else None
        if not isinstance(labels, list):
            raise UserError(
                f"The file {_TABLE} of {path} has no labels, and Sfumato needs a class "
                "for each image: write it with labels, or move the images into one "
                "folder per class without that file."
            )
        return index_of_rows(
            _rows(labels),
            format_name=self.name,
            root=root,
            options=options,
            unit_column="",
        )


def _rows(labels: list[object]) -> Iterator[Row]:
    for number, entry in enumerate(labels, start=1):
        where = f"Entry {number} of {_TABLE}"
        match entry:
            case [str(path), int(label)] if not isinstance(label, bool):
                yield Row(path=check_cell(path, where), label=str(label), where=where)
            case [str(), [*_]]:
                raise UserError(
                    f"{where} has a list as its label, but a synthetic image is made "
                    "for one class: write one whole number for each image."
                )
            case _:
                raise UserError(
                    f"{where} is no pair of a path and a whole number: write the file "
                    "again."
                )
