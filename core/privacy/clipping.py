"""Each unit's gradient clipped once, as a whole, and summed.

What is clipped is the gradient of a unit's mean loss over all its views, after the
mean: no gradient of a single view ever exists. How it was made is the business of
`core.privacy.gradients`; here it is bounded, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

PIECE = 2**18
"""Numbers worked on at a time, so that they stay in the processor's cache."""

CPU = torch.device("cpu")

UnitGradient = Callable[[int], Sequence[Tensor]]
"""unit → gradient of the mean loss over its views, in parts of any shape."""

UnitGradients = Callable[[np.ndarray], Iterable[list[Tensor]]]
"""units → for some of them at a time, in any order, their gradients: parts [b, …], with
a row for each unit. A list is used up before the next is asked for."""


class Pool(Protocol):
    """Threads that apply a function to slices, results in order."""

    threads: int

    def map(
        self, function: Callable[[np.ndarray], Tensor], *slices: Sequence[np.ndarray]
    ) -> Iterable[Tensor]: ...


def add_clipped(total: Tensor, gradients: list[Tensor], clip_norm: float) -> None:
    """Add each unit's gradient to `total`, shortened to a norm of at most `clip_norm`.

    Guarantee: for any input whatever, what a unit adds has L2 norm ≤
    clip_norm·(1 + 1e-9), and depends on no other unit; one that is not finite adds
    nothing.

    Args:
        total: float64 [d], changed in place.
        gradients: float [b, …] each, a row per unit, d numbers of it in all; used up.
    """
    pieces = list(_pieces(gradients))
    factors = _factors(pieces, clip_norm)
    sums = torch.split(total, [piece.shape[1] for piece in pieces])
    for part, piece in zip(sums, pieces, strict=True):
        for row, factor in zip(piece, factors, strict=True):
            # PRIVACY: one bad image must not turn every weight into NaN, which shows
            # it; zero times something that is not finite is not zero.
            if factor > 0:
                part.add_(row, alpha=factor)


def _pieces(gradients: list[Tensor]) -> Iterator[Tensor]:
    """The same numbers in the same order: float [b, m] each, of any m ≤ PIECE.

    Small parts are put together, as each costs a few calls. Uses up `gradients`, so
    that no second copy of all of them ever exists.
    """
    waiting: list[Tensor] = []
    width = 0
    gradients.reverse()
    while gradients:
        rows = gradients.pop().flatten(1)
        if width + rows.shape[1] > PIECE:
            if waiting:
                yield torch.cat(waiting, dim=1)
            waiting, width = [], 0
        if rows.shape[1] > PIECE:
            yield from torch.split(rows, PIECE, dim=1)
        else:
            waiting.append(rows)
            width += rows.shape[1]
    if waiting:
        yield torch.cat(waiting, dim=1)


def _factors(pieces: Sequence[Tensor], clip_norm: float) -> list[float]:
    """For each unit, what shortens its gradient; 0 or NaN for one that is endless."""
    norms = torch.stack([_lengths(piece) for piece in pieces])
    lengths = torch.linalg.vector_norm(norms, dim=0).tolist()
    return [
        # PRIVACY: the sensitivity of the sum; the factor never exceeds 1.
        clip_norm / max(length, clip_norm)
        for length in lengths
    ]


def _lengths(piece: Tensor) -> Tensor:
    """Norms of rows [b, m]: float64 [b]."""

    def lengths(rows: Tensor) -> Tensor:
        # PRIVACY: a single-precision norm of a million numbers can come out 7e-4 too
        # small, and the vector that much too long.
        norms: Tensor = torch.linalg.vector_norm(rows.to(torch.float64), dim=-1)
        return norms

    # A CPU takes up to five times as long for many long rows at once, and twice as long
    # where it is the norm that converts (torch 2.14).
    return lengths(piece) if piece.is_cuda else torch.stack([*map(lengths, piece)])


def clipped_sum(
    units: np.ndarray,
    unit_gradient: UnitGradient,
    *,
    clip_norm: float,
    size: int,
    pool: Pool,
) -> Tensor:
    """`batched_clipped_sum` of gradients that are made one at a time.

    Guarantee: as there.
    """
    return batched_clipped_sum(
        units,
        lambda part: ([p[None] for p in unit_gradient(int(unit))] for unit in part),
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
    device: torch.device = CPU,
) -> Tensor:
    """Σ over `units` of the clipped unit gradients: float64 [size].

    Guarantee: adding or removing one of n units moves the sum by at most
    clip_norm·(1 + 1e-9 + n²·2⁻⁵²), provided that nothing of one unit's gradient
    depends on which other units were drawn.

    Args:
        device: Of the gradients and the sum.
    """

    def sum_of(part: np.ndarray) -> Tensor:
        # PRIVACY: in single precision one unit changes how all sums after it round, and
        # may move that of 15,000 others by 1.0004 clip norms.
        total, count = torch.zeros(size, dtype=torch.float64, device=device), 0
        for gradients in unit_gradients(part):
            count += len(gradients[0])
            add_clipped(total, gradients, clip_norm)
        # PRIVACY: a unit that is added twice weighs twice.
        if count != len(part):
            raise RuntimeError(f"{count} gradients came of {len(part)} units")
        return total

    parts = np.array_split(units, pool.threads)
    total, *others = pool.map(sum_of, parts)
    for part in others:
        total += part
    return total
