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

from core.data.decoder import SECONDS
from core.data.desk import NONE, new_desk
from core.data.frames import BrokenFrame, parsed, receive, receive_text, send
from core.errors import UserError

Answer = tuple[dict[str, Any], bytes | memoryview]
"""What a decoder said of one file: a header that is not to be trusted, and bytes."""

DIED: Final[Answer] = ({"refused": "too much work", "facts": {}}, b"")

_MOST_SAID: Final = 16 * 1024
"""Bytes of JSON about one file, besides as many as its pixels have."""

_STALLED: Final = 60.0
"""Seconds of patience with a decoder, besides `SECONDS` for each file."""

# Isolated from the user's settings and folders, with this program's own packages.
_PREPARE: Final = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
_DECODER: Final = "from core.data.decoder import main; main()"


def decoder_count() -> int:
    """How many decoders run side by side: one more than processors, eight at most.

    One more, so that none has to wait for what another is sent or answers.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return min(8, processors + 1)


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
        self, task: dict[str, Any], contents: Sequence[bytes], most: Sequence[int]
    ) -> list[Answer]:
        """One answer for each content, in order; `DIED` for one that ended a decoder.

        Args:
            task: What to do, as `core.data.decoder` has it.
            contents: Whole files.
            most: For each of them, the bytes that its answer may have.

        Raises:
            UserError: If no decoder can be started.
        """
        decoder = self._idle.get()
        try:
            answers = decoder.converse(task, contents, sum(most))
            if len(answers) == len(contents):
                return answers
            if len(contents) == 1:
                return [DIED]
            # A death does not tell which file it was of: each is asked about by itself.
            return [
                (decoder.converse(task, [content], bytes_of_it) or [DIED])[0]
                for content, bytes_of_it in zip(contents, most, strict=True)
            ]
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """End all processes."""
        for decoder in self._all:
            decoder.close()


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
        self._desk = new_desk()
        self._lock = threading.Lock()
        self._closed = False

    def converse(
        self, task: dict[str, Any], contents: Sequence[bytes], most: int
    ) -> list[Answer]:
        """Answers in order, of so many bytes in all; none if the process died."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        patience = _STALLED + SECONDS * len(contents)
        impatient = threading.Timer(patience, process.kill)
        impatient.daemon = True
        impatient.start()
        try:
            laid = self._desk.lay(contents)
            sizes = [len(content) for content in contents]
            request = task | {"sizes": sizes, "on_desk": laid}
            send(process.stdin, request, *(() if laid else contents))
            return _received(process.stdout, len(contents), most)
        except (OSError, BrokenFrame):
            self.end()
            return []
        except BaseException:
            # What is still to come must not be taken for the answer to the next.
            self.end()
            raise
        finally:
            impatient.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise OSError("the decoders are closed")
            if self._process is None:
                desk = self._desk.handle
                arguments = [str(desk), *(["dicom"] if self._dicom else [])]
                inherited = () if desk == NONE else (desk,)
                self._process = started(_DECODER, arguments, subprocess.PIPE, inherited)
            return self._process

    def end(self) -> None:
        """End the process, if there is one, and wait for its end."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            ended(process)

    def close(self) -> None:
        """End the process for good."""
        with self._lock:
            self._closed = True
        self.end()
        self._desk.clear()


def _received(pipe: IO[bytes], count: int, most: int) -> list[Answer]:
    """So many answers, which have at most so many bytes in all.

    Raises:
        BrokenFrame: If there come others.
    """
    answers: list[Answer] = []
    words = count * _MOST_SAID + most
    while len(answers) < count:
        text, blob = receive_text(pipe, words, most)
        words, most = words - len(text), most - len(blob)
        answers += _answers(parsed(text), blob)
    if len(answers) > count:
        raise BrokenFrame
    return answers


def _answers(header: dict[str, Any], blob: bytes) -> list[Answer]:
    """The answers of one message, each with its own bytes.

    Raises:
        BrokenFrame: If it is no such message.
    """
    answers: list[Answer] = []
    said, start, pixels = header.get("answers"), 0, memoryview(blob)
    for answer in said if isinstance(said, list) else ():
        match answer:
            case [dict(facts), int(length)] if 0 <= length <= len(blob) - start:
                answers.append((facts, pixels[start : start + length]))
                start += length
            case _:
                raise BrokenFrame
    if not answers or start != len(blob):
        raise BrokenFrame
    return answers


def started(
    code: str,
    arguments: list[str],
    given: IO[bytes] | int,
    inherited: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a process of our own that reads hostile bytes, and wait until it is locked.

    Args:
        code: What it runs, once this program's packages can be imported.
        arguments: For `sys.argv`.
        given: Its standard input: a pipe, or the file that it is to read.
        inherited: Handles that it finds open under the same numbers.

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
        cwd=os.path.abspath(os.sep),
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        # Ctrl-C is for this program, which stops at a safe point.
        start_new_session=True,
        pass_fds=inherited,
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
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was still to be written goes nowhere
            if pipe is not None:
                pipe.close()
    process.wait()
