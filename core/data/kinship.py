"""Recognises a dataset that grew, shrank or was relabelled since it was last read.

The ledger knows a dataset by its fingerprint, which one more image changes. So that
nobody takes the grown dataset for a new one by mistake, a small sketch of each dataset
is kept beside the ledger: the smallest of the hashes of its images. Two sketches tell
what share of the images two datasets have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from core.data.dataset import ImageDataset, Problem
from core.errors import UserError
from core.files import private_folder, read_json, write_json

SKETCH_SIZE: Final = 1024
_MOST_TOLD: Final = 3
_ALL: Final = 0.995


@dataclass(frozen=True, kw_only=True)
class Relative:
    """A dataset that was read before and shares images with this one.

    Attributes:
        fingerprint: Its key in the ledger.
        images: How many images it had.
        of_this: Estimated share of this dataset's images that it has, 0 to 1.
        of_that: Estimated share of its images that this dataset has, 0 to 1.
    """

    fingerprint: str
    images: int
    of_this: float
    of_that: float

    @property
    def kind(self) -> str:
        """ "relabelled", "grown", "shrunk" or "overlapping", seen from this dataset."""
        if self.of_this >= _ALL and self.of_that >= _ALL:
            return "relabelled"
        if self.of_that >= _ALL:
            return "grown"
        return "shrunk" if self.of_this >= _ALL else "overlapping"

    def warning(self) -> Problem:
        """The same for the custodian, with what to do."""
        return Problem(
            path=".",
            kind="related dataset",
            message=f"A dataset of {self.images:,} images that was read on this "
            f"machine before shares images with this one ({self.kind}: about "
            f"{self.of_this:.0%} of these and {self.of_that:.0%} of those). The ledger "
            "counts the two apart: add up what was spent on both for the people in "
            "both.",
            left_out=False,
        )


def sketch(digests: bytes) -> np.ndarray:
    """The `SKETCH_SIZE` smallest different hashes, uint64, ascending.

    Args:
        digests: SHA-256 of every image, 32 bytes each. They are uniform, so that the
            smallest of them are a fair sample, and the same in every dataset.
    """
    starts = np.frombuffer(digests, ">u8").reshape(-1, 4)[:, 0]
    return np.unique(starts)[:SKETCH_SIZE].astype(np.uint64)


def shares(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Estimated share of the first dataset in the second, and of the second in it.

    Both samples are cut at the value up to which both are complete.
    """
    limit = min(
        (int(s[-1]) for s in (one, other) if len(s) == SKETCH_SIZE), default=2**64 - 1
    )
    one = one[one <= np.uint64(limit)]
    other = other[other <= np.uint64(limit)]
    common = len(np.intersect1d(one, other))
    return common / max(1, len(one)), common / max(1, len(other))


def relatives(dataset: ImageDataset, folder: Path) -> tuple[Relative, ...]:
    """Other datasets that were read before and share images; remembers this one.

    Args:
        dataset: What was read now.
        folder: Where the sketches are kept, beside the ledger; made private.

    Returns:
        The closest first. The same dataset, renamed or in another order, is none.

    Raises:
        UserError: If the folder cannot be used.
    """
    private_folder(folder)
    found = []
    for file in sorted(folder.glob("*.json")):
        if file.stem == dataset.fingerprint:
            continue
        try:
            kept = read_json(file)
            known = np.array(kept["sketch"], np.uint64)
            images = int(kept["images"])
        except (UserError, KeyError, TypeError, ValueError, OverflowError):
            continue  # A damaged sketch warns of nothing, and hinders nothing.
        of_this, of_that = shares(dataset.sketch, known)
        if of_this > 0:
            found.append(
                Relative(
                    fingerprint=file.stem,
                    images=images,
                    of_this=of_this,
                    of_that=of_that,
                )
            )
    own = folder / f"{dataset.fingerprint}.json"
    if not own.is_file():
        write_json(own, {"images": len(dataset), "sketch": dataset.sketch.tolist()})
    return tuple(sorted(found, key=lambda r: (-r.of_this - r.of_that, r.fingerprint)))


def warnings_of(
    dataset: ImageDataset, folder: Path, matters: Callable[[str], bool]
) -> tuple[Problem, ...]:
    """What to tell the custodian about the closest relatives.

    Args:
        dataset: What was read now.
        folder: Where the sketches are kept.
        matters: Of a fingerprint: whether that relative is worth a warning.
    """
    told = (r for r in relatives(dataset, folder) if matters(r.fingerprint))
    return tuple(relative.warning() for relative in islice(told, _MOST_TOLD))
