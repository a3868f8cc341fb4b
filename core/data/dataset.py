"""What the data room hands to the rest of the house: images, labels, units, splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np


class Split(IntEnum):
    """What a record may be used for."""

    TRAIN = 0

    HELD_OUT = 1
    """Never trained on; real data for internal evaluation only."""

    UNUSED = 2
    """Neither: the layout holds it out, but trains on other images of its unit."""


def shown(name: str) -> str:
    """A name with everything that cannot be seen, or written as text, replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A file that was left out or is to be looked at, and why.

    Attributes:
        path: Relative to the dataset's folder, with forward slashes.
        kind: A few words to count problems by ("cannot be decoded").
        message: One sentence with the remedy.
        left_out: Whether the file was left out. False for a warning about files that
            were read all the same.
    """

    path: str
    kind: str
    message: str
    left_out: bool = True

    def __post_init__(self) -> None:
        # A file may be called anything, and this is shown in terminals and windows.
        object.__setattr__(self, "path", shown(self.path))


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """A private dataset at the working resolution.

    Attributes:
        images: Memory map, uint8 [N, H, W, C], C = 1 or 3, H = W; where the cache is
            encrypted, what opens rows of it when they are asked for.
        labels: int64 [N], positions in `class_names`.
        class_names: Names of all classes; with IDX files some may have no image.
        units: int64 [N], number of the group (patient) an image belongs to, or
            arange(N) when the format has no groups.
        has_groups: Whether `units` comes from a real grouping column.
        unit_column: What that column is called ("patient"), "" without one.
        splits: uint8 [N], values of `Split`.
        official_splits: uint8 [N], positions in `official_split_names`: the split as
            the dataset's own authors name it, so that an evaluation can use one
            test hospital only.
        official_split_names: Such as ("train", "id_val", "val", "test").
        format_name: As `core.data.formats` names it, such as "class folders".
        fingerprint: Hex SHA-256 over the sorted pairs of (SHA-256 of the image's
            original bytes, label). Renaming or reordering files does not change it, nor
            does the working resolution. It confirms a guess of the data, so it stays
            inside unless it is keyed first.
        grouping: Hex SHA-256 over which images belong to one unit, and what each may be
            used for. Like the fingerprint, it stays inside.
        membership: The same of which images belong to one unit only.
        problems: Every file that was left out, and warnings.
        unit_choices: All that could be declared as the unit column.
        several_frames: Whether a file held several of the images.
        studies_apart: Whether files of one study that name no patient are units each.
        classes_confirmed: Whether `class_names` was declared by the custodian. If not,
            it was taken from the folder, and has to be confirmed before a release.
        sketch: uint64 [n]: a sample of hashes of the images, by which
            `core.data.kinship` recognises a dataset that grew or shrank. Internal.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    units: np.ndarray
    has_groups: bool
    splits: np.ndarray
    official_splits: np.ndarray
    official_split_names: tuple[str, ...]
    format_name: str
    fingerprint: str
    problems: tuple[Problem, ...]
    grouping: str = ""
    membership: str = ""
    unit_column: str = ""
    unit_choices: tuple[str, ...] = ()
    several_frames: bool = False
    studies_apart: bool = False
    classes_confirmed: bool = False
    sketch: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, split: Split) -> np.ndarray:
        """Positions of the records of one split, int64 [n], ascending."""
        return np.flatnonzero(self.splits == split).astype(np.int64)

    def official_subset(self, name: str) -> np.ndarray:
        """Positions of the records of one official split, int64 [n], ascending.

        Raises:
            ValueError: If the dataset has no split of that name.
        """
        number = self.official_split_names.index(name)
        return np.flatnonzero(self.official_splits == number).astype(np.int64)
