"""One folder of images per class, with or without train and test folders above."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from core.data.dataset import Problem, shown
from core.data.formats.base import Index
from core.data.formats.dicom import is_dicom, with_dicom_headers
from core.data.options import LEAVE_OUT, OWN_UNIT, ReadOptions
from core.data.paths import escapes, is_clutter, natural, walk
from core.data.reading import FileImages, is_picture
from core.data.splitting import SPLIT_NAMES, official_splits
from core.data.tables import read_table
from core.errors import Undeclared, UserError

UNITS_FILE: Final = "units.csv"


class ClassFolders:
    """`[train|val|test/]<class>/**/*.png`, as torchvision's ImageFolder has it.

    Classes are sorted by name, numbers by value. An optional `units.csv` beside them,
    with the columns `file` (relative, forward slashes) and `unit`, names the patient of
    every image. Without a test or validation folder, 20 % are held out, unit by unit.
    """

    name = "class folders"

    def detect(self, path: Path) -> bool:
        try:
            return any(
                entry.is_dir() and not is_clutter(entry.name)
                for entry in path.iterdir()
            )
        except OSError:
            return False

    def index(self, path: Path, options: ReadOptions) -> Index:
        root = path.resolve()
        problems: list[Problem] = []
        tops = _split_folders(root)
        found: list[tuple[str, str, str]] = []  # file, class name, split
        for folder, split in tops or [("", "")]:
            found += _images(root, folder, split, problems)
        class_names = tuple(sorted({name for _, name, _ in found}, key=natural))
        number = {name: label for label, name in enumerate(class_names)}
        paths = tuple(file for file, _, _ in found)
        splits = official_splits(
            [split for _, _, split in found],
            known=any(split != "train" for _, split in tops),
        )
        table = root / UNITS_FILE
        has_units = table.is_file()
        index = Index(
            format_name=self.name,
            class_names=class_names,
            images=FileImages(root=root, paths=paths, window=options.window),
            labels=np.array([number[name] for _, name, _ in found], np.int64),
            groups=_units(table, root, paths, problems, options) if has_units else None,
            unit_column="unit" if has_units else "",
            official_splits=splits.numbers,
            official_split_names=splits.names,
            problems=tuple(problems),
        )
        return with_dicom_headers(index, options)


def _split_folders(root: Path) -> list[tuple[str, str]]:
    """The top folders and their splits when all of them are named after splits."""
    folders = [
        folder.name
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not is_clutter(folder.name)
    ]
    splits = [SPLIT_NAMES.get(folder.lower()) for folder in folders]
    if "train" not in splits or None in splits:
        return []
    return [(f, s) for f, s in zip(folders, splits, strict=True) if s is not None]


def _images(
    root: Path, top: str, split: str, problems: list[Problem]
) -> list[tuple[str, str, str]]:
    """Every image below one split: path relative to the root, class name, split."""
    found = []
    classes_seen = set()
    above = len(top) + 1 if top else 0
    for path in walk(root, top, problems):
        class_name, _, below = path[above:].partition("/")
        is_image = is_picture(path)
        if not below:
            if is_image:
                problems.append(_left_out(path, "no class"))
        elif is_image or is_dicom(root, path):
            classes_seen.add(class_name)
            found.append((path, class_name, split))
        else:
            problems.append(_left_out(path, "other file"))
    for folder in sorted((root / top).iterdir()):
        if is_clutter(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        if folder.name not in classes_seen:
            path = folder.relative_to(root).as_posix()
            problems.append(_left_out(path, "empty class"))
        elif not folder.name.isprintable():
            raise UserError(
                f"The name of the class folder {shown(folder.name)} holds characters "
                "that cannot be seen: rename it."
            )
    return found


_WHY: Final = {
    "no class": "The image lies in no class folder: move it into one.",
    "other file": "The file is no PNG, JPEG, TIFF, BMP or DICOM image by its ending "
    "and was left out: convert or remove it.",
    "empty class": "The folder holds no image and makes no class: fill or remove it.",
}


def _left_out(path: str, kind: str) -> Problem:
    return Problem(path=path, kind=kind, message=_WHY[kind])


def _units(
    table: Path,
    root: Path,
    paths: tuple[str, ...],
    problems: list[Problem],
    options: ReadOptions,
) -> tuple[str, ...]:
    """The unit of every image, as `units.csv` says; "" where it says nothing."""
    unit_of: dict[str, str] = {}
    for number, (file, unit) in enumerate(
        read_table(table, root, ("file", "unit")), start=2
    ):
        if not file:
            raise UserError(
                f"Row {number} of {UNITS_FILE} has no file: fill it in, or remove the "
                "row."
            )
        if not unit and not options.missing_unit:
            raise Undeclared(
                f"Row {number} of {UNITS_FILE} has no unit",
                "fill it in, since every image needs a unit, or declare what becomes "
                "of images without one.",
                wanted=("missing_unit",),
            )
        if escapes(file):
            raise UserError(
                f"Row {number} of {UNITS_FILE} names {file!r}, which is not a path "
                "below the dataset's folder: use a relative path such as class/a.png."
            )
        file = "/".join(part for part in file.split("/") if part not in ("", "."))
        if file in unit_of:
            raise UserError(
                f"Row {number} of {UNITS_FILE} names {file} a second time: keep one "
                "row per image."
            )
        unit_of[file] = unit
    for path in paths:
        if path not in unit_of and not options.missing_unit:
            raise Undeclared(
                f"The image {shown(path)} is not in {UNITS_FILE}",
                "add a row with its unit, or declare what becomes of images without "
                "one.",
                wanted=("missing_unit",),
            )
    known = set(paths)
    for file in unit_of:
        if file not in known:
            # PRIVACY: it may be there under a name spelt otherwise, and each image of
            # this patient would be a unit.
            if options.missing_unit == OWN_UNIT and not known <= unit_of.keys():
                raise UserError(
                    f"{UNITS_FILE} names {shown(file)}, which is not there, while "
                    "other images are in no row: correct that row, or leave images "
                    f"without a unit out ({LEAVE_OUT})."
                )
            problems.append(
                Problem(
                    path=file,
                    kind="missing",
                    message=f"{UNITS_FILE} names it, but no such image is there: "
                    "restore the file or remove the row.",
                )
            )
    return tuple(unit_of.get(path, "") for path in paths)
