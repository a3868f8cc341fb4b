"""A checkpoint's card: what the file itself cannot tell, and what must be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from core.diffusion.process import Parameterisation
from core.errors import UserError
from core.files import read_json, write_json

CARD = "card.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointCard:
    """Provenance of a public checkpoint.

    Attributes:
        name: Short name, as used in a project file.
        title: Name for people.
        description: What it is good for, in a sentence.
        licence: SPDX identifier.
        pretraining_data: What it was trained on, for the question "could it contain
            these patients?".
        pretraining_licences: Licences of that data.
        parameters: Count of numbers in the network.
        resolution: Pixels per side.
        parameterisation: "eps" or "v": what the network predicts.
        timestep_bounds, timestep_weights: The mixture it was trained with.
        steps, batch_size: Length of the pretraining.
        command: The command that made it.
        sha256: Of the weights file.
        folder: Where it lies (not part of the file).
    """

    name: str
    title: str
    description: str
    licence: str
    pretraining_data: str
    pretraining_licences: str
    parameters: int
    resolution: int
    parameterisation: str
    steps: int
    batch_size: int
    command: str
    sha256: str
    folder: Path

    @property
    def predicts(self) -> Parameterisation:
        """The parameterisation as a type."""
        return Parameterisation(self.parameterisation)


def write_card(card: CheckpointCard) -> None:
    """Write the card into its folder."""
    fields = asdict(card)
    folder = fields.pop("folder")
    write_json(folder / CARD, fields)


def read_card(folder: Path) -> CheckpointCard:
    """Read the card of a checkpoint folder.

    Raises:
        UserError: when there is none, or it is incomplete.
    """
    if not (folder / CARD).is_file():
        raise UserError(
            f"The folder {folder} holds no checkpoint that Sfumato knows (no {CARD}): "
            "choose one from the list, or make one with sfumato pretrain."
        )
    try:
        card = CheckpointCard(folder=folder, **read_json(folder / CARD))
        Parameterisation(card.parameterisation)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The card of the checkpoint {folder} is not complete ({error}): copy the "
            "checkpoint again from its source."
        ) from None
    return card
