"""Which strategy is fastest here, and on how many rows at a time.

Decided by a short timing on random rows of the right shape: nothing private is looked
at, and nothing but speed and memory depends on the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from core.errors import UserError
from core.parallel import Hardware, out_of_memory
from core.privacy.gradients.rows import Problem, UnitRows
from core.privacy.gradients.strategies import STRATEGIES, Strategy, strategy_named
from core.privacy.gradients.sums import PORTIONS, Pace, clipped_sums

SECONDS = 3.0
"""After so long no further candidate is tried."""
SECONDS_EACH = 0.3
"""One candidate is repeated for at least so long."""
ROWS, FEWER_ROWS, ROWS_ON_A_CARD = (64,), (16,), (32, 128, 512)
"""Rows at a time that are tried."""
SAME = 0.02
"""Relative distance of two gradients that rounding explains, in bfloat16 too."""
LARGE = 2**24
"""A network of more weights runs, on a CPU, on fewer rows and in one thread: each would
hold gradients of its own."""

MakeRows = Callable[[int], UnitRows]
"""units → random rows of so many units, on the device of the network."""


def choose_pace(
    problem: Problem,
    make_rows: MakeRows,
    hardware: Hardware,
    *,
    alike: bool,
) -> Pace:
    """The fastest candidate, with its rate.

    Args:
        alike: Whether all units have the same number of rows.

    Raises:
        UserError: when memory does not suffice for a single row.
    """
    begun, best = time.monotonic(), None
    for pace in candidates(problem, make_rows(1).rows, hardware):
        # PRIVACY: beside a unit of more rows the batch has another shape; units that
        # differ go through the network one at a time.
        if strategy_named(pace.strategy).joint and not alike:
            continue
        if best and time.monotonic() - begun > SECONDS:
            break
        try:
            if not agrees(strategy_named(pace.strategy), problem, make_rows(2)):
                continue
            rate = measured(pace, problem, make_rows, hardware)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            continue
        if best is None or rate > best.rows_per_second:
            best = replace(pace, rows_per_second=rate)
    if best is None:
        raise UserError(
            "Memory does not suffice to train this network on a single view: choose a "
            "smaller checkpoint, or close other programs."
        )
    return best


def candidates(problem: Problem, rows: int, hardware: Hardware) -> Iterator[Pace]:
    """What is worth a try for units of `rows` rows each, the likeliest first."""
    counts = sorted({hardware.threads, 1}, reverse=True)
    portions: tuple[int, ...] = ROWS
    large = False
    if hardware.device.type == "cuda":
        portions = ROWS_ON_A_CARD
    elif sum(weight.numel() for weight in problem.trained().values()) > LARGE:
        counts, portions, large = [1], FEWER_ROWS, True
    for at_once in portions:
        for strategy in STRATEGIES:
            # Alone, a unit is best served by the first strategy, which then has no use
            # for more rows than the unit has.
            alone = at_once < 2 * rows
            needless = at_once > max(rows, portions[0])
            # Where memory ends, a processor's process is killed, not told.
            greedy = large and strategy.copies
            unfit = greedy or (alone if strategy.joint else needless)
            if unfit or not strategy.suits(problem):
                continue
            for threads in counts:
                if threads == 1 or strategy.side_by_side:
                    yield Pace(
                        strategy=strategy.name, rows_at_once=at_once, threads=threads
                    )


def agrees(strategy: Strategy, problem: Problem, rows: UnitRows) -> bool:
    """Whether it finds the same gradients as one plain backward pass per unit.

    They would be clipped all the same: this is about learning the right thing, from a
    network that a strategy's author never thought of.
    """
    plain = STRATEGIES[0]
    if strategy is plain:
        return True
    with plain.ready(problem) as compute:
        each = [compute(rows.units(unit, unit + 1)) for unit in range(len(rows))]
    with strategy.ready(problem) as compute:
        found = compute(rows)
    wanted = [torch.cat(parts) for parts in zip(*each, strict=True)]
    length = torch.stack(torch._foreach_norm(wanted)).norm()
    apart = torch.stack(torch._foreach_norm(torch._foreach_sub(found, wanted))).norm()
    return bool(apart <= SAME * length)


def measured(
    pace: Pace, problem: Problem, make_rows: MakeRows, hardware: Hardware
) -> float:
    """Rows per second, gradients clipped and added up.

    Raises:
        RuntimeError: when memory does not suffice even for one row at a time.
    """
    rows = make_rows(1).rows
    portion = max(1, pace.rows_at_once // rows)
    units = pace.threads * (portion if strategy_named(pace.strategy).joint else 1)
    with clipped_sums(
        problem, pace, hardware, rows=rows, units=units * PORTIONS, clip_norm=1.0
    ) as total_of:

        def once() -> float:
            begun = time.perf_counter()
            total = total_of(np.arange(units), lambda part: make_rows(len(part)))
            float(total[0])  # Waits for the device.
            return time.perf_counter() - begun

        once()  # Fills caches, and lets libraries choose their kernels.
        times = [once()]
        while sum(times) < SECONDS_EACH:
            times.append(once())
    return units * rows / float(np.median(times))
