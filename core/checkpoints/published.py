"""Public checkpoints that are known by name: what each is, and what its file hides.

The list is `resources/checkpoints/published.toml`; a new entry there is all that
another checkpoint of a known layout needs.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path

from core.checkpoints.layouts import Hints
from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """An entry of the catalogue.

    Attributes:
        name: What it is called here.
        title: Name for people.
        file: Name of the published file.
        source: Where it is published.
        licence: SPDX identifier, as the project states it.
        pretraining_data, pretraining_licences: What it was trained on.
        parameters: Numbers in the file.
        width: Channels of the first level.
        learns_variance: Whether half of the last layer predicts a variance.
        sha256: Of the file; "" where none is known.
        steps, batch_size: Length of the pretraining; 0 where it is not stated.
        refused: Why it cannot be imported; "" when it can.
        hints: What the file cannot tell.
    """

    name: str
    title: str
    file: str
    source: str
    licence: str
    pretraining_data: str
    pretraining_licences: str
    parameters: int
    width: int
    learns_variance: bool = False
    sha256: str = ""
    steps: int = 0
    batch_size: int = 0
    refused: str = ""
    hints: Hints

    @property
    def parameters_kept(self) -> int:
        """Numbers of the network without the channels of the learned variance."""
        return self.parameters - self.learns_variance * 3 * (9 * self.width + 1)

    @property
    def megabytes(self) -> int:
        """Size of the file in single precision."""
        return round(4 * self.parameters / 1e6)

    @property
    def description(self) -> str:
        """What it is, in a sentence."""
        return f"{self.file}, {self.parameters / 1e6:.0f} million parameters."


@cache
def published() -> tuple[PublishedCheckpoint, ...]:
    """All entries, in the order of the file."""
    path = Path(str(resources.files("resources"))) / "checkpoints" / "published.toml"
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    hidden = {field.name for field in fields(Hints)}
    return tuple(
        PublishedCheckpoint(
            name=name,
            hints=Hints(**{k: v for k, v in entry.items() if k in hidden}),
            **{k: v for k, v in entry.items() if k not in hidden},
        )
        for name, entry in entries.items()
    )


def find_published(name: str) -> PublishedCheckpoint:
    """The entry of this name, if it can be imported.

    Raises:
        UserError: when there is none, or it cannot be imported.
    """
    for entry in published():
        if entry.name == name and entry.refused:
            raise UserError(
                f"The checkpoint {name!r} cannot be imported: {entry.refused}. Choose "
                "another."
            )
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in published() if not entry.refused)
    raise UserError(f"The catalogue has no checkpoint {name!r}: it has {known}.")
