"""Reading and writing checkpoints: safetensors only, checked before a byte is used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.checkpoints.cards import CheckpointCard, read_card, write_card
from core.diffusion.networks import DenoisingNetwork, NetworkConfig, build_network
from core.errors import UserError
from core.files import read_json, sha256, write_atomically, write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A public pretrained network and its card."""

    card: CheckpointCard
    network: DenoisingNetwork


def save_checkpoint(
    network: DenoisingNetwork, folder: Path, *, dtype: torch.dtype, **card: object
) -> CheckpointCard:
    """Write weights, config and card into `folder`; the other card fields by name."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in network.state_dict().items()
    }
    write_atomically(folder / WEIGHTS, lambda file: save_file(weights, file))
    write_json(folder / CONFIG, {"sfumato_network": network.config.to_json()})
    full = CheckpointCard(
        folder=folder,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        resolution=network.config.resolution,
        image_channels=network.config.image_channels,
        sha256=sha256(folder / WEIGHTS),
        **card,
    )
    write_card(full)
    return full


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; names, shapes and the hash are checked before it is used.

    Raises:
        UserError: when the file is damaged, was changed since its card was written, or
            belongs to another architecture.
    """
    card = read_card(folder)
    fields = read_json(folder / CONFIG).get("sfumato_network")
    if not isinstance(fields, dict):
        raise UserError(
            f"The checkpoint {folder} was made for another architecture (its {CONFIG} "
            "names no Sfumato network): choose one from the list."
        )
    with torch.device("meta"):  # Sizes only: the weights are in the file.
        network = build_network(NetworkConfig.from_json(fields))
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"The checkpoint {folder} has no {WEIGHTS}: copy it again.")
    if sha256(folder / WEIGHTS) != card.sha256:
        raise UserError(
            f"The weights in {folder} are not those that the card describes (SHA-256 "
            "differs): copy the checkpoint again from its source."
        )
    load_weights(network, folder / WEIGHTS)
    return Checkpoint(card=card, network=network)


def load_weights(network: DenoisingNetwork, path: Path) -> None:
    """Give `network` the weights in a safetensors file of its very names and shapes.

    Raises:
        UserError: when names or shapes differ, a value is not finite, or the file is
            not safetensors.
    """
    expected = network.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
            if shapes != {name: tuple(t.shape) for name, t in expected.items()}:
                raise UserError(
                    f"The weights in {path.parent} belong to another architecture than "
                    f"its {CONFIG} describes: choose another checkpoint."
                )
            # Copied: what safetensors gives is the file itself, mapped to memory.
            weights = {
                name: file.get_tensor(name).to(torch.float32, copy=True)
                for name in shapes
            }
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise UserError(
            f"The weights file {path} cannot be read ({error}): copy it again."
        ) from None
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise UserError(
            f"The weights in {path.parent} hold values that are not numbers: choose "
            "another checkpoint."
        )
    network.load_state_dict(weights, assign=True)
