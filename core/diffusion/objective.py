"""The training loss: mean squared error of the network's prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.diffusion.networks import DenoisingNetwork
from core.diffusion.process import Process
from core.diffusion.views import Views


def row_losses(
    network: Callable[..., Tensor],
    views: Views,
    process: Process,
    autocast: torch.autocast,
) -> Tensor:
    """Mean over the pixels of ‖target − prediction‖², for each view.

    With the target of its process this is the loss of Ghalebikesabi et al. 2023 (sec.
    3.1, eq. 1) as well as those of Karras et al. 2022 (eq. 8).

    Args:
        network: Called as a `DenoisingNetwork`.
        process: How the network is trained.

    Returns:
        float32 [n]. Private when the views are: never log it.
    """
    noisy = process.diffuse(views.clean, views.noise, views.timesteps)
    with autocast:
        predicted = network(noisy.inputs, noisy.times, views.labels)
    return (predicted.float() - noisy.target).square().flatten(1).mean(dim=1)


def mean_loss(
    network: DenoisingNetwork,
    views: Views,
    process: Process,
    autocast: torch.autocast,
) -> Tensor:
    """`row_losses`, averaged over the views: a float32 scalar, as private as they."""
    return row_losses(network, views, process, autocast).mean()
