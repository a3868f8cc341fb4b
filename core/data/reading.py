"""Decodes image files that may be damaged or hostile, one by one and without trust.

A file that cannot be read becomes a `Problem`; it never ends the run.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from core.data.dataset import Problem
from core.data.paths import leaves
from core.data.resampling import MODES, to_square

FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP")
"""The only decoders that are ever tried, whatever a file is called."""

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MAX_PIXELS: Final = 64_000_000
MAX_BYTES: Final = 512 * 1024 * 1024

_BATCH: Final = 128
_THREADS: Final = max(1, min(8, os.cpu_count() or 1))


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
    """Images that lie in one file each.

    Attributes:
        root: The dataset's folder, resolved. No file outside it is opened.
        paths: Of every image, relative to `root`, with forward slashes.
    """

    root: Path
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def channels(self) -> int:
        """3: files may be in colour, and no file has a say in the release's shape.

        One person's only colour picture among grey ones would show otherwise.
        """
        return 3

    def read(self, resolution: int, channels: int) -> Iterator[list[Picture | Problem]]:
        """All images in order, in batches; memory holds one batch."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="sfumato-read") as pool:
            for start in range(0, len(self.paths), _BATCH):
                batch = self.paths[start : start + _BATCH]
                with warnings.catch_warnings():
                    # Set here and not in the workers: filters are of the process.
                    warnings.simplefilter("error", Image.DecompressionBombWarning)
                    yield list(
                        pool.map(
                            lambda path: read_image(
                                self.root, path, resolution, channels
                            ),
                            batch,
                        )
                    )

    def signature(self) -> str:
        """Hex digest of every (path, size, time of change): tells whether to reread."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(stamp(self.root, path))
        return digest.hexdigest()


def stamp(root: Path, path: str) -> bytes:
    """Name, size and time of change of one file, for a signature."""
    try:
        status = (root / path).stat()
        facts = f"{status.st_size}\0{status.st_mtime_ns}"
    except OSError:
        facts = "gone"
    return f"{path}\0{facts}\n".encode("utf-8", "surrogateescape")


def read_image(
    root: Path, path: str, resolution: int, channels: int
) -> Picture | Problem:
    """Read one image file, upright, at the working resolution.

    Args:
        root: The dataset's folder, resolved.
        path: Relative to it.
        resolution: Side of the result in pixels.
        channels: 1 or 3.

    Returns:
        The picture, or the problem that keeps it out. Raises nothing.
    """
    try:
        content = read_bytes(root, path)
        with _open(content) as image:
            mode = image.mode
            upright = ImageOps.exif_transpose(image)
            width, height = upright.size
            pixels = to_square(upright, resolution, channels)
    except _Refused as refusal:
        return refusal.problem(path)
    except Exception as error:
        # A decoder that is fed hostile bytes may raise anything; whatever it is, it
        # concerns this file only.
        return _undecodable(error).problem(path)
    return Picture(
        pixels=pixels,
        digest=hashlib.sha256(content).digest(),
        width=width,
        height=height,
        mode=mode,
    )


def read_bytes(root: Path, path: str, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file below `root`.

    Decoding from these bytes, and hashing the same, leaves no moment in which another
    program could exchange the file.
    """
    full = root / path
    if leaves(full, root):
        if not full.exists():
            raise _Refused("missing", "The file is not there: restore or unlist it.")
        raise _Refused(
            "link", "The path leaves the folder: copy the file itself into the dataset."
        )
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        # A pipe in the folder would otherwise block the run for ever.
        flags |= getattr(os, "O_NONBLOCK", 0)
        with open(os.open(full.resolve(), flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _Refused("not a file", "This is no ordinary file: remove it.")
            if status.st_size > limit:
                raise _Refused(
                    "too large",
                    f"The file is larger than {limit // 2**20} MB: reduce it.",
                )
            return file.read(limit)
    except OSError as error:
        raise _Refused(
            "cannot be opened",
            f"The file cannot be opened ({error.strerror}): check its permissions.",
        ) from error


class _Refused(Exception):
    """Why a file is left out, in the words of a `Problem`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    def problem(self, path: str) -> Problem:
        return Problem(path=path, kind=self.kind, message=self.message)


def _open(content: bytes) -> Image.Image:
    """Open by content, with our own limits checked before any pixel is decoded."""
    if not content:
        raise _Refused("empty file", "The file is empty: restore it.")
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise _Refused(
            "too many pixels",
            f"The image has {image.width}×{image.height} pixels, more than "
            f"{MAX_PIXELS // 10**6} million: reduce it.",
        )
    if image.format in ("TIFF", "PNG") and getattr(image, "is_animated", False):
        raise _Refused(
            "several frames",
            "The file holds more than one image: save each one as a file of its own.",
        )
    if image.mode not in MODES:
        raise _Refused(
            "unsupported mode",
            f"Pixels of mode {image.mode} have no public range: save the image with 8 "
            "or 16 bits per channel.",
        )
    return image


def _undecodable(error: Exception) -> _Refused:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _Refused(
            "too many pixels",
            f"The image has more than {MAX_PIXELS // 10**6} million pixels: reduce it.",
        )
    return _Refused(
        "cannot be decoded",
        "The file is damaged, truncated or not a PNG, JPEG, TIFF or BMP image: repair "
        "or remove it.",
    )
