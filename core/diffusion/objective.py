"""The training loss: mean squared error of the network's prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from core.diffusion.networks import DenoisingNetwork
from core.diffusion.process import Parameterisation, Process
from core.diffusion.views import Views


def mean_loss(
    network: DenoisingNetwork,
    views: Views,
    process: Process | Parameterisation,
    autocast: torch.autocast,
) -> Tensor:
    """Mean over all views and pixels of ‖target − prediction‖².

    With the target of its process this is the loss of Ghalebikesabi et al. 2023 (sec.
    3.1, eq. 1) as well as those of Karras et al. 2022 (eq. 8).

    Args:
        process: How the network is trained; a parameterisation means its usual one.

    Returns:
        A float32 scalar. It is private when the views are: never log it.
    """
    if isinstance(process, Parameterisation):
        process = Process.usual(process)
    noisy = process.diffuse(views.clean, views.noise, views.timesteps)
    with autocast:
        predicted = network(noisy.inputs, noisy.times, views.labels)
    return (predicted.float() - noisy.target).square().mean()
