"""Which public checkpoints are at hand."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from core.checkpoints.cards import CARD, CheckpointCard, read_card


def bundled_folder() -> Path:
    """Where the checkpoints that come with Sfumato lie."""
    return Path(str(resources.files("resources"))) / "checkpoints"


def available() -> tuple[CheckpointCard, ...]:
    """The cards of the checkpoints that come with Sfumato, by name."""
    folders = sorted(path.parent for path in bundled_folder().glob(f"*/{CARD}"))
    return tuple(read_card(folder) for folder in folders)


def find(name: str) -> CheckpointCard:
    """The card of a bundled checkpoint, or of a checkpoint folder.

    Args:
        name: A name in the catalogue, or the path of a folder.

    Raises:
        UserError: when there is no such checkpoint.
    """
    for card in available():
        if card.name == name:
            return card
    return read_card(Path(name).expanduser())
