"""What every on-disk format gives: an index of records, without a pixel decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from core.data.dataset import Problem
from core.data.options import ReadOptions
from core.data.reading import FileImages, Picture


class Images(Protocol):
    """Where the pixels of an index come from, in the order of its records."""

    def __len__(self) -> int: ...

    def channels(self) -> int:
        """1 or 3, from format and headers alone."""

    def read(
        self, resolution: int, channels: int, first: int = 0
    ) -> Iterator[list[Picture | Problem]]:
        """All images from one on, in order, in batches of bounded size."""

    def name(self, number: int) -> str:
        """What the custodian finds an image by, such as its file."""

    def signature(self) -> str:
        """Hex digest that changes when a file changes, without reading its content."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """The records of a dataset, column by column.

    Attributes:
        format_name: As shown to the custodian.
        class_names: Names of all classes.
        classes_declared: Whether the custodian named them, those without images too.
        images: The pixels, N of them.
        labels: int64 [N], positions in `class_names`.
        groups: Text [N] naming the group (patient) of each record, "" where it is not
            told, or None when the format has no groups.
        unit_column: What the groups are called ("patient"), "" without groups.
        unit_choices: All that `ReadOptions.unit_column` may name here.
        left_out: bool [N], records that the declarations leave out, or None.
        official_splits: uint8 [N], positions in `official_split_names`, or None when
            the format has no splits and `core.data.splitting` must make them.
        official_split_names: The names that the format uses.
        train_splits: Those of the names whose records may be trained on.
        problems: Files that were left out already.
        folder: What the custodian chose, for sentences.
    """

    format_name: str
    class_names: tuple[str, ...]
    images: Images
    labels: np.ndarray
    groups: tuple[str, ...] | None = None
    unit_column: str = ""
    unit_choices: tuple[str, ...] = ()
    left_out: np.ndarray | None = None
    official_splits: np.ndarray | None = None
    official_split_names: tuple[str, ...] = ("train", "held_out")
    train_splits: tuple[str, ...] = ("train",)
    problems: tuple[Problem, ...] = ()
    folder: Path = Path()
    classes_declared: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def files(self) -> np.ndarray:
        """Which records lie in one file, whose fate they share: int64 [N], a number
        for each file. In an array each image is on its own."""
        if isinstance(self.images, FileImages):
            return self.images.files()
        return np.arange(len(self))

    @property
    def several_frames(self) -> bool:
        """Whether some file holds several of the records."""
        return len(np.unique(self.files())) < len(self)

    @property
    def studies_apart(self) -> bool:
        """Whether files of one study, and so of one patient, are units each."""
        if not isinstance(self.images, FileImages) or not self.images.studies:
            return False
        records = zip(self.files().tolist(), self.groups or (), strict=True)
        files = {file for file, group in records if group.startswith("\0")}
        named = [study for file in files if (study := self.images.studies[file])]
        return len(set(named)) < len(named)


class Format(Protocol):
    """One layout on disk."""

    name: str

    def detect(self, path: Path) -> bool:
        """Whether the folder `path` looks like this format; reads little, never fails
        on a folder of another format."""

    def index(self, path: Path, options: ReadOptions) -> Index:
        """List the records below `path`, as the custodian's declarations have it.

        Raises:
            UserError: If the layout is broken in a way that no single file explains.
        """
