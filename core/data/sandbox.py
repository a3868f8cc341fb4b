"""Starts decoder processes and talks to them; a file that kills one costs only itself.

The other side is `core.data.decoder`. It gets bytes, never a path, and what it answers
is checked for its shape before it is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Final

from core.data.decoder import BUFFER, SECONDS
from core.data.frames import BrokenFrame, receive, send
from core.errors import UserError

Answer = tuple[dict[str, Any], bytes]
"""What a decoder said of one file: a header that is not to be trusted, and bytes."""

DIED: Final[Answer] = ({"refused": "too much work", "facts": {}}, b"")

_STALLED: Final = 60.0
"""Seconds of patience with a decoder, besides `SECONDS` for each file."""

# Isolated from the user's settings and folders, with this program's own packages.
_PREPARE: Final = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
_DECODER: Final = "from core.data.decoder import main; main()"


def decoder_count() -> int:
    """How many decoders run side by side: one for each processor, eight at most."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(8, len(os.sched_getaffinity(0))))
    return max(1, min(8, os.cpu_count() or 1))


class Decoders:
    """Decoder processes that several threads may ask; a dead one is replaced.

    Args:
        count: How many run at most; each is started when it is first needed.
        dicom: Whether DICOM files may come, whose library takes a while to load.
    """

    def __init__(self, count: int, *, dicom: bool = False) -> None:
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        self._all = [_Decoder(dicom=dicom) for _ in range(count)]
        for decoder in self._all:
            self._idle.put(decoder)

    def ask(
        self, task: dict[str, Any], contents: Sequence[bytes], most: int
    ) -> list[Answer]:
        """One answer for each content, in order; `DIED` for one that ended a decoder.

        Args:
            task: What to do, as `core.data.decoder` has it.
            contents: Whole files.
            most: Bytes that the answer for one file may have.

        Raises:
            UserError: If no decoder can be started.
        """
        decoder = self._idle.get()
        try:
            answers: list[Answer] = []
            # Answers wait for others, so that a death does not tell which file was it:
            # then the rest is gone through again, with each answer sent by itself.
            each = len(contents) == 1
            while len(answers) < len(contents):
                rest = contents[len(answers) :]
                answers += decoder.converse(task | {"each": each}, rest, most)
                if len(answers) < len(contents):
                    if each:
                        answers.append(DIED)
                    each = True
            return answers
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """End all processes."""
        for decoder in self._all:
            decoder.end()


@contextmanager
def decoders(count: int, *, dicom: bool = False) -> Iterator[Decoders]:
    """Decoders for the length of a `with` block."""
    pool = Decoders(count, dicom=dicom)
    try:
        yield pool
    finally:
        pool.close()


class _Decoder:
    """One process, or none when it has not been needed yet or has died."""

    def __init__(self, *, dicom: bool) -> None:
        self._dicom = dicom
        self._process: subprocess.Popen[bytes] | None = None

    def converse(
        self, task: dict[str, Any], contents: Sequence[bytes], most: int
    ) -> list[Answer]:
        """Answers in order; fewer than contents when the process died of the next."""
        process = self._process = self._process or started(
            _DECODER, ["dicom"] if self._dicom else [], subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        answers: list[Answer] = []
        patience = _STALLED + SECONDS * len(contents)
        impatient = threading.Timer(patience, process.kill)
        impatient.daemon = True
        impatient.start()
        try:
            sizes = [len(content) for content in contents]
            send(process.stdin, task | {"sizes": sizes}, *contents)
            for _ in contents:
                answers.append(receive(process.stdout, most))
        except (OSError, BrokenFrame):
            self.end()
        finally:
            impatient.cancel()
        return answers

    def end(self) -> None:
        """End the process, if there is one, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            ended(process)


def started(
    code: str, arguments: list[str], given: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start a process of our own that reads hostile bytes, and wait until it is locked.

    Args:
        code: What it runs, once this program's packages can be imported.
        arguments: For `sys.argv`.
        given: Its standard input: a pipe, or the file that it is to read.

    Raises:
        UserError: If it does not start.
    """
    root = str(Path(__file__).parents[2])
    packages = [root, *(path for path in sys.path if path and path != root)]
    process = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", "-c", _PREPARE + code),
            *(json.dumps(packages), *arguments),
        ],
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=BUFFER,
        cwd=os.path.abspath(os.sep),
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        # Ctrl-C is for this program, which stops at a safe point.
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        receive(process.stdout, 0)
    except (OSError, BrokenFrame):
        ended(process)
        raise UserError(
            "The process that decodes images did not start: free some memory and try "
            "again, or install Sfumato anew."
        ) from None
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for its end."""
    process.kill()
    with suppress(OSError):  # what was still to be written goes nowhere
        process.communicate()
