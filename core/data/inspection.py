"""What was found in a folder, for the custodian's eyes only."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from core.data.dataset import Problem


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Facts of a private folder. Internal: none of them may be released.

    Attributes:
        format_name: The layout that was recognised.
        total: Readable images.
        counts: Images by class name, then by "train" and "held_out".
        official_counts: Images by the dataset's own names of its splits.
        groups: How many units (patients), or None when the format names none.
        sizes: Images by "width×height" as stored, the most frequent first.
        modes: Images by pixel mode as stored, in Pillow's words.
        colour: Whether the working images have three channels instead of one.
        resolution: Side of the working images in pixels.
        problems: Every file that was left out.
    """

    format_name: str
    total: int
    counts: dict[str, dict[str, int]]
    official_counts: dict[str, int]
    groups: int | None
    sizes: dict[str, int]
    modes: dict[str, int]
    colour: bool
    resolution: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, object]:
        """The same as plain values for `json.dumps`."""
        return asdict(self) | {"problems": [asdict(p) for p in self.problems]}
