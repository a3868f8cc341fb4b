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

SIZE: Final = 4 * 1024 * 1024
"""Bytes: twice what a batch of small files comes to. All of it is taken at once."""

NONE: Final = -1

_NO_EXEC: Final = 8  # MFD_NOEXEC_SEAL, which some systems insist on and old ones refuse
_ABOVE_STANDARD: Final = 3


class Desk:
    """What the one who lays files there holds.

    Attributes:
        handle: What the decoder inherits; `NONE` when there is no desk.

    Args:
        memory: To write to, or None: then nothing fits.
        readable: The handle to read by.
    """

    def __init__(self, memory: mmap.mmap | None, readable: int) -> None:
        self._memory = memory
        self.handle = readable

    def lay(self, contents: Sequence[bytes]) -> bool:
        """Put files there, one after another, over those before; False if too large."""
        if self._memory is None or sum(map(len, contents)) > SIZE:
            return False
        start = 0
        for content in contents:
            self._memory[start : start + len(content)] = content
            start += len(content)
        return True

    def clear(self) -> None:
        """Give the memory back."""
        memory, handle = self._memory, self.handle
        self._memory, self.handle = None, NONE
        if memory is not None:
            memory.close()
            os.close(handle)


def new_desk() -> Desk:
    """An empty one; where the system has no such memory, one on which nothing fits."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return Desk(None, NONE)
    with suppress(OSError):
        writable = _memory()
        try:
            # Taken now: a system that is short of memory then says so here, and does
            # not end this process at the first touch of a page.
            os.posix_fallocate(writable, 0, SIZE)
            memory = mmap.mmap(writable, SIZE)
            path, flags = f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC
            return Desk(memory, _above_standard(os.open(path, flags)))
        finally:
            os.close(writable)
    return Desk(None, NONE)


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
