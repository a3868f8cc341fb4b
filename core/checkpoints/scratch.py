"""Networks that were never trained, for recipes that start from nothing.

DPDM, and the digits of Ghalebikesabi et al., are trained from scratch. The random
weights are a checkpoint like any other, drawn with a public seed, so that the rest of
Sfumato knows no difference.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import torch

from core.checkpoints.cards import CheckpointCard, read_card
from core.checkpoints.store import save_checkpoint
from core.diffusion.networks import build_network
from core.diffusion.presets import PRESETS
from core.diffusion.process import Process
from core.errors import UserError
from core.files import private_folder

PREFIX = "scratch-"


def is_scratch(name: str) -> bool:
    """Whether this is the name of an untrained network."""
    return name.startswith(PREFIX)


def scratch_folder(name: str, folder: Path) -> Path:
    """Where in `folder` the untrained network of this name lies, or would.

    Its shape is part of the path: when a preset changes, a project keeps the network
    that it was planned with, and the next one gets the new.

    Raises:
        UserError: when there is no such preset or process.
    """
    preset, _ = _parts(name)
    shape = json.dumps(PRESETS[preset].to_json(), sort_keys=True)
    return folder / f"{name}-{hashlib.sha256(shape.encode()).hexdigest()[:8]}"


def make_scratch(name: str, folder: Path) -> CheckpointCard:
    """The untrained network of this name, written into `folder` if it is not there.

    Args:
        name: "scratch-PRESET-PROCESS", as in "scratch-dpdm-grey-edm".
        folder: Where named checkpoints are kept.

    Raises:
        UserError: when there is no such preset or process.
    """
    preset, process = _parts(name)
    place = scratch_folder(name, folder)
    if place.is_dir():
        return read_card(place)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(PRESETS[preset])
    with tempfile.TemporaryDirectory(
        prefix=".scratch-", dir=private_folder(folder)
    ) as work:
        made = Path(work) / name
        save_checkpoint(
            network,
            made,
            dtype=torch.float32,
            name=name,
            title=f"From scratch: {preset}, {process.name}",
            description="Random weights: nothing was learned before.",
            licence="Apache-2.0",
            pretraining_data="none: random weights, drawn with a public seed",
            pretraining_licences="none needed",
            parameterisation=process.name,
            steps=0,
            batch_size=0,
            command="made by naming it",
            overlap="no",
            overlap_reason="no data were used",
        )
        shutil.move(made, place)
    return read_card(place)


def _parts(name: str) -> tuple[str, Process]:
    """Preset and process of a name."""
    wanted = name.removeprefix(PREFIX)
    for preset in PRESETS:
        if wanted.startswith(f"{preset}-"):
            return preset, Process.parse(wanted.removeprefix(f"{preset}-"))
    known = ", ".join(PRESETS)
    raise UserError(
        f"There is no network {name!r} to start from nothing: name one "
        f"{PREFIX}PRESET-PARAMETERISATION, with a preset of {known}."
    )
