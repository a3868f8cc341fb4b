"""Which weights are trained: all, named parts, or thin adapters beside frozen ones.

Whatever is chosen goes through the same per-unit gradients: what is trained is what has
`requires_grad`, and an adapter is two ordinary linear layers. Fewer trained weights
take less memory and catch less noise, and can learn less.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from core.diffusion.networks import DenoisingNetwork
from core.errors import UserError

ALL, LABELS = "all", "label embedding"

PARTS: dict[str, str] = {
    ALL: "",
    "attention": r"\.attentions\.",
    LABELS: r"^unet\.class_embedding\.",
    "time embedding": r"^unet\.time_embedding\.",
    "first convolution": r"^unet\.conv_in\.",
    "last convolution": r"^unet\.conv(_norm)?_out\.",
    "down blocks": r"^unet\.down_blocks\.",
    "middle block": r"^unet\.mid_block\.",
    "up blocks": r"^unet\.up_blocks\.",
    "norms and biases": r"norm\w*\.weight$|\.bias$",
}
"""Part → the names of its weights. A part may overlap another."""

LARGEST_RANK = 64

_ADAPTED = re.compile(r"\.attentions\.\d+\.(to_q|to_k|to_v|to_out\.0)$")


def check_choice(parts: tuple[str, ...], rank: int) -> None:
    """Refuse a choice that trains nothing, or the same weights twice, in any network.

    Raises:
        UserError: saying which.
    """
    for part in parts:
        if part not in PARTS:
            known = ", ".join(PARTS)
            raise UserError(f"The network has no part {part!r} to train: use {known}.")
    if not 0 <= rank <= LARGEST_RANK:
        raise UserError(
            f"lora rank must be between 0 (no adapters) and {LARGEST_RANK}, not {rank}."
        )
    if not parts and not rank:
        raise UserError(
            "The recipe trains nothing: name a part in its list trained, or set "
            "lora_rank above 0."
        )
    if ALL in parts and len(parts) > 1:
        raise UserError("The recipe trains all: take the other parts off its list.")
    if rank and {ALL, "attention"} & set(parts):
        raise UserError(
            "The recipe trains the attention itself and adapters beside it: take it "
            "off the list trained, or set lora_rank to 0."
        )


def check_fit(network: DenoisingNetwork, parts: tuple[str, ...], rank: int) -> None:
    """Refuse a choice that this network has not, or whose weights it trains twice.

    The biases of a layer may be trained beside its adapters, which leave them alone.

    Raises:
        UserError: saying which.
    """
    check_choice(parts, rank)
    names = [name for name, _ in network.named_parameters()]
    for part in parts:
        if not any(re.search(PARTS[part], name) for name in names):
            raise UserError(
                f"The checkpoint's network has no {part}: take it off the recipe's "
                "list trained."
            )
    if not rank:
        return
    layers = _adapted_layers(network)
    if not layers:
        raise UserError(
            "The checkpoint's network has no attention to adapt: set the recipe's "
            "lora_rank to 0."
        )
    for part in parts:
        if any(re.search(PARTS[part], f"{layer}.weight") for layer in layers):
            raise UserError(
                f"The recipe trains the attention in the {part} itself and adapters "
                f"beside it: take {part} off the list trained, or set lora_rank to 0."
            )


def _adapted_layers(network: DenoisingNetwork) -> list[str]:
    """The names of the layers that have adapters where there are any."""
    return [name for name, _ in network.named_modules() if _ADAPTED.search(name)]


def choose(network: DenoisingNetwork, parts: tuple[str, ...], rank: int) -> None:
    """Leave only these weights trainable, in place; the function computed is the same.

    Args:
        network: Not chosen from before.
        parts: Keys of `PARTS`; the weights of any of them are trained.
        rank: Of the adapters added to every attention's query, key, value and output
            (Hu et al. 2021, sec. 4); 0 for none.

    Raises:
        UserError: when the choice makes no sense, or not for this network.
    """
    check_fit(network, parts, rank)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(re.search(PARTS[part], name) for part in parts))
    # Public and the same in every process and after a resume.
    generator = torch.Generator().manual_seed(0)
    for name in _adapted_layers(network) if rank else []:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        network.set_submodule(name, Adapted(layer, rank, generator))


class Adapted(nn.Module):
    """x ↦ W·x + b + U·(D·x): a linear layer with a trained detour of low rank.

    D starts random and U at zero, so that at first nothing changes (Hu et al. 2021,
    sec. 4.1, with α = r).
    """

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = layer.weight
        place = {"device": weight.device, "dtype": weight.dtype}
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False, **place)
        self.up = nn.Linear(rank, layer.out_features, bias=False, **place)
        start = torch.randn(rank, layer.in_features, generator=generator)
        with torch.no_grad():
            self.down.weight.copy_(start / layer.in_features**0.5)
            self.up.weight.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) + self.up(self.down(inputs))


@torch.no_grad()
def merge(network: DenoisingNetwork) -> None:
    """Fold the adapters into the weights beside them, in place.

    What is left has the modules and names of the network before `choose`.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, Adapted):
            module.layer.weight += module.up.weight @ module.down.weight
            network.set_submodule(name, module.layer)
