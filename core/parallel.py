"""Where the arithmetic runs: device, precision, and the workers that share a CPU.

Performance knobs live here, apart from `Recipe` and `Mechanism`: changing one must not
change what is computed, only how fast.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import torch

from core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The device and precision of a run.

    Attributes:
        device: Where the network lives.
        precision: torch.bfloat16 or torch.float32, for forward and backward passes.
            Norms, sums and noise are float64 whatever this says.
        threads: Independent workers, each single-threaded. More than one on a CPU,
            where small batches side by side beat one batch on all cores.
    """

    device: torch.device
    precision: torch.dtype
    threads: int

    @property
    def layout(self) -> torch.memory_format:
        """How weights of convolutions lie in memory where no unit has its own gradient.

        In single precision on a processor, channels last trains a fifth and draws an
        eighth faster; elsewhere it was not measured.
        """
        single = self.precision is torch.float32 and self.device.type == "cpu"
        return torch.channels_last if single else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context that runs a forward pass in this precision."""
        return torch.autocast(
            self.device.type,
            dtype=torch.bfloat16,
            enabled=self.precision is torch.bfloat16,
        )


def choose_hardware(device: str = "auto") -> Hardware:
    """Take CUDA where there is one, else the CPU.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        UserError: for another name, or "cuda" on a machine without it.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"The device {device!r} is unknown: use auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "No CUDA graphics card answers on this machine: use --device auto or cpu, "
            "or ask IT to check the driver with nvidia-smi."
        )
    if device != "cpu" and torch.cuda.is_available():
        return Hardware(
            device=torch.device("cuda"),
            precision=torch.bfloat16
            if torch.cuda.is_bf16_supported()
            else torch.float32,
            threads=1,
        )
    return Hardware(
        device=torch.device("cpu"),
        # Emulated bfloat16 is slower than float32, so it is used only where the
        # processor has instructions for it.
        precision=torch.bfloat16 if "avx512_bf16" in _cpu_flags() else torch.float32,
        threads=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1),
    )


def _cpu_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("flags"):
                    return frozenset(line.split())
    except OSError:
        pass
    return frozenset()


class Workers:
    """A pool of single-threaded workers that share one network.

    They may call `torch.autograd.grad` on the same module at once: a forward pass in
    evaluation mode reads parameters only, and gradients come back as return values.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(
            threads,
            thread_name_prefix="sfumato-worker",
            # Thread-local in OpenMP: the caller's own setting stays as it is.
            initializer=torch.set_num_threads if threads > 1 else None,
            initargs=(1,) if threads > 1 else (),
        )

    def map(self, function: Callable[..., T], *slices: Sequence) -> Iterator[T]:
        """Apply `function` to each tuple of slices, results in order."""
        return self._pool.map(function, *slices)

    def close(self) -> None:
        """Let the threads go; waits for what is running."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed: it is asked for again in the next layer.

    By default every activation is fetched from the system, page by page, and given
    back; that took 5 to 10 per cent of a training step on two cores.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # Another C library than glibc.
        library = ctypes.CDLL("libc.so.6")
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        library.mallopt(mmap_threshold, 32 * 2**20)
        library.mallopt(trim_threshold, 2**30)
        library.mallopt(top_pad, 64 * 2**20)


@contextmanager
def workers(hardware: Hardware) -> Iterator[Workers]:
    """Workers for the length of a `with` block.

    The caller is single-threaded meanwhile: a parallel region of its own would wait for
    cores that the workers, or other programs, are using.
    """
    _keep_freed_memory()
    before = torch.get_num_threads()
    pool = Workers(hardware.threads)
    try:
        if hardware.threads > 1:
            torch.set_num_threads(1)
        yield pool
    finally:
        torch.set_num_threads(before)
        pool.close()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out, on a graphics card or on the CPU."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        "can't allocate memory" in said or "ALLOC_FAILED" in said
    )


def free_memory() -> None:
    """Let go of what a graphics card keeps for later, so that smaller pieces fit."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
