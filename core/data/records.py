"""Goes once through all images of an index and keeps the columns of those that read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.data.dataset import Problem, Split
from core.data.formats import Index
from core.data.kinship import sketch
from core.data.reading import Picture
from core.data.splitting import held_out
from core.errors import UserError
from core.events import Watcher


@dataclass(frozen=True, kw_only=True)
class Records:
    """The columns of `ImageDataset` for the n images that could be read."""

    labels: np.ndarray
    units: np.ndarray
    splits: np.ndarray
    official_splits: np.ndarray
    fingerprint: str
    sketch: np.ndarray
    problems: tuple[Problem, ...]


def read_records(
    index: Index,
    resolution: int,
    channels: int,
    keep: Callable[[list[Picture]], None],
    watcher: Watcher,
) -> Records:
    """Read every image once, in order; memory holds one batch of pixels.

    Args:
        index: What to read.
        resolution: Side of the working images.
        channels: 1 or 3.
        keep: Gets the pictures of each batch.
        watcher: Told of progress; asked between batches whether to stop.

    Raises:
        UserError: If what is left is no dataset to train on.
        Stopped: If the watcher asked to stop.
    """
    total = len(index)
    # What no reading can mend is said before the first image is read.
    expected = np.arange(total)
    if index.left_out is not None:
        expected = expected[~index.left_out]
    _refuse_unusable(index, expected, list(index.problems))
    kept: list[int] = []
    digests = bytearray()
    problems = list(index.problems)
    done = 0
    for batch in index.images.read(resolution, channels):
        watcher.stop_if_requested()
        pictures = []
        for offset, outcome in enumerate(batch):
            if index.left_out is not None and index.left_out[done + offset]:
                continue
            if isinstance(outcome, Problem):
                problems.append(outcome)
                continue
            kept.append(done + offset)
            digests += outcome.digest
            pictures.append(outcome)
        keep(pictures)
        done += len(batch)
        watcher.progress("Reading images", done, total)
    rows = np.array(kept, np.int64)
    _refuse_unusable(index, rows, problems)
    labels = index.labels[rows]
    units = _units(index, rows)
    official = _official_splits(index, rows, bytes(digests))
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
        fingerprint=_fingerprint(bytes(digests), labels),
        sketch=sketch(bytes(digests)),
        problems=tuple(problems),
    )


def _refuse_unusable(index: Index, rows: np.ndarray, problems: list[Problem]) -> None:
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
    if len(read) < 2:
        raise UserError(
            f"All images of {index.folder} belong to one class "
            f"({index.class_names[read.pop()]}): add a second class, in a folder of "
            "its own, or choose the folder above if that holds one folder per class."
        )


def _official_splits(index: Index, rows: np.ndarray, digests: bytes) -> np.ndarray:
    if index.official_splits is not None:
        return index.official_splits[rows]
    if index.groups is not None:
        # A unit of one image without a name goes where its copies go.
        names = [
            digests[32 * i : 32 * i + 32]
            if index.groups[row].startswith("\0")
            else index.groups[row].encode()
            for i, row in enumerate(rows)
        ]
    else:
        names = [digests[i : i + 32] for i in range(0, len(digests), 32)]
    return np.array([held_out(name) for name in names], np.uint8)


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


def _fingerprint(digests: bytes, labels: np.ndarray) -> str:
    entries = sorted(
        digests[32 * i : 32 * i + 32] + int(label).to_bytes(8, "big")
        for i, label in enumerate(labels)
    )
    return hashlib.sha256(b"".join(entries)).hexdigest()
