"""The training state on disk: written whole or not at all, the last two kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import UserError
from core.files import explained, read_json, sha256, write_atomically, write_json
from core.training.kept import DAMAGED

KEPT = 2


@dataclass(kw_only=True)
class TrainingState:
    """Everything that an update changes; all of it noised, so all of it releasable.

    Attributes:
        updates: Logical steps applied to the weights; the ledger may know of more.
        weights, average, first, second: One tensor per trained parameter: the weights,
            their moving average, Adam's two moments.
    """

    updates: int
    weights: list[Tensor]
    average: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]

    @classmethod
    def start(cls, parameters: list[Tensor]) -> TrainingState:
        """The state before the first update; shares the weights with the network."""
        return cls(
            updates=0,
            weights=parameters,
            average=[p.detach().clone() for p in parameters],
            first=[torch.zeros_like(p) for p in parameters],
            second=[torch.zeros_like(p) for p in parameters],
        )

    def _groups(self) -> dict[str, list[Tensor]]:
        return {
            "weight": self.weights,
            "average": self.average,
            "first": self.first,
            "second": self.second,
        }


def save_state(state: TrainingState, folder: Path) -> None:
    """Write the state beside the older ones, then forget all but the last two.

    Raises:
        UserError: when the disk is full; the older states are then untouched.
    """
    tensors = {
        f"{name}.{index}": tensor.detach().cpu().contiguous().clone()
        for name, group in state._groups().items()
        for index, tensor in enumerate(group)
    }
    path = folder / f"state-{state.updates:06d}.safetensors"

    def write(file: Path) -> None:
        save_file(tensors, file)
        # The hash is on disk before the state is: no state is ever without one.
        write_json(path.with_suffix(".json"), {"sha256": sha256(file)})

    write_atomically(path, write)
    _forget_others(path)


def _forget_others(newest: Path) -> None:
    """Keep a state and the ones just before it.

    Any that count more updates were passed over when this run went on: they are
    damaged.
    """
    states = sorted(newest.parent.glob("state-*.safetensors"))
    kept = {path.stem for path in states[: states.index(newest) + 1][-KEPT:]}
    try:
        for path in newest.parent.glob("state-*"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, newest.parent) from error


@torch.no_grad()
def load_newest(state: TrainingState, folder: Path) -> bool:
    """Fill `state` with the newest whole one on disk; False when there is none.

    A file whose hash does not match, or that is cut short, is passed over.
    """
    for path in sorted(folder.glob("state-*.safetensors"), reverse=True):
        try:
            if read_json(path.with_suffix(".json"))["sha256"] != sha256(path):
                continue
            tensors = load_file(path)
            pairs = [
                (tensor, tensors[f"{name}.{index}"].view_as(tensor))
                for name, group in state._groups().items()
                for index, tensor in enumerate(group)
            ]
        except (*DAMAGED, UserError):
            continue
        for tensor, stored in pairs:
            tensor.copy_(stored)
        state.updates = int(path.stem.split("-")[1])
        return True
    return False
