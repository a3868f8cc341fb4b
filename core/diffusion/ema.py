"""The moving average of the weights, which is what samples are drawn from."""

from __future__ import annotations

import torch
from torch import Tensor


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1+t)/(10+t)) after t = `step` earlier updates.

    A fixed 0.9999 would return the pretrained weights after 200 steps.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update(
    average: list[Tensor], weights: list[Tensor], step: int, decay: float
) -> None:
    """Move `average` towards `weights`, in place; `step` counts updates from 0."""
    share = 1 - decay_at(step, decay)
    torch._foreach_lerp_(average, weights, share)
