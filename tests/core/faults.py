"""Disks that fail at the n-th call, and disks that lose power."""

from __future__ import annotations

import errno
import functools
import os
import pathlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import safetensors.torch
from safetensors import SafetensorError

from core import files
from core.privacy.accounting import Charge
from core.privacy.ledger import Account, Ledger


class FailingDisk:
    """Counts the calls that reach the disk, and fails the n-th one.

    Attributes:
        sites: The name of each call, in order.
    """

    def __init__(self, number: int, failing: int | None = None) -> None:
        self._number, self._failing = number, failing
        self.sites: list[str] = []

    def _fails(self, site: str) -> bool:
        self.sites.append(site)
        return len(self.sites) - 1 == self._failing

    def _failing_call(self, real: Callable, site: str) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            # To remove what is not there, or to make what is, writes nothing.
            idle = {"unlink": False, "mkdir": True}
            writes = site not in idle or os.path.lexists(arguments[0]) != idle[site]
            if writes and self._fails(site):
                raise OSError(self._number, os.strerror(self._number))
            return real(*arguments, **options)

        return call

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Whatever is written now is written on this disk."""
        places = [(os, name) for name in ("fsync", "replace", "unlink", "mkdir")]
        places += [(tempfile, "mkstemp"), (pathlib.Path, "write_text")]
        with ExitStack() as stack:
            for place, name in places:
                failing = self._failing_call(getattr(place, name), name)
                stack.enter_context(patch.object(place, name, failing))
            writing = self._failing_call(open, "open")

            def opening(path: object, mode: str) -> object:
                return (writing if "+" in mode else open)(path, mode)

            stack.enter_context(patch.object(files, "open", opening, create=True))
            tensors = self._failing_tensors(safetensors.torch.serialize_file)
            stack.enter_context(
                patch.object(safetensors.torch, "serialize_file", tensors)
            )
            connect = functools.partial(sqlite3.connect, factory=self._database())
            stack.enter_context(patch.object(sqlite3, "connect", connect))
            yield

    def _failing_tensors(self, real: Callable) -> Callable:
        def write(*arguments: object, **options: object) -> object:
            if self._fails("tensors"):
                # As the library words it.
                text = f"{os.strerror(self._number)} (os error {self._number})"
                raise SafetensorError(f"Error while serializing: I/O error: {text}")
            return real(*arguments, **options)

        return write

    def _database(self) -> type[sqlite3.Connection]:
        fails, full = self._fails, self._number == errno.ENOSPC
        text = "database or disk is full" if full else "disk I/O error"

        class Failing(sqlite3.Connection):
            def execute(self, query: str, *values: object) -> sqlite3.Cursor:
                word = query.split()[0]
                if word in ("BEGIN", "INSERT", "COMMIT") and fails(word):
                    raise sqlite3.OperationalError(text)
                return super().execute(query, *values)

        return Failing


class _File:
    """One file, whatever it is called."""


_FOLDER = _File()


@dataclass(frozen=True, kw_only=True)
class _Event:
    """One change, of one of four kinds.

    Attributes:
        folder, names: These names in this folder now mean these files; None: nothing.
        synced: This folder's names are sure from now on.
        file, content, sure: What was written to a file, and whether it was synced.
        charge: A row of the ledger; sure.
    """

    folder: Path | None = None
    names: dict[Path, _File | None] = field(default_factory=dict)
    synced: Path | None = None
    file: _File | None = None
    content: bytes = b""
    sure: bool = False
    charge: tuple[Account, Charge] | None = None


class PowerCut:
    """Records what happens below a folder, and gives back what a power cut may leave.

    A file's content is sure once it was synced, a name once its folder was. Of the rest
    a disk may keep all or nothing, or for each folder the changes up to some point and
    of each content some part.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[Path, _File] = {}
        self.events: list[_Event] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """What is done now, in this process, is recorded."""
        real = {
            name: getattr(os, name) for name in ("fsync", "replace", "unlink", "mkdir")
        }
        mkstemp, commit = tempfile.mkstemp, Ledger.commit

        def fsync(handle: int) -> None:
            real["fsync"](handle)
            self._synced(Path(os.readlink(f"/proc/self/fd/{handle}")))

        def replace(source: object, target: object) -> None:
            content = Path(str(source)).read_bytes()
            real["replace"](source, target)
            self._renamed(Path(str(source)), Path(str(target)), content)

        def unlink(path: object, **options: object) -> None:
            real["unlink"](path, **options)
            self._named({Path(str(path)): None})

        def mkdir(path: object, *mode: object) -> None:
            real["mkdir"](path, *mode)
            self._named({Path(str(path)): _FOLDER})

        def create(**options: object) -> tuple[int, str]:
            handle, name = mkstemp(**options)
            self._named({Path(name): _File()})
            return handle, name

        def charge(
            ledger: Ledger, account: Account, charge: Charge, **options: object
        ) -> str:
            head = commit(ledger, account, charge, **options)
            self.events.append(_Event(charge=(account, charge)))
            return head

        with ExitStack() as stack:
            for instead in (fsync, replace, unlink, mkdir):
                stack.enter_context(patch.object(os, instead.__name__, instead))
            stack.enter_context(patch.object(tempfile, "mkstemp", create))
            stack.enter_context(patch.object(Ledger, "commit", charge))
            yield

    def _synced(self, path: Path) -> None:
        if path.is_dir():
            self.events.append(_Event(synced=path))
        elif path in self._files:
            content = path.read_bytes()
            self.events.append(
                _Event(file=self._files[path], content=content, sure=True)
            )

    def _renamed(self, source: Path, target: Path, content: bytes) -> None:
        if source in self._files:
            file = self._files[source]
            self.events.append(_Event(file=file, content=content))
            self._named({source: None, target: file})

    def _named(self, names: dict[Path, _File | None]) -> None:
        (folder,) = {path.parent for path in names}
        if self._root not in (folder, *folder.parents):
            return
        self.events.append(_Event(folder=folder, names=names))
        for path, file in names.items():
            if file is None:
                self._files.pop(path, None)
            else:
                self._files[path] = file

    def charges(self, moment: int) -> list[tuple[Account, Charge]]:
        """What the ledger held after so many events."""
        return [event.charge for event in self.events[:moment] if event.charge]

    def left(
        self, moment: int, reach: Callable[[int, int], int], part: Callable[[], float]
    ) -> dict[Path, bytes | None]:
        """What is on the disk: relative path → content, None for a folder.

        Args:
            moment: How many events happened before the power cut.
            reach: (last sync of a folder, moment) → up to where its changes are kept.
            part: Which part is kept of a content that was never synced, in [0, 1].
        """
        past = self.events[:moment]
        sure = {event.synced: index + 1 for index, event in enumerate(past)}
        kept: dict[Path | None, int] = {}
        names: dict[Path, _File | None] = {self._root: _FOLDER}
        contents: dict[_File, bytes] = {}
        for index, event in enumerate(past):
            if event.folder not in kept:
                kept[event.folder] = reach(sure.get(event.folder, 0), moment)
            if index < kept[event.folder]:
                names.update(event.names)
            if event.file and event.sure:
                contents[event.file] = event.content
            elif event.file and event.file not in contents:
                contents[event.file] = event.content[: int(part() * len(event.content))]
        names = {path: file for path, file in names.items() if file}
        return {
            path.relative_to(self._root): (
                None if file is _FOLDER else contents.get(file, b"")
            )
            for path, file in names.items()
            if all(
                parent in names
                for parent in path.parents
                if self._root in parent.parents
            )
        }


def everything(_: int, moment: int) -> int:
    """A disk that had kept every change of names."""
    return moment


def only_what_is_sure(synced: int, _: int) -> int:
    """A disk that had kept none that was not synced."""
    return synced


def restore(left: dict[Path, bytes | None], folder: Path) -> None:
    """Write what a power cut left into a folder."""
    for path, content in sorted(left.items()):
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).write_bytes(content)
