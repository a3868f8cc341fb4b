"""WILDS Camelyon17 v1.0: patches of lymph-node slides from five hospitals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from core.data.dataset import Problem
from core.data.formats.base import Index
from core.data.formats.listed import check_same_unit
from core.data.options import ReadOptions, choose_unit
from core.data.paths import escapes
from core.data.reading import FileImages
from core.data.tables import read_table
from core.errors import UserError

COLUMNS: Final = (
    "patient",
    "node",
    "x_coord",
    "y_coord",
    "tumor",
    "slide",
    "center",
    "split",
)
OFFICIAL_SPLITS: Final = ("train", "id_val", "val", "test")
UNIT_COLUMNS: Final = {"patient": "patient", "slide": "slide", "hospital": "center"}
CLASS_NAMES: Final = ("normal", "tumour")

_TRAIN, _ID_VAL, _VAL, _TEST = range(4)
_FOLDER: Final = "camelyon17_v1.0"
# What WILDS' own loader does at load: these hospitals are out of distribution, whatever
# the split column says. Trusting the column would train on the test hospital.
_OUT_OF_DISTRIBUTION: Final = {1: _VAL, 2: _TEST}
_ALLOWED: Final = {
    "patient": re.compile(r"\d{1,3}"),
    "node": re.compile(r"\d{1,2}"),
    "x_coord": re.compile(r"\d{1,7}"),
    "y_coord": re.compile(r"\d{1,7}"),
    "tumor": re.compile(r"[01]"),
    "slide": re.compile(r"\d{1,3}"),
    "center": re.compile(r"[0-4]"),
    "split": re.compile(r"[01]"),
}


class Camelyon17:
    """`[camelyon17_v1.0/]metadata.csv` and `patches/patient_…/patch_….png`.

    Patients are the groups, unless slides or hospitals are chosen. Trained on: rows of
    split 0 of hospitals 0, 3 and 4. The others keep WILDS' names id_val, val (hospital
    1) and test (hospital 2); id_val shares its patients with train, so that by patient
    nothing of it is held out.
    """

    name = "WILDS Camelyon17 v1.0"

    def detect(self, path: Path) -> bool:
        root = _root(path)
        return (root / "metadata.csv").is_file() and (root / "patches").is_dir()

    def index(self, path: Path, options: ReadOptions) -> Index:
        root = _root(path).resolve()
        table = root / "metadata.csv"
        rows = read_table(table, root, COLUMNS)
        column = UNIT_COLUMNS[choose_unit(options, tuple(UNIT_COLUMNS))]
        paths, groups, labels, splits = [], [], [], []
        seen: dict[str, str] = {}
        problems = []
        for number, row in enumerate(rows, start=2):
            _check(row, number)
            patient, node, x, y, tumor, _, center, split = row
            file = patch_path(patient, node, x, y)
            group = row[COLUMNS.index(column)]
            if file in seen:
                check_same_unit(file, seen[file], group, f"metadata.csv, row {number},")
                problems.append(
                    Problem(
                        path=file,
                        kind="listed twice",
                        message=f"metadata.csv lists it again in row {number}: the "
                        "first row counts; remove the other.",
                    )
                )
                continue
            seen[file] = group
            paths.append(file)
            groups.append(group)
            labels.append(int(tumor))
            splits.append(_OUT_OF_DISTRIBUTION.get(int(center), int(split)))
        return Index(
            format_name=self.name,
            class_names=CLASS_NAMES,
            images=FileImages(root=root, paths=tuple(paths)),
            labels=np.array(labels, np.int64),
            groups=tuple(groups),
            unit_column=choose_unit(options, tuple(UNIT_COLUMNS)),
            unit_choices=tuple(UNIT_COLUMNS),
            official_splits=np.array(splits, np.uint8),
            official_split_names=OFFICIAL_SPLITS,
            problems=tuple(problems),
        )


def patch_path(patient: str, node: str, x: str, y: str) -> str:
    """Path of a patch; `patient` is text with its leading zeros ("004")."""
    slide = f"patient_{patient}_node_{node}"
    return f"patches/{slide}/patch_{slide}_x_{x}_y_{y}.png"


def _root(path: Path) -> Path:
    inner = path / _FOLDER
    return inner if inner.is_dir() else path


def _check(row: tuple[str, ...], number: int) -> None:
    for column, value in zip(COLUMNS, row, strict=True):
        if _ALLOWED[column].fullmatch(value):
            continue
        if column == "tumor" and value == "-1":
            raise UserError(
                f"Row {number} of metadata.csv has no label (tumor is -1): choose the "
                "labelled dataset camelyon17_v1.0."
            )
        if not value.strip():
            raise UserError(
                f"Row {number} of metadata.csv has no {column}: fill it in, or take "
                "the row out."
            )
        if escapes(value) or "/" in value:
            raise UserError(
                f"Row {number} of metadata.csv leads out of the dataset's folder "
                f"({column} is {value!r}): correct that row."
            )
        raise UserError(
            f"Row {number} of metadata.csv has the value {value!r} for {column}, which "
            "WILDS Camelyon17 v1.0 does not allow: correct that row."
        )
