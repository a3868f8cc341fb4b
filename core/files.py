"""Writing files so that no crash, full disk or power cut leaves half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from core.errors import UserError

OWNER_ONLY_FOLDER = 0o700


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can read; give back its path.

    Raises:
        UserError: when it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=OWNER_ONLY_FOLDER)
    except OSError as error:
        raise explained(error, path) from error
    return path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Replace `path` by what `write` puts into a temporary file beside it.

    Temporary file (owner-only) → write → fsync → rename → fsync of the folder: a reader
    sees the old file or the whole new one, after a power cut too.

    Raises:
        UserError: when the disk is full or the folder cannot be written; `path` is then
            as it was.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error


def sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a power cut (a no-op on Windows)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically, with stable key order."""
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """Read a JSON object that Sfumato wrote.

    Raises:
        UserError: when it is missing, unreadable or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise explained(error, path) from error
    except ValueError:
        raise UserError(
            f"The file {path} is damaged (not valid JSON): restore it from a backup, "
            "or delete its folder to repeat that stage."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"The file {path} is not what Sfumato wrote there: restore it.")
    return content


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
            f"{needed / 1e6:,.0f} MB are needed: free some space first; nothing was "
            "spent."
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
                "the disk is full: free some space and start again; nothing is lost"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            remedy = "it may not be written or read: choose a folder that is yours"
        case errno.ENOENT:
            remedy = "it is not there: check the path"
        case _:
            remedy = f"{error.strerror or error}: check the disk"
    return UserError(f"Cannot use {path}: {remedy}.")
