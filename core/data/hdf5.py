"""Reads arrays out of HDF5 files in a process that may do nothing else.

The HDF5 library is large, written in C, and made for files that one trusts. So it runs
like a decoder of images does: with the file as its standard input, locked before it
looks at the first byte, and sending whole blocks of one array to this side.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.data.arrays import BLOCK_BYTES
from core.data.decoder import SECONDS, lock_down, renew_time
from core.data.frames import BrokenFrame, receive, send
from core.data.sandbox import ended, started
from core.errors import UserError

MAGIC: Final = b"\x89HDF\r\n\x1a\n"

_READER: Final = "from core.data.hdf5 import main; main()"
_TYPES: Final = frozenset({"|u1", "|i1", "<u2", "<i2", "<i4", "<u4", "<i8", "<u8"})
_MOST_DIMENSIONS: Final = 5
_PATIENCE: Final = 60.0
_SMALL_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Hdf5Array:
    """One array inside an HDF5 file; nothing of it is known before it is opened.

    Attributes:
        path: The file, inside the dataset's folder.
        name: Of the array, at the top of the file.
        shape: As the file declares it.
        dtype: Of whole numbers.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def open(cls, path: Path, name: str) -> Hdf5Array:
        """Look at what the file declares.

        Raises:
            UserError: If the file is damaged, or has no such array of whole numbers.
        """
        frames = _frames(path, name, 0)
        header, _ = next(frames)
        frames.close()
        return cls._checked(path, name, header)

    @classmethod
    def _checked(cls, path: Path, name: str, header: dict[str, Any]) -> Hdf5Array:
        match header:
            case {"shape": list(shape), "dtype": str(dtype)} if (
                0 < len(shape) <= _MOST_DIMENSIONS
                and all(type(size) is int and 0 <= size < 2**40 for size in shape)
                and dtype in _TYPES
            ):
                return cls(
                    path=path, name=name, shape=tuple(shape), dtype=np.dtype(dtype)
                )
        raise _damaged(path, name)

    @classmethod
    def load(cls, path: Path, name: str) -> np.ndarray:
        """The whole of a small array, such as labels.

        Raises:
            UserError: As `open`, or if it is not small.
        """
        frames = _frames(path, name, BLOCK_BYTES)
        header, _ = next(frames)
        array = cls._checked(path, name, header)
        if math.prod(array.shape) * array.dtype.itemsize > _SMALL_BYTES:
            frames.close()
            raise _damaged(path, name)
        data = b"".join(block for _, block in frames)
        try:
            return np.frombuffer(data, array.dtype).reshape(array.shape)
        except ValueError:
            raise _damaged(path, name) from None

    @property
    def count(self) -> int:
        """How many rows the array has."""
        return self.shape[0]

    def blocks(self) -> Iterator[np.ndarray]:
        """The array, some rows at a time, first to last.

        Raises:
            UserError: If the file is damaged.
        """
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        frames = _frames(self.path, self.name, max(BLOCK_BYTES, row))
        next(frames)
        done = 0
        for _, data in frames:
            if row == 0 or len(data) % row or not data:
                raise _damaged(self.path, self.name)
            rows = len(data) // row
            done += rows
            yield np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])
        if done != self.count:
            raise _damaged(self.path, self.name)


def _frames(path: Path, name: str, most: int) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What the reader sends: first the shape, then blocks of at most so many bytes."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            process = started(_READER, [name], file)
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    assert process.stdout is not None
    try:
        while True:
            impatient = threading.Timer(_PATIENCE + SECONDS, process.kill)
            impatient.daemon = True
            impatient.start()
            try:
                frame = receive(process.stdout, most)
            finally:
                impatient.cancel()
            if frame[0].get("end"):
                return
            yield frame
    except BrokenFrame:
        raise _damaged(path, name) from None
    finally:
        ended(process)


def _damaged(path: Path, name: str) -> UserError:
    return UserError(
        f"The file {path.name} is damaged, or is no HDF5 file with whole numbers in "
        f"{name!r}: copy it again."
    )


def main() -> None:
    """Send the array named on the command line, from the file on standard input."""
    import h5py

    with h5py.File.in_memory() as rehearsal:
        rehearsal.create_dataset("a", data=np.ones((4, 4), np.uint8), compression=1)
        rehearsal["a"][:2].tobytes()
    source, answers, name = sys.stdin.buffer, sys.stdout.buffer, sys.argv[1]
    lock_down()
    send(answers, {"ready": True})
    with h5py.File(source, "r") as file:
        array = file[name]
        send(answers, {"shape": list(array.shape), "dtype": array.dtype.str})
        row = math.prod(array.shape[1:]) * array.dtype.itemsize
        step = max(1, BLOCK_BYTES // max(1, row))
        for start in range(0, array.shape[0], step):
            renew_time(SECONDS)
            send(answers, {}, array[start : start + step].tobytes())
    send(answers, {"end": True})
