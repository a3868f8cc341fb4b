"""Which checkpoints are at hand: bundled, imported, or made from nothing."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from pathlib import Path

from core.checkpoints.cards import CARD, CheckpointCard, read_card
from core.checkpoints.published import published
from core.checkpoints.scratch import is_scratch, make_scratch, scratch_folder
from core.errors import UserError
from core.workspace import user_folder


def bundled_folder() -> Path:
    """Where the checkpoints that come with Sfumato lie."""
    return Path(str(resources.files("resources"))) / "checkpoints"


def imported_folder() -> Path:
    """Where imported checkpoints are kept, outside any project."""
    return user_folder() / "checkpoints"


def bundled() -> tuple[CheckpointCard, ...]:
    """The cards of the checkpoints that come with Sfumato, by name."""
    folders = sorted(path.parent for path in bundled_folder().glob(f"*/{CARD}"))
    return tuple(read_card(folder) for folder in folders)


def imported() -> tuple[CheckpointCard, ...]:
    """The cards of the imported checkpoints, by name.

    Damaged ones are left out, and untrained networks whose preset has changed since.
    """
    cards = []
    for path in sorted(imported_folder().glob(f"[!.]*/{CARD}")):
        with suppress(UserError):
            card = read_card(path.parent)
            if not is_scratch(card.name) or card.folder == scratch_folder(
                card.name, imported_folder()
            ):
                cards.append(card)
    return tuple(cards)


def available() -> tuple[CheckpointCard, ...]:
    """The cards of all checkpoints that can be chosen from."""
    return (*bundled(), *imported())


def is_named(name: str) -> bool:
    """Whether a checkpoint of the catalogue is called so; else it is a path."""
    known = {card.name for card in bundled()}
    known |= {path.name for path in imported_folder().glob("[!.]*")}
    return name in known or is_scratch(name)


def find(name: str) -> CheckpointCard:
    """The card of a checkpoint, by name or by folder; a name comes before a folder.

    Args:
        name: The name of a bundled or an imported checkpoint, of an untrained network
            (see `scratch`), which is then made, or the path of a folder.

    Raises:
        UserError: when there is no such checkpoint.
    """
    for card in bundled():
        if card.name == name:
            return card
    if is_scratch(name):
        return make_scratch(name, imported_folder())
    if is_named(name):
        return _not_scratch(read_card(imported_folder() / name))
    folder = Path(name).expanduser()
    if not folder.exists() and name in (entry.name for entry in published()):
        raise UserError(
            f"The checkpoint {name!r} is known, but not on this computer: get its file "
            "from its source, and run sfumato import-checkpoint FILE NAME --known "
            f"{name}."
        )
    return _not_scratch(read_card(folder))


def _not_scratch(card: CheckpointCard) -> CheckpointCard:
    # PRIVACY: of a network that nothing has trained nobody is asked whom it could know.
    if is_scratch(card.name):
        raise UserError(
            f"The folder {card.folder} says that it holds an untrained network: name "
            f"that itself, {card.name!r}, or choose another."
        )
    return card
