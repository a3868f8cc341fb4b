"""Goes once through all images of an index and keeps the columns of those that read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.data.dataset import Problem, Split
from core.data.formats import Index
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
    _refuse_unusable(index, np.arange(total), list(index.problems))
    kept: list[int] = []
    digests = bytearray()
    problems = list(index.problems)
    done = 0
    for batch in index.images.read(resolution, channels):
        watcher.stop_if_requested()
        pictures = []
        for offset, outcome in enumerate(batch):
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
    official = _official_splits(index, rows, bytes(digests))
    train = [index.official_split_names.index(name) for name in index.train_splits]
    splits = np.where(np.isin(official, train), Split.TRAIN, Split.HELD_OUT)
    if not (splits == Split.TRAIN).any():
        raise UserError(
            "No image is left to train on, all belong to held-out splits: add images "
            "of the training split."
        )
    return Records(
        labels=labels,
        units=_units(index, rows),
        splits=splits.astype(np.uint8),
        official_splits=official,
        fingerprint=_fingerprint(bytes(digests), labels),
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
            "Only a single image was found: choose a folder with many images of each "
            "class."
        )
    read = set(np.unique(index.labels[rows]).tolist())
    for label in np.unique(index.labels).tolist():
        if label not in read:
            raise UserError(
                f"The class {index.class_names[label]} has no readable image: repair "
                "its files or remove the class."
            )
    if len(read) < 2:
        raise UserError(
            f"All images belong to one class ({index.class_names[read.pop()]}): add a "
            "second class, in a folder of its own."
        )


def _official_splits(index: Index, rows: np.ndarray, digests: bytes) -> np.ndarray:
    if index.official_splits is not None:
        return index.official_splits[rows]
    if index.groups is not None:
        names = [index.groups[row].encode() for row in rows]
    else:
        names = [digests[i : i + 32] for i in range(0, len(digests), 32)]
    return np.array([held_out(name) for name in names], np.uint8)


def _units(index: Index, rows: np.ndarray) -> np.ndarray:
    if index.groups is None:
        return np.arange(len(rows), dtype=np.int64)
    names = np.array([index.groups[row] for row in rows])
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _fingerprint(digests: bytes, labels: np.ndarray) -> str:
    entries = sorted(
        digests[32 * i : 32 * i + 32] + int(label).to_bytes(8, "big")
        for i, label in enumerate(labels)
    )
    return hashlib.sha256(b"".join(entries)).hexdigest()
