"""What DP-SGD does not train: kept as the warm-up left it, and told apart."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from core.checkpoints.store import load_checkpoint
from core.diffusion.adapters import ALL, choose
from core.diffusion.networks import DenoisingNetwork, parameter_count
from core.files import write_atomically
from core.training.kept import reading_kept
from core.training.recipe import Recipe

START = "start.safetensors"
"""All weights as DP-SGD found them; its states hold only those that it trains."""


def narrow(
    network: DenoisingNetwork, recipe: Recipe, folder: Path, *, resuming: bool
) -> None:
    """Leave only the recipe's choice trainable, in place.

    Args:
        network: Warmed up; when resuming, with any weights.
        folder: Where the other weights are kept for a resume.

    Raises:
        UserError: when the disk is full, or the kept weights are damaged or gone.
    """
    if ALL in recipe.trained:
        return
    kept = folder / START
    if resuming:
        _fill(network, kept)
    else:
        weights = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in network.state_dict().items()
        }
        write_atomically(kept, lambda file: save_file(weights, file))
    choose(network, recipe.trained, recipe.lora_rank)


def _fill(network: DenoisingNetwork, kept: Path) -> None:
    """In place: where the weights are and how they are shared stays as it was."""
    with reading_kept(kept):
        network.load_state_dict(load_file(kept))


def trained_parameters(model: Path, recipe: Recipe) -> int:
    """How many numbers DP-SGD trained to make this checkpoint.

    Args:
        model: A checkpoint folder.
    """
    network = load_checkpoint(model).network
    choose(network, recipe.trained, recipe.lora_rank)
    return parameter_count(network)
