"""IDX pairs of images and labels: MNIST, Fashion-MNIST, KMNIST, EMNIST, QMNIST."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np

from core.data.arrays import BLOCK_BYTES, MAX_IMAGES, MAX_SIDE, ArrayImages
from core.data.formats.base import Index
from core.data.options import ReadOptions
from core.data.paths import leaves
from core.errors import UserError

FASHION_CLASSES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_GZIP: Final = b"\x1f\x8b"
_TYPES: Final = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_QMNIST_COLUMNS: Final = 8
_DECODING_ERRORS: Final = (EOFError, gzip.BadGzipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the first bytes of an IDX file declare.

    Attributes:
        dtype: Of one element, big-endian.
        shape: Sizes, first dimension first.
        length: Bytes of the header itself.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    length: int

    @property
    def data_length(self) -> int:
        """Bytes that must follow the header, no more and no less."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_header(start: bytes) -> Header:
    """Read an IDX header from the first bytes of a file.

    Raises:
        ValueError: If they are not an IDX header, in a few words.
    """
    if len(start) < 4 or start[:2] != b"\0\0":
        raise ValueError("no IDX header")
    dtype = _TYPES.get(start[2])
    dimensions = start[3]
    if dtype is None or not 1 <= dimensions <= 4:
        raise ValueError("an unknown IDX type or number of dimensions")
    length = 4 + 4 * dimensions
    if len(start) < length:
        raise ValueError("a header that breaks off")
    shape = struct.unpack(f">{dimensions}I", start[4:length])
    return Header(dtype=dtype, shape=shape, length=length)


