"""The clipped sum over the units drawn, computed at a given pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.parallel import Hardware, free_memory, out_of_memory, workers
from core.privacy.clipping import batched_clipped_sum
from core.privacy.gradients.rows import Problem, UnitRows
from core.privacy.gradients.strategies import Compute, Strategy, strategy_named

RowsOf = Callable[[np.ndarray], UnitRows]
"""units → their rows, on the device of the network."""

PORTIONS = 8
"""In so many portions, at least, a thread does its part of a sum: the last of them
costs as much as a full one."""

Total = Callable[[np.ndarray, RowsOf], Tensor]
"""(units, where their rows come from) → float64 [d]: their clipped sum."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How gradients are computed; changes nothing but speed and memory.

    Attributes:
        strategy: Name of one of `strategies.STRATEGIES`.
        rows_at_once: Rows (views) in one pass through the network, for each thread.
        threads: Threads that each work on units of their own; with one, the arithmetic
            of a pass is itself shared among the cores.
        rows_per_second: As timed, on random rows; 0 where it was not.
    """

    strategy: str
    rows_at_once: int
    threads: int
    rows_per_second: float = 0.0


@contextmanager
def clipped_sums(
    problem: Problem,
    pace: Pace,
    hardware: Hardware,
    *,
    rows: int,
    units: float,
    clip_norm: float,
) -> Iterator[Total]:
    """The sum, usable within the block.

    Guarantee: as `clipping.batched_clipped_sum`, for a network that passed
    `fitness.check_fitness`; the pace changes no more than rounding. Several units go
    through the network together in batches of one shape, which no unit changes.

    Args:
        rows: Of a unit, at most.
        units: Of a sum, on average; public.
    """
    strategy = strategy_named(pace.strategy)
    size = sum(weight.numel() for weight in problem.trained().values())
    # Processes that share the machine have fewer threads each than were timed.
    threads = min(pace.threads, hardware.threads)
    with (
        strategy.ready(problem) as compute,
        workers(replace(hardware, threads=threads)) as pool,
    ):
        at_once = pace.rows_at_once
        if strategy.joint:
            at_once = min(at_once, rows * max(1, int(units / threads / PORTIONS)))
        batcher = _Batcher(strategy, compute, at_once)

        def total_of(drawn: np.ndarray, rows_of: RowsOf) -> Tensor:
            def gradients(part: np.ndarray) -> Iterator[list[Tensor]]:
                portion = batcher.units_at_once(rows)
                for first in range(0, len(part), portion):
                    yield from batcher.gradients(rows_of(part[first : first + portion]))

            return batched_clipped_sum(
                drawn,
                gradients,
                clip_norm=clip_norm,
                size=size,
                pool=pool,
                device=hardware.device,
            )

        yield total_of


class _Batcher:
    """Computes unit gradients in portions that memory holds.

    The portion is remembered when memory runs out; nothing else changes with it.

    Args:
        strategy: Whose `compute` it is.
        rows_at_once: How many rows go through the network at a time.
    """

    def __init__(self, strategy: Strategy, compute: Compute, rows_at_once: int) -> None:
        self.rows_at_once = max(1, rows_at_once)
        self._strategy, self._compute = strategy, compute

    def units_at_once(self, rows: int) -> int:
        """How many units of so many rows each it takes at a time."""
        return max(1, self.rows_at_once // rows) if self._strategy.joint else 1

    def gradients(self, batch: UnitRows) -> Iterator[list[Tensor]]:
        """Every unit's gradient: parts [b', …], portion by portion.

        When memory runs out in a portion, it is made again from the same rows, half as
        many at a time.
        """
        first = 0
        while first < len(batch):
            at_once = self.units_at_once(batch.rows)
            portion = batch.units(first, first + at_once)
            try:
                # PRIVACY: in a batch of another shape a gradient may be rounded
                # otherwise, and one unit more must not move those of others.
                gradients = self._portion(portion.filled(at_once))
            except RuntimeError as error:
                if self.rows_at_once == 1 or not out_of_memory(error):
                    raise
                self.rows_at_once //= 2
                free_memory()
                continue
            # Of the same name: who uses the list up must not leave a second one here.
            gradients = [gradient[: len(portion)] for gradient in gradients]
            yield gradients
            first += len(portion)

    def _portion(self, portion: UnitRows) -> list[Tensor]:
        rows = max(1, self.rows_at_once // len(portion))
        total: list[Tensor] | None = None
        for part in portion.split(rows):
            gradients = self._compute(part)
            if total is None:
                total = gradients
            else:
                torch._foreach_add_(total, gradients)
        assert total is not None, "a unit without rows"
        return total
