"""One folder of images per class, with or without train and test folders above."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from core.data.dataset import Problem
from core.data.formats.base import Index
from core.data.paths import escapes, is_clutter, natural, walk
from core.data.reading import SUFFIXES, FileImages
from core.data.tables import read_table
from core.errors import UserError

UNITS_FILE: Final = "units.csv"

_SPLIT_FOLDERS: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SPLITS: Final = ("train", "val", "test")


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

    def index(self, path: Path) -> Index:
        root = path.resolve()
        problems: list[Problem] = []
        tops = _split_folders(root)
        found: list[tuple[str, str, str]] = []  # file, class name, split
        for folder, split in tops or [(root, "")]:
            found += _images(root, folder, split, problems)
        class_names = tuple(sorted({name for _, name, _ in found}, key=natural))
        number = {name: label for label, name in enumerate(class_names)}
        paths = tuple(file for file, _, _ in found)
        held_out = {split for _, _, split in found} - {"train", ""}
        table = root / UNITS_FILE
        has_units = table.is_file()
        return Index(
            format_name=self.name,
            class_names=class_names,
            images=FileImages(root=root, paths=paths),
            labels=np.array([number[name] for _, name, _ in found], np.int64),
            groups=_units(table, root, paths, problems) if has_units else None,
            official_splits=np.array(
                [_SPLITS.index(split) for _, _, split in found], np.uint8
            )
            if held_out
            else None,
            official_split_names=_SPLITS if held_out else ("train", "held_out"),
            problems=tuple(problems),
        )


def _split_folders(root: Path) -> list[tuple[Path, str]]:
    """The top folders and their splits when all of them are named after splits."""
    folders = [
        f for f in sorted(root.iterdir()) if f.is_dir() and not is_clutter(f.name)
    ]
    splits = [_SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders]
    if "train" not in splits or None in splits:
        return []
    return [(f, s) for f, s in zip(folders, splits, strict=True) if s is not None]


def _images(
    root: Path, top: Path, split: str, problems: list[Problem]
) -> list[tuple[str, str, str]]:
    """Every image below one split: path relative to the root, class name, split."""
    found = []
    classes_seen = set()
    for file in walk(root, top, problems):
        inside = file.relative_to(root).as_posix()
        below = file.relative_to(top)
        if len(below.parts) == 1:
            if file.suffix.lower() in SUFFIXES:
                problems.append(
                    Problem(
                        path=inside,
                        kind="no class",
                        message="The image lies in no class folder: move it into one.",
                    )
                )
            continue
        if file.suffix.lower() not in SUFFIXES:
            problems.append(
                Problem(
                    path=inside,
                    kind="other file",
                    message="The file has no ending of a PNG, JPEG, TIFF or BMP image "
                    "and was left out: convert or remove it.",
                )
            )
            continue
        classes_seen.add(below.parts[0])
        found.append((inside, below.parts[0], split))
    for folder in top.iterdir():
        if is_clutter(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        if folder.name not in classes_seen:
            problems.append(
                Problem(
                    path=folder.relative_to(root).as_posix(),
                    kind="empty class",
                    message="The folder holds no image and makes no class: fill or "
                    "remove it.",
                )
            )
    return found


def _units(
    table: Path, root: Path, paths: tuple[str, ...], problems: list[Problem]
) -> tuple[str, ...]:
    """The unit of every image, as `units.csv` says."""
    unit_of: dict[str, str] = {}
    for number, (file, unit) in enumerate(
        read_table(table, root, ("file", "unit")), start=2
    ):
        if not file or not unit:
            empty = "unit" if file else "file"
            raise UserError(
                f"Row {number} of {UNITS_FILE} has no {empty}: fill it in, since every "
                "image needs a unit."
            )
        if escapes(file):
            raise UserError(
                f"Row {number} of {UNITS_FILE} names {file!r}, which is not a path "
                "below the dataset's folder: use a relative path such as class/a.png."
            )
        if file in unit_of:
            raise UserError(
                f"Row {number} of {UNITS_FILE} names {file} a second time: keep one "
                "row per image."
            )
        unit_of[file] = unit
    for path in paths:
        if path not in unit_of:
            raise UserError(
                f"The image {path} is not in {UNITS_FILE}: add a row with its unit, or "
                "remove the image."
            )
    known = set(paths)
    for file in unit_of:
        if file not in known:
            problems.append(
                Problem(
                    path=file,
                    kind="missing",
                    message=f"{UNITS_FILE} names it, but no such image is there: "
                    "restore the file or remove the row.",
                )
            )
    return tuple(unit_of[path] for path in paths)
