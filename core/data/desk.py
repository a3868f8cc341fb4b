"""Memory on which this program lays files for a decoder, where the system has such.

The way there is one-way: the decoder's handle can only be read, and nothing is ever
read back here, so that a decoder which hostile bytes have taken over changes nothing
that anybody else sees.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

SIZE: Final = 16 * 1024 * 1024
"""Bytes; twice what a batch of files comes to. Only what is used is taken."""

NONE: Final = -1

_NO_EXEC: Final = 8  # MFD_NOEXEC_SEAL, which some systems insist on and old ones refuse
_MOST_PIECES: Final = 512  # in one write; systems allow at least 1,024
_ABOVE_STANDARD: Final = 3


class Desk:
    """What the one who lays files there holds.

    Attributes:
        handle: What the decoder inherits; `NONE` when there is no desk.

    Args:
        writable: The handle to write by, or `NONE`: then nothing fits.
        readable: The one to read by.
    """

    def __init__(self, writable: int, readable: int) -> None:
        self._writable = writable
        self.handle = readable

    def lay(self, contents: Sequence[bytes]) -> bool:
        """Put files there, one after another, over those before; False if that fails.

        Written and not mapped: a system that is short of memory says so, where touching
        a page of its would end this process.
        """
        if self._writable == NONE or sum(map(len, contents)) > SIZE:
            return False
        start = 0
        for first in range(0, len(contents), _MOST_PIECES):
            pieces = contents[first : first + _MOST_PIECES]
            length = sum(map(len, pieces))
            try:
                if os.pwritev(self._writable, pieces, start) != length:
                    return False
            except OSError:
                return False
            start += length
        return True

    def clear(self) -> None:
        """Give the memory back."""
        handles = (self._writable, self.handle)
        self._writable = self.handle = NONE
        for handle in handles:
            if handle != NONE:
                os.close(handle)


def new_desk() -> Desk:
    """An empty one; where the system has no such memory, one on which nothing fits."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return Desk(NONE, NONE)
    with suppress(OSError):
        writable = _above_standard(_memory())
        try:
            os.ftruncate(writable, SIZE)
            path, flags = f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC
            return Desk(writable, _above_standard(os.open(path, flags)))
        except OSError:
            os.close(writable)
    return Desk(NONE, NONE)


def _memory() -> int:
    try:
        return os.memfd_create("sfumato", os.MFD_CLOEXEC | _NO_EXEC)
    except OSError:
        return os.memfd_create("sfumato", os.MFD_CLOEXEC)


def _above_standard(handle: int) -> int:
    """The same under another number: a child's own input and output take 0, 1 and 2."""
    import fcntl

    try:
        return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STANDARD)
    finally:
        os.close(handle)


def files_on(handle: int) -> mmap.mmap | bytes:
    """What lies on the desk, for the decoder that inherited its handle."""
    if handle == NONE:
        return b""
    memory = mmap.mmap(handle, SIZE, prot=mmap.PROT_READ)
    os.close(handle)
    return memory


def cut(whole: mmap.mmap | bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Copies of files that lie one after another."""
    start = 0
    for size in sizes:
        yield whole[start : start + size]
        start += size
