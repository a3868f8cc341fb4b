"""Memory on which this program lays files for a decoder, where the system has such.

The way there is one-way: nothing is ever read back, so whatever a decoder that hostile
bytes have taken over writes there, only its own process sees it.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

SIZE: Final = 16 * 1024 * 1024
"""Bytes; twice what a batch of files comes to. Only what is used is taken."""

NONE: Final = -1


class Desk:
    """Memory shared between two processes, under a handle that the second inherits.

    Args:
        handle: Of a desk that is there, or `NONE`: nothing fits on that one.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._memory = None if handle == NONE else mmap.mmap(handle, SIZE)

    def lay(self, contents: Sequence[bytes]) -> bool:
        """Put files there, one after another; False, and nothing, if they do not fit.

        What lay there before is gone.
        """
        if self._memory is None or sum(map(len, contents)) > SIZE:
            return False
        start = 0
        for content in contents:
            self._memory[start : start + len(content)] = content
            start += len(content)
        return True

    def files(self, sizes: Sequence[int]) -> Iterator[bytes]:
        """Copies of the files that lie there."""
        return cut(b"" if self._memory is None else self._memory, sizes)

    def clear(self) -> None:
        """Give the memory back."""
        if self._memory is not None:
            self._memory.close()
            os.close(self.handle)
            self._memory, self.handle = None, NONE


def cut(whole: bytes | mmap.mmap, sizes: Sequence[int]) -> Iterator[bytes]:
    """Files that lie one after another."""
    start = 0
    for size in sizes:
        yield whole[start : start + size]
        start += size


def new_desk() -> Desk:
    """An empty one; on systems other than Linux, one on which nothing fits."""
    if sys.platform != "linux":
        return Desk(NONE)
    import fcntl

    handle = os.memfd_create("sfumato", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, SIZE)
    # A decoder that made it shorter would end this process at its next file.
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return Desk(handle)
