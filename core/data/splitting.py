"""Holds out a fifth of a dataset that has no split of its own, unit by unit."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

HELD_OUT_SHARE: Final = 0.2
_KEY: Final = b"sfumato held-out split, version 1"


SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""How folders and tables spell the splits."""

SPLITS: Final = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class OfficialSplits:
    """Splits as an index has them.

    Attributes:
        numbers: uint8 [N], positions in `names`, or None when nothing is held out and
            the splits have still to be made.
        names: Of the splits.
    """

    numbers: np.ndarray | None
    names: tuple[str, ...]


def official_splits(splits: Sequence[str], *, known: bool) -> OfficialSplits:
    """The splits of all records, each named "train", "val", "test" or "".

    Args:
        known: Whether the layout has splits: a folder of its own for held-out images,
            or a column that names them, whether or not anything is in it.
    """
    # PRIVACY: decided by the layout alone. If a first held-out record decided it, this
    # one record would move a fifth of the others into the training set.
    if not known:
        return OfficialSplits(numbers=None, names=("train", "held_out"))
    number = {name: position for position, name in enumerate(SPLITS)} | {"": 0}
    numbers = np.fromiter((number[split] for split in splits), np.uint8, len(splits))
    return OfficialSplits(numbers=numbers, names=SPLITS)


def held_out(unit: bytes) -> bool:
    """Whether all records of a unit are held out.

    A public keyed hash of the unit alone decides: no other record has a say, so that
    the training sets of two neighbouring datasets are neighbours too, and copies of one
    image never end up on both sides.

    Args:
        unit: Name of the group, or SHA-256 of the image when there are no groups.
    """
    digest = hmac.digest(_KEY, unit, "sha256")
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64