@dataclass(frozen=True, kw_only=True)
class IdxFile:
    """An IDX file of images, as `core.data.arrays` wants it."""

    path: Path
    count: int

    def blocks(self) -> Iterator[np.ndarray]:
        """uint8 [n, rows, columns]; the length of the file is checked."""
        with _explained(self.path), _opened(self.path) as content:
            header = _open_checked(self.path, content)
            count, rows, columns = header.shape
            at_once = max(1, BLOCK_BYTES // (rows * columns))
            for start in range(0, count, at_once):
                wanted = min(at_once, count - start) * rows * columns
                data = content.read(wanted)
                _check_length(self.path, len(data), wanted)
                yield np.frombuffer(data, np.uint8).reshape(-1, rows, columns)
            _check_length(self.path, len(content.read(1)), 0)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    images: Path
    labels: Path
    held_out: bool


class Idx:
    """`train-images-idx3-ubyte[.gz]` with its labels, and `t10k-…` or `…test…`.

    Found in the folder itself, in `raw/` or in `*/raw/`. A folder whose path says
    "fashion" gets the class names of Fashion-MNIST, others the digits (and further
    numbers where labels go on). QMNIST labels give the writer as the group.
    """

    name = "IDX"

    def detect(self, path: Path) -> bool:
        return path.is_dir() and bool(_image_files(path))

    def index(self, path: Path, options: ReadOptions) -> Index:
        pairs = _pairs(path)
        counts, labels, groups = [], [], []
        for pair in pairs:
            count = _checked_count(pair.images)
            rows = _read_labels(pair.labels)
            if len(rows) != count:
                raise UserError(
                    f"The file {pair.labels.name} holds {len(rows)} labels but "
                    f"{pair.images.name} holds {count} images: copy both files again "
                    "from the same source."
                )
            counts.append(count)
            labels.append(rows[:, 0])
            groups.append(rows[:, 2] if rows.shape[1] == _QMNIST_COLUMNS else None)
        every_label = np.concatenate(labels).astype(np.int64)
        writers = [group for group in groups if group is not None]
        # PRIVACY: decided by which files there are, as in `splitting`.
        has_test = any(pair.held_out for pair in pairs)
        held_out = np.concatenate(
            [
                np.full(n, p.held_out, np.uint8)
                for p, n in zip(pairs, counts, strict=True)
            ]
        )
        return Index(
            format_name=self.name,
            class_names=_class_names(path, every_label),
            images=ArrayImages(
                root=path.resolve(),
                arrays=tuple(
                    IdxFile(path=pair.images, count=count)
                    for pair, count in zip(pairs, counts, strict=True)
                ),
                colour=False,
            ),
            labels=every_label,
            groups=tuple(map(str, np.concatenate(writers).tolist()))
            if len(writers) == len(pairs)
            else None,
            unit_column="writer" if len(writers) == len(pairs) else "",
            official_splits=held_out if has_test else None,
            official_split_names=("train", "test")
            if has_test
            else ("train", "held_out"),
        )


def _class_names(path: Path, labels: np.ndarray) -> tuple[str, ...]:
    highest = int(labels.max(initial=0))
    if "fashion" in str(path.resolve()).lower() and highest < len(FASHION_CLASSES):
        return FASHION_CLASSES
    return tuple(str(number) for number in range(max(10, highest + 1)))


def _image_files(path: Path) -> list[Path]:
    """IDX files of images, found by their first bytes; plain ones before `.gz`."""
    root = path.resolve()
    found: dict[str, Path] = {}
    for pattern in ("*", "raw/*", "*/raw/*"):
        for file in sorted(root.glob(pattern)):
            if "idx" not in file.name.lower() and "images" not in file.name.lower():
                continue
            if not file.is_file() or leaves(file, root) or not _holds_images(file):
                continue
            found.setdefault(str(file).removesuffix(".gz"), file)
        if found:
            break
    return list(found.values())


def _holds_images(file: Path) -> bool:
    """Whether the file starts like images; a name that says so counts when it does not
    even open, so that a damaged file is named and not passed over."""
    try:
        with _opened(file) as content:
            header = parse_header(content.read(4 + 4 * 4))
        return len(header.shape) == 3
    except (ValueError, OSError, *_DECODING_ERRORS):
        return "images-idx3" in file.name or "images.idx3" in file.name


def _pairs(path: Path) -> list[_Pair]:
    """Images with their labels, training first."""
    pairs = []
    for images in _image_files(path):
        train, test = "train" in images.name, _says_test(images.name)
        if train == test:
            raise UserError(
                f"The name of {images.name} does not tell whether it is for training: "
                "name it train-images-idx3-ubyte or t10k-images-idx3-ubyte."
            )
        pairs.append(_Pair(images=images, labels=_labels_of(images), held_out=test))
    for held_out in (False, True):
        twins = [pair.images.name for pair in pairs if pair.held_out == held_out]
        if len(twins) > 1:
            raise UserError(
                f"The folder {path} holds more than one dataset ({', '.join(twins)}): "
                "move each into a folder of its own."
            )
    if all(pair.held_out for pair in pairs):
        raise UserError(
            f"The folder {path} holds test images only: add train-images-idx3-ubyte "
            "and train-labels-idx1-ubyte."
        )
    return sorted(pairs, key=lambda pair: pair.held_out)


def _says_test(name: str) -> bool:
    return "t10k" in name or "test" in name


def _labels_of(images: Path) -> Path:
    stem = images.name.removesuffix(".gz").replace("images", "labels")
    names = [stem.replace("idx3", "idx1"), stem.replace("idx3-ubyte", "idx2-int")]
    for name in names:
        for candidate in (images.with_name(name), images.with_name(name + ".gz")):
            if candidate.is_file():
                if leaves(candidate, images.parent):
                    raise UserError(
                        f"The file {candidate} is a link that leaves its folder: copy "
                        "the file itself there."
                    )
                return candidate
    raise UserError(
        f"The labels of {images.name} are not there: put {names[0]} beside it."
    )


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The content of a plain or gzipped file, told apart by its first two bytes."""
    with file.open("rb") as raw:
        if raw.read(2) == _GZIP:
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield io.BufferedReader(unpacked)  # type: ignore[arg-type]
        else:
            raw.seek(0)
            yield raw


def _open_checked(file: Path, content: IO[bytes]) -> Header:
    """The header, with its sizes held against our limits before anything is read."""
    try:
        start = content.read(4)
        start += content.read(4 * start[3]) if len(start) == 4 else b""
        header = parse_header(start)
    except ValueError as error:
        raise UserError(
            f"The file {file.name} is no IDX file ({error}): copy it again."
        ) from None
    if header.shape[0] > MAX_IMAGES or any(n > MAX_SIDE for n in header.shape[1:]):
        raise UserError(
            f"The file {file.name} declares {'×'.join(map(str, header.shape))} "
            "elements, more than Sfumato reads: copy it again or split it."
        )
    return header


def _checked_count(file: Path) -> int:
    with _explained(file), _opened(file) as content:
        header = _open_checked(file, content)
    if header.dtype != np.uint8 or len(header.shape) != 3 or 0 in header.shape[1:]:
        raise UserError(
            f"The file {file.name} does not hold 8-bit images of rows and columns: "
            "choose an idx3-ubyte file."
        )
    return header.shape[0]


def _read_labels(file: Path) -> np.ndarray:
    """All labels, int64 [N, 1], or [N, 8] with QMNIST's further columns."""
    with _explained(file), _opened(file) as content:
        header = _open_checked(file, content)
        wanted = header.data_length
        data = content.read(wanted + 1)
    _check_length(file, len(data), wanted)
    columns = header.shape[1:]
    if header.dtype.kind not in "ui" or columns not in ((), (_QMNIST_COLUMNS,)):
        raise UserError(
            f"The file {file.name} does not hold one whole number per image: choose "
            "the idx1-ubyte file of labels."
        )
    width = columns[0] if columns else 1
    rows = np.frombuffer(data, header.dtype).reshape(header.shape[0], width)
    if rows.size and not 0 <= int(rows[:, 0].min()) <= int(rows[:, 0].max()) <= 999:
        raise UserError(
            f"The file {file.name} holds a label outside 0 to 999: copy it again."
        )
    return rows.astype(np.int64)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except _DECODING_ERRORS:
        raise UserError(
            f"The file {file.name} is damaged or breaks off before its end: copy it "
            "again."
        ) from None
    except OSError as error:
        raise UserError(
            f"The file {file} cannot be read ({error.strerror}): check its permissions."
        ) from error


def _check_length(file: Path, found: int, wanted: int) -> None:
    if found < wanted:
        raise UserError(
            f"The file {file.name} is truncated (its header declares more data than "
            "there is): copy it again."
        )
    if found > wanted:
        raise UserError(
            f"The file {file.name} is longer than its header declares: copy it again."
        )
