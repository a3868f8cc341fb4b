"""The forward process and what the network is asked to predict.

The discrete process of Ho et al. with the linear schedule and 1,000 timesteps, as in
Ghalebikesabi et al. 2023 (sec. 3.1 and Table 3).
"""

from __future__ import annotations

from enum import Enum
from functools import cache

import torch
from torch import Tensor

TIMESTEPS = 1000
BETA_FIRST, BETA_LAST = 1e-4, 0.02


class Parameterisation(Enum):
    """What a network predicts from x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε."""

    NOISE = "eps"
    """ε itself (Ho et al. 2020, eq. 14; Ghalebikesabi et al. 2023, eq. 1)."""

    VELOCITY = "v"
    """v = √ᾱ_t·ε − √(1−ᾱ_t)·x_0 (Salimans & Ho 2022, sec. 4)."""


@cache
def cumulative_signal() -> Tensor:
    """ᾱ_t for t = 0 … 999: float32 [1000], decreasing from 0.9999 to 4e-5."""
    betas = torch.linspace(BETA_FIRST, BETA_LAST, TIMESTEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0).float()


def diffuse(
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    parameterisation: Parameterisation,
) -> tuple[Tensor, Tensor]:
    """Noisy images and the network's targets.

    Args:
        clean: float32 [n, c, H, W] in [-1, 1].
        noise: standard normal, of the same shape.
        timesteps: int64 [n] in [0, 1000).

    Returns:
        (noisy, target), both float32 [n, c, H, W].
    """
    signal = cumulative_signal().to(clean.device)[timesteps].view(-1, 1, 1, 1)
    scale, sigma = signal.sqrt(), (1 - signal).sqrt()
    noisy = scale * clean + sigma * noise
    if parameterisation is Parameterisation.NOISE:
        return noisy, noise
    return noisy, scale * noise - sigma * clean
