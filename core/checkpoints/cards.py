"""A checkpoint's card: what the file itself cannot tell, and what must be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from core.diffusion.process import Process
from core.errors import UserError
from core.files import parse_json, read_limited, write_json

CARD, CONFIG = "card.json", "config.json"
LONGEST_CARD = 2**20
OVERLAP_ANSWERS = ("no", "unsure", "yes")
STARTED_FROM = "started from "
_TRAINED_BY = "sfumato run"
"""The command on a card of a privately trained model, and on no other: how one that is
older than `private_run` is told."""


@dataclass(frozen=True, kw_only=True)
class CheckpointCard:
    """Provenance of a checkpoint: a public one, or what private training made of it.

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
        parameterisation: What the network predicts and on which noise schedule, as
            `Process.parse` reads it: "v", "edm", "eps-cosine-4000-rescaled".
        steps, batch_size: Length of the pretraining; 0 where that is not known.
        command: The command that made it.
        sha256, config_sha256: Of the weights file, and of the config that says what
            the network computes; of the latter "" on a card of an older version.
        folder: Where it lies (not part of the file).
        image_channels: 1 for a network that draws grey images only, or 3.
        source: Where an imported file was published.
        source_sha256: Of the file that was imported.
        conversion: What was read from it, and what was left out.
        overlap: The answer to "could it contain these patients?" that was given at
            the import: "no", "unsure", "yes"; "" when not asked.
        overlap_reason: Why, in the words of whoever answered.
        private_run: The random identity of the run whose private images trained it, as
            the ledger has it; "" for a public one.
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
    image_channels: int = 3
    source: str = ""
    source_sha256: str = ""
    conversion: str = ""
    overlap: str = ""
    overlap_reason: str = ""
    private_run: str = ""
    config_sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse values that no card can have.

        Raises:
            TypeError, ValueError: naming the field.
            UserError: for a parameterisation that does not exist.
        """
        kinds = {"str": str, "int": int}
        for field in fields(self):
            kind = kinds.get(str(field.type))
            if kind and type(getattr(self, field.name)) is not kind:
                raise TypeError(f"{field.name} is not a {kind.__name__}")
        if self.overlap not in ("", *OVERLAP_ANSWERS):
            raise ValueError(f"overlap is {self.overlap!r}")
        _ = self.predicts

    @property
    def predicts(self) -> Process:
        """How the network was trained, as a type."""
        return Process.parse(self.parameterisation)

    @property
    def is_private(self) -> bool:
        """Whether it is the model of a project, which private images trained."""
        # PRIVACY: of an older version too, whose cards do not name the run.
        return bool(self.private_run) or self.command == _TRAINED_BY

    @property
    def began_as(self) -> str:
        """The name of the checkpoint that a private model was trained from."""
        return self.pretraining_data.rpartition(STARTED_FROM)[2]


def refuse_private(card: CheckpointCard | None) -> None:
    """Refuse a network that private images have trained where a public one is due.

    Args:
        card: Of what a project starts from; None where it uses no network.

    Raises:
        UserError: when it is the model of a project.
    """
    if card and card.is_private:
        raise UserError(
            f"The checkpoint {card.name!r} has learnt from private images, so it is "
            "not public, and what that cost would have to be added to the claim of any "
            "project that started from it: choose the public checkpoint that it was "
            f"trained from, {card.began_as!r}."
        )


def refuse_exchanged(
    found: CheckpointCard, sha256: str, config_sha256: str = ""
) -> None:
    """Refuse a network that lies where another one lay when a plan was made.

    Args:
        found: Of what lies there now.
        sha256, config_sha256: Of what lay there then; the latter "" where an older
            version did not keep it.

    Raises:
        UserError: when the two are different networks.
    """
    same = found.sha256 == sha256 and config_sha256 in ("", found.config_sha256)
    # PRIVACY: that it holds none of the protected people was said of those weights.
    if not same:
        raise UserError(
            f"The checkpoint in {found.folder} is another than the one that this "
            "project was planned with: put that one back, or start a new project."
        )


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
    content = parse_json(read_limited(folder / CARD, LONGEST_CARD), folder / CARD)
    try:
        return CheckpointCard(folder=folder, **content)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(
            f"The card of the checkpoint {folder} is not complete ({error}): copy the "
            "checkpoint again from its source."
        ) from None
