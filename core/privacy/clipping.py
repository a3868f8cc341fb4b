"""Each unit's gradient clipped once, as a whole, and summed.

What is clipped is the gradient of a unit's mean loss over all its views, after the
mean: no gradient of a single view ever exists. How it was made is the business of
`core.privacy.gradients`; here it is bounded, whatever it is.
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

BLOCK = 2**16
"""Numbers widened to double precision at a time: they stay in the processor's cache."""

UnitGradient = Callable[[int], Sequence[Tensor]]
"""unit → gradient of the mean loss over its views, as one vector or in parts."""

UnitGradients = Callable[[np.ndarray], Iterable[Sequence[Tensor]]]
"""units → the gradient of each, each used up before the next is asked for."""


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
    parts = [part.detach().reshape(-1).float() for part in gradient]
    vector = torch.cat(parts) if len(parts) > 1 else parts[0]
    # PRIVACY: a single-precision norm of a million numbers can come out 7e-4 too small,
    # and the vector that much too long.
    norms = [torch.linalg.vector_norm(block.double()) for block in vector.split(BLOCK)]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    # PRIVACY: one bad image must not turn every weight into NaN, which would show it.
    if not norm <= LONGEST * clip_norm:
        return torch.zeros_like(vector)
    # PRIVACY: the sensitivity of the sum; the factor never exceeds 1.
    return vector * torch.clamp(clip_norm / norm, max=1.0)


def clipped_sum(
    units: np.ndarray,
    unit_gradient: UnitGradient,
    *,
    clip_norm: float,
    size: int,
    pool: Pool,
) -> Tensor:
    """`batched_clipped_sum` of gradients that are made one at a time."""
    return batched_clipped_sum(
        units,
        lambda part: (unit_gradient(int(unit)) for unit in part),
        clip_norm=clip_norm,
        size=size,
        pool=pool,
    )


def batched_clipped_sum(
    units: np.ndarray,
    unit_gradients: UnitGradients,
    *,
    clip_norm: float,
    size: int,
    pool: Pool,
) -> Tensor:
    """Σ over `units` of the clipped unit gradients: float32 [size].

    Guarantee: adding or removing one unit moves the sum by at most clip_norm, up to the
    rounding of a single-precision sum, provided that nothing of one unit's gradient
    depends on which other units were drawn.
    """

    def sum_of(part: np.ndarray) -> Tensor:
        total = torch.zeros(size)
        for gradient in unit_gradients(part):
            vector = clip(gradient, clip_norm)
            total = total.to(vector.device).add_(vector)
        return total

    parts = np.array_split(units, pool.threads)
    sums = list(pool.map(sum_of, parts))
    device = max((part.device for part in sums), key=lambda device: device.type)
    total = torch.zeros(size, device=device)
    for part in sums:
        total += part.to(device)
    return total
