"""Keeps every file that is opened inside the folder that the custodian chose."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from core.data.dataset import Problem

_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def escapes(relative: str) -> bool:
    """Whether a path written in a table is anything but a plain path below the root.

    Absolute paths, `..`, drive letters, alternate data streams (`:`), backslashes and
    control characters count as escapes on every system, so that a dataset means the
    same everywhere.
    """
    parts = PurePosixPath(relative)
    return (
        not relative
        or parts.is_absolute()
        or PureWindowsPath(relative).drive != ""
        or ".." in parts.parts
        or re.search(r"[\\:\x00-\x1f\x7f]", relative) is not None
    )


def leaves(path: Path, root: Path) -> bool:
    """Whether a path, after following links, lies outside `root` (itself resolved)."""
    try:
        return not path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):
        return True


def is_clutter(name: str) -> bool:
    """Whether a file or folder is one that systems leave behind, of no interest."""
    return name.startswith(".") or name.lower() in _CLUTTER


def walk(root: Path, folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """Every regular file below `folder`, sorted, following no link out of `root`.

    Args:
        root: The dataset's folder, resolved.
        folder: Where to look, below it.
        problems: Gets an entry for every link, device or folder that is left out.
    """
    for current, folders, files in os.walk(folder, onerror=_listed(root, problems)):
        here = Path(current)
        for name in sorted(folders, key=natural):
            if (here / name).is_symlink():
                problems.append(_linked(here / name, root))
        folders[:] = sorted(
            (name for name in folders if not is_clutter(name)), key=natural
        )
        for name in sorted(files, key=natural):
            path = here / name
            if is_clutter(name):
                continue
            if path.is_symlink() and leaves(path, root):
                problems.append(_linked(path, root))
            elif not path.is_file():
                problems.append(
                    Problem(
                        path=path.relative_to(root).as_posix(),
                        kind="not a file",
                        message="This is no ordinary file and was left out: remove it.",
                    )
                )
            else:
                yield path


def natural(name: str) -> tuple:
    """Sorting key by which "2" comes before "10"."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple((int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)), name


def _linked(path: Path, root: Path) -> Problem:
    return Problem(
        path=path.relative_to(root).as_posix(),
        kind="link",
        message="This link leaves the folder or leads to another folder and was not "
        "followed: copy the files themselves into the dataset.",
    )


def _listed(root: Path, problems: list[Problem]):  # noqa: ANN202
    def on_error(error: OSError) -> None:
        path = Path(error.filename)
        inside = path.relative_to(root).as_posix() if path != root else "."
        problems.append(
            Problem(
                path=inside,
                kind="folder cannot be read",
                message=f"This folder cannot be listed ({error.strerror}): "
                "check its permissions.",
            )
        )

    return on_error
