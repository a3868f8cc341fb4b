"""Runs tests against an engine with one deliberate fault in it.

A mutant is a replacement in the text of one module of `core`, made while the module is
imported, so the files on disk are never touched. Each runs in a process of its own,
forked from one that has imported the heavy libraries and none of `core`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST = 240
"""Seconds after which a mutant that hangs counts as noticed."""

HANGS_OR_DIES, BROKEN = -1, -2
"""Outcomes beside pytest's exit codes: ended by a signal; the experiment failed."""

HEAVY = (
    "torch", "numpy", "scipy.stats", "scipy.optimize", "scipy.signal", "scipy.fft",
    "dp_accounting.pld", "dp_accounting.rdp", "dp_accounting.mechanism_calibration",
    "opacus.accountants", "diffusers.models.unets.unet_2d", "hypothesis",
    "safetensors.torch", "PIL.Image", "pytest",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault: in the file, `correct` becomes `wrong`; one of `tests` must fail.

    Attributes:
        name: What is wrong, in a few words.
        file: Below `core`.
        correct: Occurs exactly once there.
        wrong: What a bad day would have made of it.
        tests: Files below `tests/core`, or single tests in them (file::test).
    """

    name: str
    file: str
    correct: str
    wrong: str
    tests: tuple[str, ...]

    @property
    def module(self) -> str:
        """Its name for `import`."""
        return "core." + self.file.removesuffix(".py").replace("/", ".")

    def source(self) -> str:
        """The faulty text.

        Raises:
            ValueError: when the engine has changed and the mutant must be written anew.
        """
        text = (ROOT / "core" / self.file).read_text(encoding="utf-8")
        if (found := text.count(self.correct)) != 1:
            raise ValueError(f"{self.correct!r} occurs {found} times in {self.file}")
        return text.replace(self.correct, self.wrong)


class _Importer(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module with the fault in it; every other as it is."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(ROOT / "core" / mutant.file))
        self.text = mutant.source()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=self.path)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)


def outcome(mutant: Mutant | None, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code and last lines, with the fault or without one."""
    import pytest

    if any(name.partition(".")[0] == "core" for name in sys.modules):
        raise RuntimeError("the engine was imported before the fault was in place")
    if mutant is not None:
        sys.meta_path.insert(0, _Importer(mutant))
    if mutant is not None:  # All tests together may take longer on a busy machine.
        signal.alarm(LONGEST)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    paths = [str(ROOT / "tests" / "core" / test) for test in tests]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *paths])
    return int(code), said.getvalue()[-1500:]


class Laboratory:
    """Tries one mutant after the other; every process of pytest's has its own."""

    def __init__(self) -> None:
        # Not the fork server: it is one for all, and may hold the engine by now.
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_import_heavy,
        )

    def attempt(self, mutant: Mutant | None, tests: Sequence[str]) -> tuple[int, str]:
        """What `outcome` says."""
        return self._pool.submit(_supervised, mutant, tuple(tests)).result()

    def close(self) -> None:
        """End its process."""
        self._pool.shutdown()


def _import_heavy() -> None:
    for name in HEAVY:
        importlib.import_module(name)


def _supervised(mutant: Mutant | None, tests: tuple[str, ...]) -> tuple[int, str]:
    """In a child of its own, because a mutant may hang or bring the process down."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            sender.send(outcome(mutant, tests))
        except BaseException as error:
            sender.send((BROKEN, repr(error)))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return HANGS_OR_DIES, f"ended by signal {os.WTERMSIG(status)}"
    return receiver.recv()
