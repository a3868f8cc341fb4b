"""What a training has kept on disk, and what to say when it is no longer whole.

Every such file is written whole or not at all, so that one which cannot be read was
damaged afterwards: by the disk, a copy that was broken off, or somebody's hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.errors import UserError

DAMAGED = (SafetensorError, OSError, KeyError, TypeError, RuntimeError)
"""Raised in reading a file that is gone or cut short, or that has other tensors than
were kept, or tensors of another shape."""


@contextmanager
def reading_kept(path: Path) -> Iterator[None]:
    """Read a kept file, and make of it what was kept, in a `with` block.

    Raises:
        UserError: when the block fails because the file is damaged or gone.
    """
    try:
        yield
    except DAMAGED as error:
        raise UserError(
            f"The file {path} is damaged or gone: restore it from a backup, or start a "
            "new project; what was charged stays charged."
        ) from error
