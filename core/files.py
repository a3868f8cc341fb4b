"""Writing files so that no crash, full disk or power cut leaves half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core.errors import UserError

OWNER_ONLY_FOLDER = 0o700
_UNFINISHED = ".part"


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can read; give back its path.

    Raises:
        UserError: when it cannot be made.
    """
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True, mode=OWNER_ONLY_FOLDER)
            sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    return path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Replace `path` by what `write` puts into a temporary file beside it.

    Temporary file (owner-only) → write → fsync → rename → fsync of the folder: a reader
    sees the old file or the whole new one, after a power cut too.

    Raises:
        UserError: when the disk is full or the folder cannot be written; `path` is then
            as it was, or whole and new.
    """
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with open(temporary, "rb+") as written:
                _sync(written.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except Exception as error:
        if (cause := _disk_error(error)) is None:
            raise
        raise explained(cause, path) from error


def _disk_error(error: Exception) -> OSError | None:
    """The error of the disk behind this one, if there is one.

    The safetensors library reports a full disk as an error of its own, with the number
    in its text.
    """
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def remove_unfinished(folder: Path) -> None:
    """Delete what a kill or a power cut left of files that were being written here.

    Only where nobody else may be writing.
    """
    for pattern in (f".*{_UNFINISHED}", ".tmp??????"):  # safetensors makes the second.
        for left in folder.glob(pattern):
            with suppress(OSError):
                left.unlink()


def _sync(handle: int) -> None:
    """Make an open file survive a power cut."""
    if sys.platform == "darwin":
        import fcntl

        # There, fsync alone leaves it in the drive's own memory.
        with suppress(OSError):  # Some network drives cannot do more than fsync.
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a power cut (a no-op on Windows)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            _sync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically, with stable key order."""
    write_atomically(
        path, lambda file: file.write_text(_json(content), encoding="utf-8")
    )


def overwrite_json(path: Path, content: object) -> None:
    """Write a small JSON file in place, without waiting for the disk.

    For content of constant length that may be a little old after a power cut.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        with open(path, "r+b") as file:
            file.write(_json(content).encode())
            file.truncate()
    except FileNotFoundError:
        write_json(private_folder(path.parent) / path.name, content)
    except OSError as error:
        raise explained(error, path) from error


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def read_json(path: Path) -> dict:
    """Read a JSON object that Sfumato wrote.

    Raises:
        UserError: when it is missing, unreadable or not a JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise explained(error, path) from error
    return parse_json(content, path)


def read_limited(path: Path, most: int) -> bytes:
    """The bytes of a file that somebody else may have written.

    Args:
        most: Bytes that such a file can have.

    Raises:
        UserError: when it is missing, unreadable or larger.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise explained(error, path) from error
    if len(content) > most:
        raise UserError(
            f"The file {path} is larger than such a file can be: copy it again from "
            "its source."
        )
    return content


def parse_json(content: bytes, path: Path) -> dict:
    """The JSON object that the file `path` held.

    Raises:
        UserError: when it is none.
    """
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise UserError(
            f"The file {path} is damaged (not valid JSON): restore it from a backup, "
            "or delete its folder to repeat that stage."
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"The file {path} is not what Sfumato wrote there: restore it.")
    return found


def require_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        needed: Bytes.

    Raises:
        UserError: when less is free where `folder` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"The disk that holds {folder} has {free / 1e6:,.0f} MB free and "
            f"{needed / 1e6:,.0f} MB are needed: free some space first; nothing is "
            "spent before that."
        )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in lower-case hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def explained(error: OSError, path: Path) -> UserError:
    """The same error in the custodian's words, with the remedy."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            remedy = (
                "the disk is full: free some space and start again; what was saved is "
                "kept"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            remedy = "it may not be written or read: choose a folder that is yours"
        case errno.ENOENT:
            remedy = "it is not there: check the path"
        case _:
            remedy = f"{error.strerror or error}: check the disk"
    return UserError(f"Cannot use {path}: {remedy}.")
