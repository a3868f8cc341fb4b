"""Reading and writing checkpoints: safetensors only, checked before a byte is used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from core.checkpoints.cards import CONFIG, CheckpointCard, read_card, write_card
from core.diffusion.networks import DenoisingNetwork, NetworkConfig, build_network
from core.errors import UserError
from core.files import (
    parse_json,
    read_limited,
    sha256,
    write_atomically,
    write_json,
)

WEIGHTS = "diffusion_pytorch_model.safetensors"
LONGEST_CONFIG = LONGEST_HEADER = 2**20
"""Bytes, of the config and of what stands before the weights."""


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
        config_sha256=sha256(folder / CONFIG),
        **card,
    )
    write_card(full)
    return full


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; names, shapes and hashes are checked before it is used.

    Raises:
        UserError: when a file is damaged, was changed since its card was written, or
            belongs to another architecture.
    """
    card = read_card(folder)
    network, config = _network(folder, card)
    content = _content(folder / WEIGHTS, 8 * card.parameters + LONGEST_HEADER)
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise UserError(
            f"The weights in {folder} are not those that the card describes (SHA-256 "
            "differs): copy the checkpoint again from its source."
        )
    network.load_state_dict(_weights(content, network, folder), assign=True)
    return Checkpoint(card=replace(card, config_sha256=config), network=network)


def _network(folder: Path, card: CheckpointCard) -> tuple[DenoisingNetwork, str]:
    """The network that the config describes, without weights, if the card agrees.

    Returns:
        The network, and the config's SHA-256.
    """
    content = _content(folder / CONFIG, LONGEST_CONFIG)
    digest = hashlib.sha256(content).hexdigest()
    # PRIVACY: sizes alone do not say what the network computes; the plan names both.
    if card.config_sha256 not in ("", digest):
        raise UserError(
            f"The {CONFIG} in {folder} is not the one that the card describes (SHA-256 "
            "differs): copy the checkpoint again from its source."
        )
    fields = parse_json(content, folder / CONFIG).get("sfumato_network")
    if not isinstance(fields, dict):
        raise UserError(
            f"The checkpoint {folder} was made for another architecture (its {CONFIG} "
            "names no Sfumato network): choose one from the list."
        )
    config = NetworkConfig.from_json(fields)
    with torch.device("meta"):  # Sizes only: the weights are in the file.
        network = build_network(config)
    parameters = sum(tensor.numel() for tensor in network.state_dict().values())
    found = (parameters, config.resolution, config.image_channels)
    if found != (card.parameters, card.resolution, card.image_channels):
        raise UserError(
            f"The card in {folder} tells of a network of other sizes than {CONFIG} "
            "does: copy the checkpoint again from its source."
        )
    return network, digest


def _content(path: Path, most: int) -> bytes:
    if not path.is_file():
        raise UserError(
            f"The checkpoint {path.parent} has no {path.name}: copy it again."
        )
    return read_limited(path, most)


def _weights(
    content: bytes, network: DenoisingNetwork, folder: Path
) -> dict[str, Tensor]:
    """The weights in a safetensors file of the network's very names and shapes."""
    try:
        found = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"The weights file in {folder} cannot be read ({error}): copy it again."
        ) from None
    shapes = {name: tensor.shape for name, tensor in found.items()}
    if shapes != {name: t.shape for name, t in network.state_dict().items()}:
        raise UserError(
            f"The weights in {folder} belong to another architecture than its {CONFIG} "
            "describes: choose another checkpoint."
        )
    weights = {name: tensor.to(torch.float32) for name, tensor in found.items()}
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise UserError(
            f"The weights in {folder} hold values that are not numbers: choose another "
            "checkpoint."
        )
    return weights
