"""Images that lie one after the other in array files: IDX, .npz and HDF5."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from core.data.dataset import Problem
from core.data.reading import Picture, batch_size, stamp
from core.data.resampling import grid_to_square
from core.errors import UserError

MAX_IMAGES: Final = 10_000_000
MAX_SIDE: Final = 4096
BLOCK_BYTES: Final = 4 * 1024 * 1024
"""Bytes that are read from an array at a time."""


class ArrayFile(Protocol):
    """One array of images in one file.

    Attributes:
        path: The file.
        count: How many images it holds, as its checked header says.
    """

    @property
    def path(self) -> Path: ...

    @property
    def count(self) -> int: ...

    def blocks(self) -> Iterator[np.ndarray]:
        """uint8 [n, rows, columns] or [n, rows, columns, 3], `count` images in all.

        Raises:
            UserError: If the file is damaged.
        """


@dataclass(frozen=True, kw_only=True)
class ArrayImages:
    """The images of one or more arrays, one after the other.

    Attributes:
        root: The dataset's folder, resolved.
        arrays: Where they lie.
        colour: Whether they have three channels.
    """

    root: Path
    arrays: tuple[ArrayFile, ...]
    colour: bool

    def __len__(self) -> int:
        return sum(array.count for array in self.arrays)

    def channels(self) -> int:
        """1 or 3, as the arrays are shaped."""
        return 3 if self.colour else 1

    def read(
        self, resolution: int, channels: int, first: int = 0
    ) -> Iterator[list[Picture | Problem]]:
        """All images from one on; an array is streamed, never held as a whole.

        Raises:
            UserError: If a file is shorter or longer than its header says.
        """
        at_once = batch_size(resolution, channels, most=1024)
        done = 0
        for array in self.arrays:
            if done + array.count <= first:
                done += array.count
                continue
            for block in array.blocks():
                images = block[max(0, first - done) :]
                done += len(block)
                for start in range(0, len(images), at_once):
                    some = images[start : start + at_once]
                    yield [_picture(image, resolution, channels) for image in some]

    def name(self, number: int) -> str:
        """The file of an image and its place there, counted from 0."""
        for array in self.arrays:
            if number < array.count:
                return f"{array.path.name}[{number}]"
            number -= array.count
        raise IndexError(number)

    def signature(self) -> str:
        """Hex digest of every (path, size, time of change)."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(
                stamp(self.root, array.path.relative_to(self.root).as_posix())
            )
        return digest.hexdigest()


def check_shape(shape: tuple[int, ...], what: str) -> None:
    """Hold the shape of an array of images against our limits.

    Raises:
        UserError: If it is not [N, rows, columns] or [N, rows, columns, 3], or too big.
    """
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
        raise UserError(
            f"{what} holds arrays of {'×'.join(map(str, shape[1:]))}, but only flat "
            "images in grey or colour can be read: choose a two-dimensional version of "
            "the dataset."
        )
    if shape[0] > MAX_IMAGES or max(shape[1:3]) > MAX_SIDE or 0 in shape[1:]:
        raise UserError(
            f"{what} declares {'×'.join(map(str, shape))} elements, more than Sfumato "
            "reads: copy it again or split it."
        )


def _picture(image: np.ndarray, resolution: int, channels: int) -> Picture:
    size = struct.pack(f">{image.ndim}I", *image.shape)
    return Picture(
        pixels=grid_to_square(image, resolution, channels),
        digest=hashlib.sha256(size + image.tobytes()).digest(),
        width=image.shape[1],
        height=image.shape[0],
        mode="L" if image.ndim == 2 else "RGB",
    )
