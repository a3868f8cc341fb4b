"""How a private class's row of the label table starts: the label-embedding swap.

Chosen from the public network and, where the recipe asks for that, from pseudo-images
of what was released with noise already. No private record comes near.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.diffusion.networks import DenoisingNetwork
from core.diffusion.objective import mean_loss
from core.diffusion.process import Process
from core.diffusion.timesteps import UNIFORM
from core.diffusion.views import Views, make_views
from core.errors import UserError
from core.parallel import Hardware

FRESH, MEAN, NEAREST = "fresh", "mean", "nearest"
CLASS_ROWS = (FRESH, MEAN, NEAREST)
"""A row of its own beside the public ones' mean; that mean itself; or the public row
under which the public network explains the class's pseudo-images best."""

IMAGES_COMPARED = 32

PseudoImages = Callable[[Tensor, torch.Generator], Tensor]
"""(labels int64 [n], generator) → float32 [n, c, H, W] in [-1, 1], as released."""

Rows = tuple[tuple[int, ...], ...]


def check_rows(how: str, network: DenoisingNetwork) -> None:
    """Refuse a choice that the network cannot follow, before anything is spent.

    Raises:
        UserError: when the public network knows no classes.
    """
    if how != FRESH and not network.config.classes:
        raise UserError(
            "The checkpoint's network knows no classes to start from: set the recipe's "
            f"class_rows to {FRESH}."
        )


def choose_rows(
    how: str,
    network: DenoisingNetwork,
    process: Process,
    classes: int,
    pseudo: PseudoImages | None,
    hardware: Hardware,
) -> Rows:
    """For each private class, the public classes whose rows it starts from the mean of.

    Args:
        how: One of `CLASS_ROWS`.
        network: The public one, as its checkpoint has it.
        pseudo: None when nothing was released; the nearest rows cannot be told then.

    Returns:
        Nothing at all for fresh rows.

    Raises:
        UserError: As `check_rows`.
    """
    check_rows(how, network)
    if how == FRESH or (how == NEAREST and pseudo is None):
        return ()
    if how == MEAN or pseudo is None:
        return (tuple(range(network.config.classes)),) * classes
    generator = torch.Generator().manual_seed(0)
    return tuple(
        (_nearest(network, process, label, pseudo, generator, hardware),)
        for label in range(classes)
    )


@torch.no_grad()
def _nearest(
    network: DenoisingNetwork,
    process: Process,
    label: int,
    pseudo: PseudoImages,
    generator: torch.Generator,
    hardware: Hardware,
) -> int:
    """The public class with the least loss on this class's pseudo-images."""
    labels = torch.full((IMAGES_COMPARED,), label)
    images = pseudo(labels, generator)
    images = images.expand(-1, network.config.image_channels, -1, -1)
    views = make_views(
        images, labels, multiplicity=1, timesteps=UNIFORM, flip=False,
        generator=generator,
    )  # fmt: skip
    place = hardware.device

    def loss(row: int) -> float:
        # The same images, noise and noise levels for every row.
        under = Views(
            clean=views.clean.to(place),
            labels=torch.full_like(labels, row, device=place),
            timesteps=views.timesteps.to(place),
            noise=views.noise.to(place),
        )
        return mean_loss(network, under, process, hardware.autocast()).item()

    return min(range(network.config.classes), key=loss)
