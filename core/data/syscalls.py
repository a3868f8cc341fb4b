"""What a process that reads hostile bytes may still ask of Linux: a short list.

Limits of resources keep a process from opening things, and do not keep it from what
needs no handle: deleting and renaming files, signals to other processes, reading their
memory. Here every call that decoding does not make is refused, for good (seccomp, see
the kernel's Documentation/userspace-api/seccomp_filter.rst).
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from dataclasses import dataclass
from typing import Final

_NO_NEW_PRIVILEGES: Final = 38
_SET_FILTER: Final = 1
_ALL_THREADS: Final = 1
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | 1  # with EPERM
_NUMBER_AT: Final = 0
_MACHINE_AT: Final = 4


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """Numbers of one kind of processor (the kernel's `asm/unistd.h`)."""

    audit: int
    seccomp: int
    allowed: dict[str, int]


_MACHINES: Final = {
    "x86_64": _Machine(
        audit=0xC000003E,
        seccomp=317,
        allowed={
            "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9,
            "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
            "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16, "pread64": 17,
            "readv": 19, "writev": 20, "sched_yield": 24, "mremap": 25, "madvise": 28,
            "nanosleep": 35, "getitimer": 36, "setitimer": 38, "getpid": 39,
            "exit": 60, "sigaltstack": 131, "gettid": 186, "futex": 202,
            "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228,
            "clock_nanosleep": 230, "exit_group": 231, "set_robust_list": 273,
            "getrandom": 318, "membarrier": 324, "rseq": 334,
        },
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        seccomp=277,
        allowed={
            "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62,
            "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214,
            "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
            "ioctl": 29, "pread64": 67, "readv": 65, "writev": 66, "sched_yield": 124,
            "mremap": 216, "madvise": 233, "nanosleep": 101, "getitimer": 102,
            "setitimer": 103, "getpid": 172, "exit": 93, "sigaltstack": 132,
            "gettid": 178, "futex": 98, "sched_getaffinity": 123,
            "restart_syscall": 128, "clock_gettime": 113, "clock_nanosleep": 115,
            "exit_group": 94, "set_robust_list": 99, "getrandom": 278,
            "membarrier": 283, "rseq": 293,
        },
    ),
}  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def refuse_all_but_decoding() -> bool:
    """Give up, for this process and all its threads, every other call to the system.

    Returns:
        Whether it was done: False on other systems and processors, and where the kernel
        refuses it.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return False
    code = _filter(machine)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    arguments = (_SET_FILTER, _ALL_THREADS, ctypes.byref(program))
    return libc.syscall(ctypes.c_long(machine.seccomp), *arguments) == 0


def _filter(machine: _Machine) -> bytes:
    """A program of the kernel's: one comparison for each call that is allowed."""
    numbers = list(machine.allowed.values())

    def step(code: int, value: int, if_equal: int = 0, if_not: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_equal, if_not, value)

    checks = [
        # Over the checks that are left and the refusal, to the permission.
        step(_JUMP_IF_EQUAL, number, if_equal=len(numbers) - place)
        for place, number in enumerate(numbers)
    ]
    return b"".join(
        [
            step(_LOAD, _MACHINE_AT),
            step(_JUMP_IF_EQUAL, machine.audit, if_equal=1),
            step(_RETURN, _REFUSE),
            step(_LOAD, _NUMBER_AT),
            *checks,
            step(_RETURN, _REFUSE),
            step(_RETURN, _ALLOW),
        ]
    )
