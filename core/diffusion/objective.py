"""The training loss: mean squared error of the network's prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from core.diffusion.networks import DenoisingNetwork
from core.diffusion.process import Parameterisation, diffuse
from core.diffusion.views import Views


def mean_loss(
    network: DenoisingNetwork,
    views: Views,
    parameterisation: Parameterisation,
    autocast: torch.autocast,
) -> Tensor:
    """Mean over all views and pixels of ‖target − prediction‖² (sec. 3.1, eq. 1).

    Returns:
        A float32 scalar. It is private when the views are: never log it.
    """
    noisy, target = diffuse(views.clean, views.noise, views.timesteps, parameterisation)
    with autocast:
        predicted = network(noisy, views.timesteps, views.labels)
    return (predicted.float() - target).square().mean()
