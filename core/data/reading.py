"""Reads image files that may be damaged or hostile, one by one and without trust.

Files are opened here, under the rules of `core.data.paths`, and decoded elsewhere, in
the processes of `core.data.sandbox`. A file that cannot be read becomes a `Problem`; it
never ends the run.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from core.data.dataset import Problem
from core.data.paths import leaves
from core.data.refusals import MAX_BYTES, Refused, problem
from core.data.sandbox import Answer, Decoders, decoder_count, decoders

ENDINGS: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_BATCH: Final = 64
_BATCH_BYTES: Final = 8 * 1024 * 1024
_WORKING_BYTES: Final = 8 * 1024 * 1024
_LONGEST_MODE: Final = 40

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image that was read.

    Attributes:
        pixels: uint8 [resolution, resolution, channels].
        digest: SHA-256 of the image as it is stored, 32 bytes.
        width: Pixels in the file, after turning it upright.
        height: The same.
        mode: What the header says, in Pillow's words ("RGB", "L", "I;16").
    """

    pixels: np.ndarray
    digest: bytes
    width: int
    height: int
    mode: str


@dataclass(frozen=True, kw_only=True)
class FileImages:
    """Images that lie in files.

    Attributes:
        root: The dataset's folder, resolved. No file outside it is opened.
        paths: Of every file, relative to `root`, with forward slashes.
        window: The declared range of values of deep pixels, or None.
        frames: How many images each file holds, or None when each holds one.
        studies: The study of each file, "" where none is told; None when none is.
        dicom: Whether DICOM files are among them.
    """

    root: Path
    paths: tuple[str, ...]
    window: tuple[float, float] | None = None
    frames: tuple[int, ...] | None = None
    studies: tuple[str, ...] | None = None
    dicom: bool = False

    def __len__(self) -> int:
        return len(self.paths) if self.frames is None else sum(self.frames)

    def channels(self) -> int:
        """3: files may be in colour, and no file has a say in the release's shape.

        One person's only colour picture among grey ones would show otherwise.
        """
        return 3

    def read(
        self, resolution: int, channels: int, first: int = 0
    ) -> Iterator[list[Picture | Problem]]:
        """All images from one on, in batches; memory holds a few batches.

        `first` is the first image of a file.
        """
        start = first if self.frames is None else self._file_of(first)
        task = {
            "task": "decode",
            "resolution": resolution,
            "channels": channels,
            "window": self.window,
        }
        shape = (resolution, resolution, channels)

        def checked(index: int, content: bytes, answer: Answer) -> list[Picture]:
            # PRIVACY: whether it is read must not hang on other DICOM files, for whose
            # sake the decoders know how.
            if is_picture(self.paths[start + index]) and content[128:132] == b"DICM":
                raise Refused("misnamed")
            return _pictures(content, answer, shape, self._frames_of(start + index))

        def most(index: int) -> int:
            return math.prod(shape) * self._frames_of(start + index)

        for batch in ask_about_files(
            self.root,
            self.paths[start:],
            task,
            checked,
            most=most,
            dicom=self.dicom,
            at_once=batch_size(resolution, channels),
        ):
            outcomes: list[Picture | Problem] = []
            for index, outcome in batch:
                if isinstance(outcome, Problem):
                    outcomes += [outcome] * self._frames_of(start + index)
                else:
                    outcomes += outcome
            yield outcomes

    def files(self) -> np.ndarray:
        """The number of the file of each image: int64 [n]."""
        each = 1 if self.frames is None else np.array(self.frames, np.int64)
        return np.repeat(np.arange(len(self.paths)), each)

    def name(self, number: int) -> str:
        """The file of an image, relative to the root."""
        return self.paths[number if self.frames is None else self._file_of(number)]

    def _frames_of(self, number: int) -> int:
        return 1 if self.frames is None else self.frames[number]

    def _file_of(self, first: int) -> int:
        """The number of the file that holds an image."""
        ends = np.cumsum(self.frames or ())
        return int(np.searchsorted(ends, first, side="right"))

    def signature(self) -> str:
        """Hex digest of every (path, size, time of change): tells whether to reread."""
        digest = hashlib.sha256(repr((self.window, self.frames)).encode())
        for path in self.paths:
            digest.update(stamp(self.root, path))
        return digest.hexdigest()


