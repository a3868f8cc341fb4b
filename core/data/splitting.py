"""Holds out a fifth of a dataset that has no split of its own, unit by unit."""

from __future__ import annotations

import hmac
from typing import Final

HELD_OUT_SHARE: Final = 0.2
_KEY: Final = b"sfumato held-out split, version 1"


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
