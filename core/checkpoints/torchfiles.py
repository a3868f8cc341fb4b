"""Reading PyTorch weight files (.pt, .pth, .bin) without unpickling anything.

Such a file is a pickle, a small program, with raw tensors beside it. The program is
never run: its instructions are read one by one, those that every weight file consists
of are followed, and the file is refused at the first other one, before any tensor is
read. A name in it stays a name; nothing is looked up, imported or called.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from core.errors import UserError

LARGEST_PROGRAM = 64 * 2**20
"""Bytes of the pickle itself; those of the largest public networks have 0.1 MB."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_NUMBERS = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_CONTAINERS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}


_DAMAGED = (
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    RuntimeError, OverflowError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a file that is not what it seems may raise."""


class _Name(NamedTuple):
    """A function or class that the file names."""

    module: str
    name: str


class _Storage(NamedTuple):
    """The raw numbers of one or more tensors."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the file.

    Attributes:
        storage: Its raw numbers.
        offset, shape, stride: Which of them, counted in numbers.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class TorchFile:
    """A weight file whose program was read, and found to hold tensors only.

    Attributes:
        content: What `torch.load` would give, with `StoredTensor` for every tensor.
    """

    content: Any
    _raw: Callable[[_Storage], bytes]

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read one tensor.

        Raises:
            UserError: when the file does not hold what it says.
        """
        try:
            raw = bytearray(self._raw(stored.storage))
            numbers = torch.frombuffer(raw, dtype=stored.storage.dtype)
            if len(numbers) != stored.storage.count:
                raise ValueError("a tensor has another length than it says")
            return numbers.as_strided(stored.shape, stored.stride, stored.offset)
        except _DAMAGED as error:
            raise UserError(
                f"The weight file is damaged ({error}): copy it again from its source."
            ) from None


def open_torch_file(path: Path) -> TorchFile:
    """Read the program of a weight file; tensors are read when asked for.

    Guarantee: nothing in the file is executed, and no name in it is looked up.

    Raises:
        UserError: when it is no weight file, is damaged, or would do more than hold
            tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            return _open_zip(path)
        return _open_legacy(path)
    except _Refused as refusal:
        raise UserError(f"The file {path} {refusal}") from None
    except _DAMAGED as error:
        raise UserError(
            f"The file {path} is no PyTorch weight file, or is damaged ({error}): copy "
            "it again from its source."
        ) from None


class _Refused(Exception):
    """Goes on the sentence "The file … "."""


def _open_zip(path: Path) -> TorchFile:
    """The format since PyTorch 1.6: an uncompressed archive."""
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise _Refused("holds two entries of one name: copy it from its source.")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _Refused("is compressed, as no weight file is: unpack it first.")
    programs = [name for name in names if name.endswith("/data.pkl")]
    if len(programs) != 1:
        raise _Refused(
            "is an archive, but not one that PyTorch wrote: choose the weight file "
            "itself, with .pt, .pth or .bin at its end."
        )
    root = programs[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in names and archive.read(order) != b"little":
        raise _Refused("was written on a machine of another byte order.")
    if archive.getinfo(programs[0]).file_size > LARGEST_PROGRAM:
        raise _Refused("holds more instructions than any weight file.")
    with archive.open(programs[0]) as program:
        content = _Reader().read(program)

    def raw(storage: _Storage) -> bytes:
        return archive.read(f"{root}data/{storage.key}")

    return TorchFile(content, raw)


def _open_legacy(path: Path) -> TorchFile:
    """The format before PyTorch 1.6: pickles, then the storages one after another."""
    with open(path, "rb") as file:
        if file.read(1) != b"\x80":
            raise _Refused(
                "is no PyTorch weight file: choose one that ends in .pt, .pth, .bin or "
                ".safetensors."
            )
        file.seek(0)
        if _Reader().read(file) != _LEGACY_MAGIC:
            raise _Refused(
                "is a pickle, but not one that PyTorch wrote: it cannot be imported."
            )
        _Reader().read(file)  # Version of the format.
        _Reader().read(file)  # The machine that wrote it.
        reader = _Reader()
        content = reader.read(file)
        places = _legacy_places(file, _Reader().read(file), reader.storages)

    def raw(storage: _Storage) -> bytes:
        with open(path, "rb") as again:
            again.seek(places[storage.key])
            return again.read(storage.count * storage.dtype.itemsize)

    return TorchFile(content, raw)


def _legacy_places(
    file: BinaryIO, keys: list[str], storages: dict[str, _Storage]
) -> dict[str, int]:
    places = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        if count != storages[key].count:
            raise ValueError("a tensor has another length than it says")
        places[key] = file.tell()
        file.seek(count * storages[key].dtype.itemsize, 1)
    return places


class _Sparing:
    """A file from which one instruction reads no more than a weight file's would.

    A damaged length must not make Python set aside that much memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, LARGEST_PROGRAM))

    def readline(self) -> bytes:
        return self._file.readline(LARGEST_PROGRAM)


class _Reader:
    """Follows the instructions of one pickle that only builds containers of tensors."""

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self, program: BinaryIO) -> Any:
        """Read up to the end of the pickle; give back what it builds."""
        for opcode, argument, _ in pickletools.genops(_Sparing(program)):
            self._follow(opcode.name, argument)
        return self._stack.pop()

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = self._since_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                items = self._since_mark()
                stack[-1].extend(items)
            case "GLOBAL":
                stack.append(_allowed(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                named, module = stack.pop(), stack.pop()
                stack.append(_allowed(module, named))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_built(function, arguments))
            case "BUILD":
                stack.pop()  # Attributes of a dictionary: versions of the modules.
            case _:
                raise _Refused(
                    f"holds an instruction ({name}) that no weight file needs: it is "
                    "refused, and was not run."
                )

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _storage(self, identity: Any) -> _Storage:
        kind, numbers, key, _place, count = identity[:5]
        if kind != "storage" or not isinstance(numbers, _Name):
            raise ValueError("an unknown kind of tensor")
        storage = _Storage(str(key), _NUMBERS[numbers.name], int(count))
        self.storages[storage.key] = storage
        return storage


def _allowed(module: str, name: str) -> _Name:
    """The name, if it is one of those that weight files consist of."""
    if (module, name) in _CONTAINERS or (module == "torch" and name in _NUMBERS):
        return _Name(module, name)
    raise _Refused(
        f"wants to run code when it is read ({module}.{name}): it is refused, and was "
        "not run. Ask its source for a file of weights only."
    )


def _built(function: Any, arguments: Any) -> Any:
    """What a weight file makes of its parts."""
    match function:
        case _Name("collections", "OrderedDict"):
            return dict(*arguments)
        case _Name("torch._utils", "_rebuild_parameter"):
            return arguments[0]
        case _Name("torch._utils", "_rebuild_tensor_v2"):
            storage, offset, shape, stride = arguments[:4]
            if not isinstance(storage, _Storage):
                raise ValueError("a tensor without numbers")
            return StoredTensor(storage, offset, shape, stride)
    raise _Refused("calls something that is no function: it is refused.")
