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
"""Numbers worked on at a time, so that they stay in the processor's cache."""

UnitGradient = Callable[[int], Sequence[Tensor]]
"""unit → gradient of the mean loss over its views, in parts of any shape."""

UnitGradients = Callable[[np.ndarray], Iterable[Tensor]]
"""units → float [b, d], [b', d], …: a row for each, in any order. A tensor is used up
before the next is asked for."""


class Pool(Protocol):
    """Threads that apply a function to slices, results in order."""

    threads: int

    def map(
        self, function: Callable[[np.ndarray], Tensor], *slices: Sequence[np.ndarray]
    ) -> Iterable[Tensor]: ...


def add_clipped(total: Tensor, gradients: Tensor, clip_norm: float) -> None:
    """Add each unit's gradient to `total`, shortened to a norm of at most `clip_norm`.

    Guarantee: for any input whatever, what a row adds has L2 norm ≤
    clip_norm·(1 + 1e-6), and depends on no other row; one that is not finite, or too
    long to be shortened, adds nothing.

    Args:
        total: float32 [d], changed in place.
        gradients: float [b, d], one row per unit.
    """
    factors = [_factor(row, clip_norm) for row in gradients]
    sums, columns = torch.split(total, BLOCK), torch.split(gradients, BLOCK, dim=1)
    blocks = zip(sums, columns, strict=True)
    for part, rows in blocks:
        for row, factor in zip(rows, factors, strict=True):
            # PRIVACY: zero times something that is not finite is not zero.
            if factor > 0:
                part.add_(row, alpha=factor)


def _factor(gradient: Tensor, clip_norm: float) -> float:
    """What shortens a gradient to the clip norm; 0 for one that must not count."""
    # PRIVACY: a single-precision norm of a million numbers can come out 7e-4 too small,
    # and the vector that much too long.
    parts = torch.split(gradient, BLOCK)
    norms = [torch.linalg.vector_norm(part.double()) for part in parts]
    norm = float(torch.linalg.vector_norm(torch.stack(norms)))
    # PRIVACY: one bad image must not turn every weight into NaN, which would show it.
    if not norm <= LONGEST * clip_norm:
        return 0.0
    # PRIVACY: the sensitivity of the sum; the factor never exceeds 1.
    return clip_norm / max(norm, clip_norm)


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
        lambda part: (as_row(unit_gradient(int(unit))) for unit in part),
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
        total, count = torch.zeros(size), 0
        for gradients in unit_gradients(part):
            total = total.to(gradients.device)
            add_clipped(total, gradients, clip_norm)
            count += len(gradients)
        # PRIVACY: a unit that is added twice weighs twice.
        assert count == len(part), f"{count} gradients of {len(part)} units"
        return total

    parts = np.array_split(units, pool.threads)
    sums = list(pool.map(sum_of, parts))
    device = max((part.device for part in sums), key=lambda device: device.type)
    total = torch.zeros(size, device=device)
    for part in sums:
        total += part.to(device)
    return total


def as_row(gradient: Iterable[Tensor]) -> Tensor:
    """A gradient in parts as one row: float32 [1, d], float64 from float64."""
    parts = [part.detach().reshape(-1) for part in gradient]
    return torch.cat([part.to(_wide(part)) for part in parts])[None]


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