def is_picture(path: str) -> bool:
    """Whether a file is an image by its ending."""
    return path.lower().endswith(ENDINGS)


def batch_size(resolution: int, channels: int, most: int = _BATCH) -> int:
    """How many working images are held at a time: some megabytes of them."""
    return max(1, min(most, _WORKING_BYTES // (resolution * resolution * channels)))


def stamp(root: Path, path: str) -> bytes:
    """Name, size and time of change of one file, for a signature."""
    try:
        status = os.stat(f"{root}{os.sep}{path}")
        facts = f"{status.st_size}\0{status.st_mtime_ns}"
    except OSError:
        facts = "gone"
    return f"{path}\0{facts}\n".encode("utf-8", "surrogateescape")


def ask_about_files(
    root: Path,
    paths: Sequence[str],
    task: dict[str, Any],
    checked: Callable[[int, bytes, Answer], T],
    *,
    most: Callable[[int], int],
    dicom: bool,
    at_once: int = _BATCH,
) -> Iterator[list[tuple[int, T | Problem]]]:
    """Have decoders do a task with every file, several at a time.

    Args:
        root: The dataset's folder, resolved.
        paths: Relative to it.
        task: For `core.data.decoder`.
        checked: Makes of (index, content, answer) what is to be kept, trusting nothing
            in the answer; it may raise `Refused`.
        most: Index → bytes that the answer may have.
        dicom: Whether DICOM files may be among them.
        at_once: How many files make a batch.

    Yields:
        (index, result or problem) for all paths in order, some at a time.
    """
    opener = Opener(root)
    count = min(decoder_count(), -(-len(paths) // at_once))
    with (
        decoders(count, dicom=dicom) as pool,
        ThreadPoolExecutor(2 * count + 1, thread_name_prefix="sfumato-read") as threads,
    ):

        def work(start: int) -> list[tuple[int, T | Problem]]:
            numbers = range(start, min(start + at_once, len(paths)))
            return list(_asked(pool, opener, paths, numbers, task, checked, most))

        # Twice as many readers as decoders: while one waits, another reads ahead.
        yield from _in_order(
            threads, work, range(0, len(paths), at_once), ahead=2 * count + 1
        )


def _in_order(
    threads: ThreadPoolExecutor,
    work: Callable[[int], list[T]],
    starts: Iterable[int],
    ahead: int,
) -> Iterator[list[T]]:
    """Results in order, with at most `ahead` of them begun; the rest wait."""
    begun: deque[Future[list[T]]] = deque()
    try:
        for start in starts:
            begun.append(threads.submit(work, start))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def _asked(
    pool: Decoders,
    opener: Opener,
    paths: Sequence[str],
    numbers: Iterable[int],
    task: dict[str, Any],
    checked: Callable[[int, bytes, Answer], T],
    most: Callable[[int], int],
) -> Iterator[tuple[int, T | Problem]]:
    """One batch of files, in order, held in memory a few megabytes at a time."""
    waiting: list[tuple[int, bytes | Problem]] = []
    held = 0
    for number in numbers:
        try:
            content: bytes | Problem = opener.read(paths[number])
            held += len(content) + most(number)
        except Refused as refusal:
            content = problem(paths[number], refusal.kind, refusal.facts)
        waiting.append((number, content))
        if held > _BATCH_BYTES:
            yield from _answered(pool, paths, waiting, task, checked, most)
            waiting, held = [], 0
    yield from _answered(pool, paths, waiting, task, checked, most)


def _answered(
    pool: Decoders,
    paths: Sequence[str],
    waiting: list[tuple[int, bytes | Problem]],
    task: dict[str, Any],
    checked: Callable[[int, bytes, Answer], T],
    most: Callable[[int], int],
) -> Iterator[tuple[int, T | Problem]]:
    sent = [(number, one) for number, one in waiting if isinstance(one, bytes)]
    allowed = [most(number) for number, _ in sent]
    contents = [content for _, content in sent]
    answers = iter(pool.ask(task, contents, allowed) if contents else ())
    for number, content in waiting:
        if isinstance(content, Problem):
            yield number, content
            continue
        header, blob = next(answers)
        try:
            if "refused" in header:
                facts = header.get("facts")
                raise Refused(
                    str(header["refused"]), **facts if isinstance(facts, dict) else {}
                )
            yield number, checked(number, content, (header, blob))
        except Refused as refusal:
            yield number, problem(paths[number], refusal.kind, refusal.facts)


def _pictures(
    content: bytes, answer: Answer, shape: tuple[int, int, int], frames: int
) -> list[Picture]:
    """The pictures of one file, if the answer has the shape of an answer.

    Raises:
        Refused: If it has not.
    """
    header, blob = answer
    facts = header.get("pictures")
    size = shape[0] * shape[1] * shape[2]
    if not isinstance(facts, list) or len(facts) != frames:
        raise Refused("cannot be decoded")
    if len(blob) != frames * size:
        raise Refused("cannot be decoded")
    digest = hashlib.sha256(content).digest()
    pictures = []
    for frame, fact in enumerate(facts):
        match fact:
            case [int(width), int(height), str(mode)] if len(mode) < _LONGEST_MODE:
                pass
            case _:
                raise Refused("cannot be decoded")
        pixels = np.frombuffer(blob, np.uint8, size, frame * size).reshape(shape)
        pictures.append(
            Picture(
                pixels=pixels,
                digest=digest if frames == 1 else _frame_digest(digest, frame),
                width=width,
                height=height,
                mode=mode,
            )
        )
    return pictures


def _frame_digest(digest: bytes, frame: int) -> bytes:
    return hashlib.sha256(digest + frame.to_bytes(8, "big")).digest()


class Opener:
    """Opens regular files below a folder, and no others.

    Decoding from the bytes that it gives, and hashing the same, leaves no moment in
    which another program could exchange the file.

    Args:
        root: The dataset's folder, resolved.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inside: dict[str, bool] = {}

    def read(
        self, path: str, *, limit: int = MAX_BYTES, start: int = MAX_BYTES
    ) -> bytes:
        """The content of a file, or as many bytes from its start.

        Raises:
            Refused: If it leaves the folder, is no ordinary file, or cannot be opened.
        """
        try:
            handle = self._handle(path)
            try:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    raise Refused("not a file")
                if status.st_size > limit:
                    raise Refused("too large")
                return _content(handle, min(status.st_size, start))
            finally:
                os.close(handle)
        except FileNotFoundError:
            raise Refused("missing") from None
        except OSError as error:
            raise Refused("cannot be opened", reason=str(error.strerror)) from error

    def _handle(self, path: str) -> int:
        folder = path.rpartition("/")[0]
        inside = self._inside.get(folder)
        if inside is None:
            inside = self._inside[folder] = not leaves(self._root / folder, self._root)
        full = f"{self._root}{os.sep}{path}"
        # A pipe in the folder would otherwise block the run for ever.
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        if inside and _NOFOLLOW:
            try:
                return os.open(full, flags | _NOFOLLOW)
            except OSError as error:
                if error.errno not in _IT_IS_A_LINK:
                    raise
        if not inside or os.path.islink(full):
            if leaves(Path(full), self._root):
                raise Refused("link" if os.path.exists(full) else "missing")
            full = os.path.realpath(full)
        return os.open(full, flags | _NOFOLLOW)


_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_IT_IS_A_LINK: Final = (errno.ELOOP, errno.EMLINK)
"""What opening says that must follow no link: the second on FreeBSD."""


def _content(handle: int, size: int) -> bytes:
    """So many bytes of an open file, fewer when it has become shorter."""
    content = os.read(handle, size)
    if len(content) == size:
        return content
    pieces, missing = [content], size - len(content)
    while missing and (piece := os.read(handle, missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
