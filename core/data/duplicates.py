"""Finds images that look alike although they are said to be of different units.

A person under two names is protected half as well as promised, and an image on both
sides of a split spoils an evaluation. The custodian is told, and decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from core.events import Watcher

_ROWS: Final = 8
_COLUMNS: Final = 9
_BANDS: Final = 4
_NEIGHBOURS: Final = 12
_MOST_BITS: Final = 3
_MOST_GREY: Final = 4.0
_MOST_EXAMPLES: Final = 20
_BITS: Final = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """What was found. At least so many: the search is quick and not exhaustive.

    Attributes:
        images: Images with a look-alike in another unit.
        examples: Pairs of positions of such images, at most 20.
    """

    images: int
    examples: tuple[tuple[int, int], ...]


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Mean grey of 8×9 areas of each image.

    Args:
        images: uint8 [n, R, R, C].

    Returns:
        uint8 [n, 8, 9].
    """
    grey = images.astype(np.float32).mean(axis=3)
    side = grey.shape[1]
    for axis, parts in ((1, _ROWS), (2, _COLUMNS)):
        edges = np.arange(parts) * side // parts
        sizes = np.maximum(np.diff(edges, append=side), 1)
        shape = [1, 1, 1]
        shape[axis] = parts
        grey = np.add.reduceat(grey, edges, axis=axis) / sizes.reshape(shape)
    return np.clip(grey + 0.5, 0, 255).astype(np.uint8)


def near_duplicates(
    thumbs: np.ndarray, units: np.ndarray, watcher: Watcher | None = None
) -> NearDuplicates:
    """Compare each image with those whose perceptual hash lies beside its own.

    The hash has one bit for each pair of neighbours in a row of the thumbnail: which of
    the two is lighter. Sorted by each quarter of it in turn, images that differ in at
    most three bits come to lie together; thumbnails decide.

    Args:
        thumbs: uint8 [N, 8, 9].
        units: int64 [N].
        watcher: Told of progress, asked whether to stop.

    Raises:
        Stopped: If the watcher asked to stop.
    """
    watcher = watcher or Watcher()
    hashes = np.packbits(thumbs[:, :, 1:] > thumbs[:, :, :-1], axis=-1)[:, :, 0]
    alike = np.zeros(len(thumbs), bool)
    examples: dict[tuple[int, int], None] = {}
    steps = min(_NEIGHBOURS, len(thumbs) - 1)
    for band in range(_BANDS):
        turned = np.ascontiguousarray(np.roll(hashes, -2 * band, axis=1))
        order = np.argsort(turned.view(">u8")[:, 0], kind="stable")
        for step in range(1, steps + 1):
            watcher.stop_if_requested()
            done = band * steps + step
            watcher.progress("Looking for look-alikes", done, _BANDS * steps)
            one, other = order[:-step], order[step:]
            near = _BITS[hashes[one] ^ hashes[other]].sum(axis=1) <= _MOST_BITS
            near &= units[one] != units[other]
            one, other = one[near], other[near]
            close = _distance(thumbs[one], thumbs[other]) <= _MOST_GREY
            one, other = one[close], other[close]
            alike[one] = alike[other] = True
            for pair in zip(one.tolist(), other.tolist(), strict=True):
                if len(examples) >= _MOST_EXAMPLES:
                    break
                examples[min(pair), max(pair)] = None
    return NearDuplicates(images=int(alike.sum()), examples=tuple(sorted(examples)))


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean difference in grey, float32 [n]; flat images differ by their brightness."""
    return np.abs(one.astype(np.float32) - other).mean(axis=(1, 2))
