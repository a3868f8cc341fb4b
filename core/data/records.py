"""Goes once through all images of an index and keeps the columns of those that read."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from core.data.dataset import Problem, Split, shown
from core.data.formats import Index
from core.data.kinship import sketch
from core.data.reading import Picture
from core.data.splitting import held_out
from core.errors import Undeclared, UserError
from core.events import Watcher


@dataclass(frozen=True, kw_only=True)
class Records:
    """The columns of `ImageDataset` for the n images that could be read."""

    labels: np.ndarray
    units: np.ndarray
    splits: np.ndarray
    official_splits: np.ndarray
    fingerprint: str
    grouping: str
    membership: str
    sketch: np.ndarray
    problems: tuple[Problem, ...]


class Intake:
    """What was read so far; pixels are handed on and not kept here.

    Attributes:
        done: Records of the index that were gone through.
        rows: Those of them that could be read, in order.
        digests: 32 bytes for each of these.
        problems: Why the others could not.
    """

    def __init__(self) -> None:
        self.done = 0
        self.rows = array("q")
        self.digests = bytearray()
        self.problems: list[Problem] = []

    def take(self, batch: list[Picture | Problem], left_out: np.ndarray | None) -> None:
        """Go through the next records of the index."""
        pictures = []
        for row, outcome in enumerate(batch, start=self.done):
            if left_out is not None and left_out[row]:
                continue
            if isinstance(outcome, Problem):
                # A file of many frames is one problem.
                if outcome not in self.problems[-1:]:
                    self.problems.append(outcome)
                continue
            self.rows.append(row)
            self.digests += outcome.digest
            pictures.append(outcome)
        self.done += len(batch)
        self.keep(pictures)

    def keep(self, pictures: list[Picture]) -> None:
        """Do with the pictures of one batch what the reading is for."""
        raise NotImplementedError


def read_records(
    index: Index, resolution: int, channels: int, intake: Intake, watcher: Watcher
) -> Records:
    """Read every image once, in order; memory holds a few batches of pixels.

    Args:
        index: What to read.
        resolution: Side of the working images.
        channels: 1 or 3.
        intake: Gets the batches; one that has been fed already is fed the rest.
        watcher: Told of progress; asked between batches whether to stop.

    Raises:
        UserError: If what is left is no dataset to train on.
        Stopped: If the watcher asked to stop.
    """
    # What no reading can mend is said before the first image is read.
    expected = np.arange(len(index))
    if index.left_out is not None:
        expected = expected[~index.left_out]
    _refuse_unusable(index, expected, index.problems)
    _feed(index, resolution, channels, intake, watcher)
    rows = np.array(intake.rows, np.int64)
    problems = (*index.problems, *intake.problems)
    _refuse_unusable(index, rows, problems)
    digests = bytes(intake.digests)
    labels = index.labels[rows]
    units = _units(index, rows)
    official = _official_splits(index, rows, digests)
    splits = _splits(index, official, units)
    if not (splits == Split.TRAIN).any():
        raise UserError(
            "No image is left to train on, all belong to held-out splits: add images "
            "of the training split."
        )
    return Records(
        labels=labels,
        units=units,
        splits=splits,
        official_splits=official,
        fingerprint=_fingerprint(digests, labels),
        grouping=_grouping(digests, labels, units, splits),
        membership=_grouping(digests, labels, units, np.zeros_like(splits)),
        sketch=sketch(digests),
        problems=problems,
    )


def _feed(
    index: Index, resolution: int, channels: int, intake: Intake, watcher: Watcher
) -> None:
    if intake.done < len(index):
        for batch in index.images.read(resolution, channels, intake.done):
            watcher.stop_if_requested()
            intake.take(batch, index.left_out)
            watcher.progress("Reading images", intake.done, len(index))


def _refuse_unusable(
    index: Index, rows: np.ndarray, problems: tuple[Problem, ...]
) -> None:
    try:
        _refuse_no_dataset(index, rows, problems)
    except UserError as error:
        if _commonest(problems) == "missing":
            raise _not_there(index, problems) from error
        deep = [found for found in problems if found.kind == "no window"]
        if not deep:
            raise
        raise Undeclared(
            f"{len(deep):,} files have more than 8 bits per pixel and no range of "
            f"their own ({deep[0].path} is one)",
            "declare a window, the values that are shown as black and as white.",
            wanted=("window",),
        ) from error


def _commonest(problems: tuple[Problem, ...]) -> str:
    kinds = Counter(found.kind for found in problems if found.left_out)
    return max(kinds, key=kinds.__getitem__, default="")


def _not_there(index: Index, problems: tuple[Problem, ...]) -> UserError:
    absent = [found.path for found in problems if found.kind == "missing"]
    table = index.folder.name if index.folder.is_file() else f"{index.folder}"
    return UserError(
        f"{len(absent):,} of the {len(index):,} files named in {table} "
        f"{'is' if len(absent) == 1 else 'are'} not there ({absent[0]}): correct the "
        "paths."
    )


def _refuse_no_dataset(
    index: Index, rows: np.ndarray, problems: tuple[Problem, ...]
) -> None:
    if len(rows) == 0:
        first = problems[0] if problems else None
        reason = f" ({first.path}: {first.message})" if first else ""
        raise UserError(
            f"No readable image was found{reason}: choose a folder that holds PNG, "
            "JPEG, TIFF or BMP images in one folder per class."
        )
    if len(rows) == 1:
        raise UserError(
            f"The folder {index.folder} holds a single image: choose a folder with "
            "many images of each of at least two classes."
        )
    read = set(np.unique(index.labels[rows]).tolist())
    declared = ~index.left_out if index.left_out is not None else slice(None)
    for label in np.unique(index.labels[declared]).tolist():
        if label not in read:
            raise UserError(
                f"The class {index.class_names[label]} has no readable image: repair "
                "its files or remove the class."
            )
    # PRIVACY: one image more or less of a declared class does not decide on a release.
    if len(read) < 2 and not index.classes_declared:
        raise _one_class(index, index.class_names[read.pop()], problems)


def _one_class(index: Index, name: str, problems: tuple[Problem, ...]) -> UserError:
    for problem in problems:
        if problem.kind == "folder cannot be read":
            return UserError(f"{problem.path}: {problem.message}")
    where = "choose the folder above if that holds one folder per class"
    inner = index.folder / name
    if inner.is_dir() and any(entry.is_dir() for entry in inner.iterdir()):
        where = f"choose the folder {name} in it if that holds one folder per class"
    hint = table_hint(index.folder) if index.format_name == "class folders" else ""
    return UserError(
        f"All images of {index.folder} belong to one class ({name}): add a second "
        f"class, in a folder of its own, or {where}.{hint}"
    )


def table_hint(folder: Path) -> str:
    """Where classes may be named in a table that was not chosen; "" if nowhere."""
    tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    names = [shown(table.name) for table in tables if table.name != "units.csv"]
    return f" If {names[0]} names the classes, choose that file." if names else ""


def _official_splits(index: Index, rows: np.ndarray, digests: bytes) -> np.ndarray:
    if index.official_splits is not None:
        return index.official_splits[rows]
    if index.groups is not None:
        # A file without a name goes where its copies go, by the first of its images.
        first: dict[str, bytes] = {}
        names = [
            first.setdefault(index.groups[row], digests[32 * i : 32 * i + 32])
            if index.groups[row].startswith("\0")
            else index.groups[row].encode()
            for i, row in enumerate(rows)
        ]
    else:
        names = [digests[i : i + 32] for i in range(0, len(digests), 32)]
    return np.fromiter((held_out(name) for name in names), np.uint8, len(names))


def _splits(index: Index, official: np.ndarray, units: np.ndarray) -> np.ndarray:
    """What each record may be used for: uint8 [n], values of `Split`."""
    train = [index.official_split_names.index(name) for name in index.train_splits]
    splits = np.where(np.isin(official, train), Split.TRAIN, Split.HELD_OUT)
    if index.groups is not None:
        trained = np.zeros(units.max(initial=-1) + 1, bool)
        trained[units[splits == Split.TRAIN]] = True
        # PRIVACY: no split goes through a patient, or else an evaluation would take
        # what was learnt of a person for what holds of others.
        splits[(splits == Split.HELD_OUT) & trained[units]] = Split.UNUSED
    return splits.astype(np.uint8)


def _units(index: Index, rows: np.ndarray) -> np.ndarray:
    if index.groups is None:
        return np.arange(len(rows), dtype=np.int64)
    names = [index.groups[row] for row in rows.tolist()]
    number = {name: unit for unit, name in enumerate(sorted(set(names)))}
    return np.fromiter((number[name] for name in names), np.int64, len(names))


def _grouping(
    digests: bytes, labels: np.ndarray, units: np.ndarray, splits: np.ndarray
) -> str:
    """Of who belongs to whom and who is trained on; no name or order changes it."""
    # Copies of an image in two classes are told apart by their labels only.
    records = [
        digests[32 * i : 32 * i + 32] + int(label).to_bytes(8, "big") + bytes([split])
        for i, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
    together = []
    order = np.argsort(units, kind="stable").tolist()
    for _, rows in groupby(order, key=units.tolist().__getitem__):
        own = sorted(records[i] for i in rows)
        together.append(hashlib.sha256(b"".join(own)).digest())
    return hashlib.sha256(b"".join(sorted(together))).hexdigest()


def _fingerprint(digests: bytes, labels: np.ndarray) -> str:
    entries = sorted(
        digests[32 * i : 32 * i + 32] + int(label).to_bytes(8, "big")
        for i, label in enumerate(labels.tolist())
    )
    return hashlib.sha256(b"".join(entries)).hexdigest()
