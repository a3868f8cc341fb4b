"""Per-unit gradients, each clipped once, summed.

One backward pass per unit over all its views, dealt out to workers: the gradient of the
mean loss over the views is clipped as a whole, after the mean, and no per-view gradient
ever exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

LONGEST = 1e30
"""A gradient more than so many times longer than the clip norm contributes nothing:
the factor that shortens it would round to a subnormal number."""

UnitGradient = Callable[[int], Sequence[Tensor]]
"""unit → gradient of the mean loss over its views, one tensor per parameter."""


class Pool(Protocol):
    """Threads that apply a function to slices, results in order."""

    threads: int

    def map(
        self, function: Callable[[np.ndarray], Tensor], *slices: Sequence[np.ndarray]
    ) -> Iterable[Tensor]: ...


def clip(gradient: Sequence[Tensor], clip_norm: float) -> Tensor:
    """One unit's gradient as a vector of norm at most `clip_norm`.

    Guarantee: for any input whatever, the result has L2 norm ≤ clip_norm·(1 + 1e-6);
    a gradient that is not finite, or too long to be shortened, contributes exactly
    zero.

    Returns:
        float32 [d].
    """
    parts = [part.detach() for part in gradient]
    # PRIVACY: a single-precision norm of a million numbers can come out 7e-4 too small,
    # and the vector that much too long.
    norms = torch._foreach_norm(parts, 2, dtype=torch.float64)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    vector = torch.cat([part.reshape(-1).float() for part in parts])
    # PRIVACY: one bad image must not turn every weight into NaN, which would show it.
    if not norm <= LONGEST * clip_norm:
        return torch.zeros_like(vector)
    # PRIVACY: the sensitivity of the sum; the factor never exceeds 1.
    return vector.mul_(torch.clamp(clip_norm / norm, max=1.0))


def clipped_sum(
    units: np.ndarray,
    unit_gradient: UnitGradient,
    *,
    clip_norm: float,
    size: int,
    pool: Pool,
) -> Tensor:
    """Σ over `units` of the clipped unit gradients: float32 [size].

    Guarantee: adding or removing one unit moves the sum by at most clip_norm, up to the
    rounding of a single-precision sum. Nothing of one unit's gradient depends on which
    other units were drawn.
    """

    def sum_of(part: np.ndarray) -> Tensor:
        total = torch.zeros(size)
        for unit in part:
            vector = clip(unit_gradient(int(unit)), clip_norm)
            total = total.to(vector.device).add_(vector)
        return total

    parts = np.array_split(units, pool.threads)
    sums = list(pool.map(sum_of, parts))
    device = max((part.device for part in sums), key=lambda device: device.type)
    total = torch.zeros(size, device=device)
    for part in sums:
        total += part.to(device)
    return total
