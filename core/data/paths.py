"""Keeps every file that is opened inside the folder that the custodian chose."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from core.data.dataset import Problem, shown
from core.errors import UserError

_LONGEST_PATH = 1024
_DEEPEST = 64
# With any ending, and with the spaces and dots that Windows passes over.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])([ .].*)?", re.I
)
_NUMBERS = re.compile(r"(\d+)")
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def escapes(relative: str) -> bool:
    """Whether a path written in a table is anything but a plain path below the root.

    Absolute paths, `..`, drive letters, alternate data streams (`:`), backslashes,
    control characters and the names of Windows' devices count as escapes on every
    system, so that a dataset means the same everywhere.
    """
    parts = PurePosixPath(relative)
    return (
        not relative
        or len(relative) > _LONGEST_PATH
        or parts.is_absolute()
        or PureWindowsPath(relative).drive != ""
        or ".." in parts.parts
        or any(_DEVICE.fullmatch(part) for part in parts.parts)
        or re.search(r"[\\:\x00-\x1f\x7f]", relative) is not None
    )


def leaves(path: Path, root: Path) -> bool:
    """Whether a path, after following links, lies outside `root` (itself resolved)."""
    try:
        return not path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):
        return True


def refuse_aliases(root: Path, paths: Iterable[str]) -> None:
    """Refuse one file under two names: by links, or where case makes no difference.

    Args:
        root: The dataset's folder.
        paths: Of its files, relative to it. One that is not there, or lies elsewhere,
            is passed over: it is not read.

    Raises:
        UserError: naming both.
    """
    named: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            status = os.stat(f"{root}{os.sep}{path}")
        except OSError:
            continue
        if not status.st_ino:
            continue  # This file system numbers no files.
        # PRIVACY: without the file its other names would be without an image as well,
        # those of other patients too.
        other = named.setdefault((status.st_dev, status.st_ino), path)
        if other != path and not leaves(root / path, root):
            raise UserError(
                f"{shown(other)} and {shown(path)} are one file under two names: "
                "remove one of them, so that no image counts for two."
            )


def refuse_among_images(project: Path, source: str | Path) -> None:
    """Refuse a project folder that would lie among the private images.

    Args:
        project: The folder, which need not be there yet.
        source: Folder of images. A table of them may lie beside the project: what it
            does not name is not among the images.

    Raises:
        UserError: when it lies in the folder of images, or is that folder.
    """
    images = Path(source).expanduser().resolve()
    if project.expanduser().resolve().is_relative_to(images):
        raise UserError(
            "The project folder lies inside the folder of images: choose one outside "
            f"it, such as ~/Sfumato/{images.name}."
        )


def is_clutter(name: str) -> bool:
    """Whether a file or folder is one that systems leave behind, of no interest."""
    return name.startswith(".") or name.lower() in _CLUTTER


def walk(root: Path, folder: str, problems: list[Problem]) -> Iterator[str]:
    """Every regular file below a folder, sorted, following no link out of `root`.

    Args:
        root: The dataset's folder, resolved.
        folder: Where to look, relative to it with forward slashes; "" for all of it.
        problems: Gets an entry for every link, device or folder that is left out.

    Yields:
        Paths relative to `root` with forward slashes: first the files of a folder, then
        those of its folders.
    """
    waiting = [(folder, 0)]
    while waiting:
        here, depth = waiting.pop()
        if depth > _DEEPEST:
            problems.append(_left_out(here, "too deep"))
            continue
        try:
            with os.scandir(root / here) as listing:
                entries = sorted(listing, key=lambda entry: natural(entry.name))
        except OSError as error:
            problems.append(
                Problem(
                    path=here or ".",
                    kind="folder cannot be read",
                    message=f"This folder cannot be listed ({error.strerror}): "
                    "check its permissions.",
                )
            )
            continue
        folders = []
        for entry in entries:
            path = f"{here}/{entry.name}" if here else entry.name
            if is_clutter(entry.name):
                continue
            if entry.is_symlink():
                target = root / path
                if target.is_dir() or leaves(target, root):
                    problems.append(_left_out(path, "link"))
                    continue
            if entry.is_dir(follow_symlinks=False):
                folders.append((path, depth + 1))
            elif entry.is_file():
                yield path
            else:
                problems.append(_left_out(path, "not a file"))
        waiting += reversed(folders)


_WHY = {
    "link": "This link leaves the folder or leads to another folder and was not "
    "followed: copy the files themselves into the dataset.",
    "not a file": "This is no ordinary file and was left out: remove it.",
    "too deep": "Folders within folders go on below this one, deeper than images lie, "
    "and were left out: move the images up.",
}


def _left_out(path: str, kind: str) -> Problem:
    return Problem(path=path, kind=kind, message=_WHY[kind])


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorting key by which "2" comes before "10"."""
    # Text and numbers by turns, text first: so like is compared with like.
    parts: list[str | int] = [*_NUMBERS.split(name.casefold())]
    parts[1::2] = map(int, parts[1::2])
    return parts, name
