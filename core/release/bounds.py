"""What a sequence of private events implies: ε, its profile, an attacker's chances.

Pure accounting on public constants; nothing here reads data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.release.wording import RELATIONS, round_up

DISCRETISATION = 1e-4
"""Width of a privacy-loss bucket; every rounding goes up (pessimistic estimate)."""

COARSE_DISCRETISATION = 1e-3
"""Ten times faster and a little looser, still an upper bound: for what is explained
beside the claim (other relations, an attacker's chances), never for the claim."""

PROFILE_DELTAS = (1e-4, 1e-5, 1e-6, 1e-7)
GROUP_SIZES = (2, 5, 10)
LARGEST_EXPONENT = 700.0
"""e to the power of more is no number for a machine; any δ times that is above 1."""
_GRID = 400


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the events of a release imply, under its neighbouring relation.

    Attributes:
        epsilon: ε of the composed events at the claim's δ.
        profile: δ → ε, for the deltas of `PROFILE_DELTAS` and 1/N^1.1.
        true_positive_rates: False positive rate → the largest true positive rate any
            membership test can reach on one unit.
        best_accuracy: The largest share of right answers of any membership test when
            half of the candidates are members.
        by_relation: Neighbouring relation → ε of the same events under it.
    """

    epsilon: float
    profile: Mapping[float, float]
    true_positive_rates: Mapping[float, float]
    best_accuracy: float
    by_relation: Mapping[str, float]


def bounds(
    events: Sequence[Mapping[str, Any]], *, delta: float, relation: str, count: int
) -> Bounds:
    """Account the events of a release.

    Args:
        events: Each `{"kind": "gaussian" | "truncated_poisson_gaussian", "count", ...}`
            as in `AuditFacts.events`.
        delta: δ of the claim.
        relation: A key of `core.release.wording.RELATIONS`.
        count: The public N of the data.

    Raises:
        ValueError: If an event is of a kind unknown here.
    """
    return _bounds(
        tuple(tuple(sorted(_numbers(event).items())) for event in events),
        delta,
        relation,
        count,
    )


def group_privacy(epsilon: float, delta: float, size: int) -> tuple[float, float]:
    """(ε, δ) for a group of `size` units; a δ of 1 or more bounds nothing."""
    if size * epsilon > LARGEST_EXPONENT:
        return size * epsilon, 1.0
    group_delta = delta * math.expm1(size * epsilon) / math.expm1(epsilon)
    return size * epsilon, min(1.0, group_delta)


def _numbers(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "what"}


def _accountant(
    events: Sequence[Mapping[str, Any]], relation: str, interval: float
) -> Any:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation[relation.upper()],
        value_discretization_interval=interval,
    )
    for event in events:
        accountant.compose(_dp_event(event), int(event["count"]))
    return accountant


def _dp_event(event: Mapping[str, Any]) -> Any:
    import dp_accounting

    if event["kind"] == "gaussian":
        return dp_accounting.GaussianDpEvent(event["noise_multiplier"])
    if event["kind"] == "truncated_poisson_gaussian":
        return dp_accounting.TruncatedSubsampledGaussianDpEvent(
            dataset_size=event["dataset_size"],
            sampling_probability=event["sampling_probability"],
            truncated_batch_size=event["batch_cap"],
            noise_multiplier=event["noise_multiplier"],
        )
    raise ValueError(f"unknown kind of private event: {event['kind']!r}")


@lru_cache(maxsize=8)
def _bounds(
    events: tuple[tuple[tuple[str, Any], ...], ...],
    delta: float,
    relation: str,
    count: int,
) -> Bounds:
    mappings = [dict(event) for event in events]
    claimed = _accountant(mappings, relation, DISCRETISATION)
    coarse = {
        name: _accountant(mappings, name, COARSE_DISCRETISATION) for name in RELATIONS
    }
    deltas = sorted({*PROFILE_DELTAS, delta, round_up(count**-1.1, 3)}, reverse=True)
    epsilon = float(claimed.get_epsilon(delta))
    others = {name: float(coarse[name].get_epsilon(delta)) for name in coarse}
    return Bounds(
        epsilon=epsilon,
        profile={d: float(claimed.get_epsilon(d)) for d in deltas},
        true_positive_rates={
            rate: _largest_true_positive_rate(coarse[relation], rate, epsilon)
            for rate in (0.001, 0.01)
        },
        best_accuracy=(1 + float(coarse[relation].get_delta(0.0))) / 2,
        by_relation=others | {relation: epsilon},
    )


def _largest_true_positive_rate(
    accountant: Any, false_positive_rate: float, epsilon: float
) -> float:
    """1 - f(α), f the trade-off curve that the privacy profile δ(ε) implies.

    Every ε gives a valid lower bound of f, so a finite grid errs on the pessimistic
    side only.
    """
    alpha = false_positive_rate
    smallest_miss = 0.0
    for step in range(_GRID + 1):
        point = epsilon * step / _GRID
        kept = 1 - float(accountant.get_delta(point))
        smallest_miss = max(
            smallest_miss,
            kept - math.exp(point) * alpha,
            math.exp(-point) * (kept - alpha),
        )
    return min(1.0, 1 - smallest_miss)
