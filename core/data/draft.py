"""A cache in the making: on the disk from the first batch on, so that it is resumed.

Pixels, digests and problems are appended to files of their own; now and then all are
synced, and only then does `progress.json` say how far they count. What lies beyond is
cut off when the draft is opened again, after a stop, a crash or a power cut.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import IO, Final

import numpy as np

from core.data.dataset import Problem
from core.data.reading import Picture
from core.data.records import Intake
from core.data.vault import OVERHEAD, Vault
from core.errors import UserError
from core.files import read_json, sync_folder, write_json

IMAGES: Final = "images.npy"
HEADER_LENGTH: Final = 128

_ROWS: Final = "rows.i64"
_DIGESTS: Final = "digests.sha256"
_PROBLEMS: Final = "problems.jsonl"
_PROGRESS: Final = "progress.json"
_NOTES: Final = (_ROWS, _DIGESTS, _PROBLEMS)
_OFTEN: Final = 8192
"""Records between two points that a reading can be resumed from."""


class Draft(Intake):
    """An intake that writes down what it takes.

    Args:
        folder: Of this draft only, readable by its owner only; made or gone on with.
        image_bytes: Bytes of one working image.
        vault: Seals the images before they are written; None writes them as they are.
    """

    def __init__(
        self, folder: Path, image_bytes: int, vault: Vault | None = None
    ) -> None:
        super().__init__()
        self._folder = folder
        self._vault = vault
        self._image_bytes = image_bytes + (OVERHEAD if vault is not None else 0)
        self._noted_rows = self._noted_problems = self._last = 0
        folder.mkdir(mode=0o700, exist_ok=True)
        lengths = self._recall()
        self._files = {name: _opened(folder / name, n) for name, n in lengths.items()}

    def keep(self, pictures: list[Picture]) -> None:
        """Append the pixels of one batch."""
        contents = [picture.pixels.tobytes() for picture in pictures]
        # PRIVACY: in an encrypted cache no pixel touches the disk unsealed.
        if self._vault is not None:
            first, seal = len(self.rows) - len(pictures), self._vault.seal
            contents = [seal(one, place) for place, one in enumerate(contents, first)]
        self._files[IMAGES].write(b"".join(contents))
        if self.done - self._last >= _OFTEN:
            self.note()

    def note(self) -> None:
        """Make everything that was taken so far survive a power cut."""
        rows, problems = self.rows[self._noted_rows :], self.problems
        self._files[_ROWS].write(rows.tobytes())
        self._files[_DIGESTS].write(self.digests[32 * self._noted_rows :])
        for problem in problems[self._noted_problems :]:
            self._files[_PROBLEMS].write(json.dumps(asdict(problem)).encode() + b"\n")
        for file in self._files.values():
            sync(file)
        self._noted_rows, self._noted_problems = len(self.rows), len(problems)
        self._last = self.done
        write_json(
            self._folder / _PROGRESS,
            {
                "done": self.done,
                "lengths": {name: file.tell() for name, file in self._files.items()},
            },
        )

    def finish(self, shape: tuple[int, int, int]) -> None:
        """Close the images as a .npy file, and take the notes away.

        Sealed ones are rows of bytes there.
        """
        images = self._files[IMAGES]
        images.seek(0)
        row = shape if self._vault is None else (self._image_bytes,)
        images.write(_npy_header((len(self.rows), *row)))
        sync(images)
        self.close()
        for name in (*_NOTES, _PROGRESS):
            (self._folder / name).unlink(missing_ok=True)
        sync_folder(self._folder)

    def close(self) -> None:
        """Let the files go."""
        for file in self._files.values():
            file.close()

    def _recall(self) -> dict[str, int]:
        """Take up what was noted; gives the lengths of the files that count."""
        try:
            progress = read_json(self._folder / _PROGRESS)
            lengths = {
                name: int(progress["lengths"][name]) for name in (IMAGES, *_NOTES)
            }
            notes = {
                name: (self._folder / name).read_bytes()[: lengths[name]]
                for name in _NOTES
            }
            count = len(notes[_ROWS]) // 8
            whole = (
                (self._folder / IMAGES).stat().st_size >= lengths[IMAGES]
                and lengths[IMAGES] == HEADER_LENGTH + count * self._image_bytes
                and all(len(notes[name]) == lengths[name] for name in _NOTES)
                and len(notes[_DIGESTS]) == 32 * count
            )
            if whole:
                problems = [
                    Problem(**json.loads(line))
                    for line in notes[_PROBLEMS].decode().splitlines()
                ]
                self.rows.frombytes(notes[_ROWS])
                self.digests += notes[_DIGESTS]
                self.problems += problems
                self.done = self._last = int(progress["done"])
                self._noted_rows, self._noted_problems = count, len(problems)
                return lengths
        except (OSError, UserError, ValueError, KeyError, TypeError):
            pass  # There is no draft, or it is damaged: begin anew.
        return {IMAGES: HEADER_LENGTH} | dict.fromkeys(_NOTES, 0)


def created(path: Path) -> IO[bytes]:
    """A new file that only its owner can read."""
    return _opened(path, 0)


def sync(file: IO[bytes]) -> None:
    """Bring a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _opened(path: Path, length: int) -> IO[bytes]:
    """A file of so many bytes, to be written on from its end; only its owner's."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0)
    file = open(os.open(path, flags, 0o600), "r+b")
    file.truncate(length)
    file.seek(length)
    return file


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """A version 1.0 .npy header of `HEADER_LENGTH` bytes for uint8, C order."""
    descr = np.dtype(np.uint8).str
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    text = repr(fields).encode("latin1")
    start = b"\x93NUMPY\x01\x00" + (HEADER_LENGTH - 10).to_bytes(2, "little")
    return start + text.ljust(HEADER_LENGTH - 11) + b"\n"
