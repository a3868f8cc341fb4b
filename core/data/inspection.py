"""What was found in a folder, for the custodian's eyes only."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from core.data.dataset import ImageDataset, Problem, Split

_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 1000)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Facts of a private folder. Internal: none of them may be released.

    Attributes:
        format_name: The layout that was recognised.
        total: Readable images.
        counts: Images by class name, then by "train", "held_out" and "unused".
        official_counts: Images by the dataset's own names of its splits.
        unit_column: What the units are called, "" when the format names none.
        groups: How many units (patients), or None when the format names none.
        group_sizes: Units by how many images they have ("3–5").
        largest_group: Images of the largest unit, or None.
        look_alikes: Images, at least, with a near-duplicate in another unit; without
            units, with a near-duplicate at all. None: nobody looked.
        look_alike_examples: Pairs of files of such images.
        sizes: Images by "width×height" as stored, the most frequent first; empty when
            nobody looked at the files.
        modes: Images by pixel mode as stored, in Pillow's words; the same.
        colour: Whether the working images have three channels instead of one.
        resolution: Side of the working images in pixels.
        classes_confirmed: Whether the custodian declared the classes.
        problem_counts: Problems by kind, the most frequent first.
        problems: Every file that was left out, and warnings.
    """

    format_name: str
    total: int
    counts: dict[str, dict[str, int]]
    official_counts: dict[str, int]
    unit_column: str
    groups: int | None
    group_sizes: dict[str, int]
    largest_group: int | None
    look_alikes: int | None
    look_alike_examples: tuple[tuple[str, str], ...]
    sizes: dict[str, int]
    modes: dict[str, int]
    colour: bool
    resolution: int
    classes_confirmed: bool
    problem_counts: dict[str, int]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, object]:
        """The same as plain values for `json.dumps`."""
        return asdict(self)

    def text(self) -> str:
        """The same to be read on a terminal."""
        units = ""
        if self.groups is not None:
            units = f", {self.groups:,} units ({self.unit_column})"
        lines = [f"{self.format_name}: {self.total:,} images{units}"]
        for name, counts in self.counts.items():
            split = ", ".join(f"{number:,} {which}" for which, number in counts.items())
            lines.append(f"  {name}: {split}")
        for title, found in (
            ("official splits", self.official_counts),
            ("images in a unit", self.group_sizes),
            ("sizes", self.sizes),
            ("pixels", self.modes),
            ("problems", self.problem_counts),
        ):
            if found:
                told = [f"{name} ({number:,})" for name, number in found.items()]
                more = f" and {len(told) - 8:,} more" if len(told) > 8 else ""
                lines.append(f"  {title}: {', '.join(told[:8])}{more}")
        if self.look_alikes:
            where = " in another unit" if self.groups is not None else ""
            lines.append(f"  at least {self.look_alikes:,} have a look-alike{where}:")
            lines += [f"    {one} and {two}" for one, two in self.look_alike_examples]
        for problem in self.problems:
            what = "left out" if problem.left_out else "note"
            where = "" if problem.path == "." else f"{problem.path}: "
            lines.append(f"  {what}: {where}{problem.message}")
        if self.colour:
            lines.append(
                "They are read in colour: with --grey as grey ones, which teach more "
                "where there is no colour to learn."
            )
        if not self.classes_confirmed:
            lines.append(
                "The classes were taken from the data: confirm them with --classes."
            )
        return "\n".join(lines)


def describe(dataset: ImageDataset) -> Inspection:
    """What is known of a dataset that was read, without looking at its files again."""
    named = dataset.has_groups
    kinds = Counter(problem.kind for problem in dataset.problems)
    return Inspection(
        format_name=dataset.format_name,
        total=len(dataset),
        counts=_counts(dataset),
        official_counts={
            name: int((dataset.official_splits == number).sum())
            for number, name in enumerate(dataset.official_split_names)
        },
        unit_column=dataset.unit_column,
        groups=len(np.unique(dataset.units)) if named else None,
        group_sizes=group_sizes(dataset.units) if named else {},
        largest_group=int(np.bincount(dataset.units).max()) if named else None,
        look_alikes=None,
        look_alike_examples=(),
        sizes={},
        modes={},
        colour=dataset.images.shape[3] == 3,
        resolution=dataset.images.shape[1],
        classes_confirmed=dataset.classes_confirmed,
        problem_counts=dict(kinds.most_common()),
        problems=dataset.problems,
    )


def _counts(dataset: ImageDataset) -> dict[str, dict[str, int]]:
    kinds = len(dataset.class_names)
    by_split = {
        split.name.lower(): np.bincount(
            dataset.labels[dataset.splits == split], minlength=kinds
        )
        for split in Split
    }
    return {
        name: {split: int(counts[label]) for split, counts in by_split.items()}
        for label, name in enumerate(dataset.class_names)
    }


def group_sizes(units: np.ndarray) -> dict[str, int]:
    """How many units have how many images, in ranges ("1", "2", "3–5" …).

    Args:
        units: int64 [N], the unit of each image.
    """
    sizes = np.unique(units, return_counts=True)[1]
    counts = Counter(np.searchsorted(_BOUNDS, sizes).tolist())
    return {_range_name(place): counts[place] for place in sorted(counts)}


def _range_name(place: int) -> str:
    if place == len(_BOUNDS):
        return f"more than {_BOUNDS[-1]}"
    low = _BOUNDS[place - 1] + 1 if place else 1
    return f"{low}–{_BOUNDS[place]}" if low < _BOUNDS[place] else f"{low}"
