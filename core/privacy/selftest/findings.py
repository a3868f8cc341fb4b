"""What a check measures, and what it says about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from core.privacy.canaries import FALSE_ALARM

SIGMAS = float(stats.norm.isf(FALSE_ALARM))
"""6.0: the threshold of a statistic that is Gaussian."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much a self-test draws; more sees smaller faults.

    Attributes:
        coordinates: Noise values of a vector.
        shifts: Noise values whose correlations at every shift are looked at.
        draws: Batches drawn.
        canaries: In the audits over many steps, by thousands.
        canaries_of_one_step: In the audit of a single step, by thousands.
    """

    coordinates: int = 4_000_000
    shifts: int = 2**17
    draws: int = 1_000
    canaries: int = 100_000
    canaries_of_one_step: int = 400_000


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a check is given besides the engine.

    Attributes:
        size: How much to draw.
        elsewhere: The engine's noise as other processes draw it: float64 [shifts] each.
        reached: Called with the share of the check that is done, 0 to 1; raises
            `Stopped` when the caller wants to stop.
    """

    size: Size
    elsewhere: Callable[[], Sequence[np.ndarray]]
    reached: Callable[[float], None]


def _number(value: float) -> str:
    """Four decimals, as ratios near 1 need them; small numbers to three digits."""
    if value == round(value, 3) or abs(value) < 0.1:
        return f"{value:.3g}"
    return f"{value:.4f}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number, and the range that correct code keeps.

    Attributes:
        name: What it is, in words.
        low, high: The range, ends included; infinite where it has no end.
    """

    name: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def violated(self) -> bool:
        """Outside the range, or not a number."""
        return not self.low <= self.value <= self.high

    def text(self) -> str:
        """Name, value and range."""
        if self.low == -math.inf:
            allowed = f"at most {_number(self.high)}"
        elif self.high == math.inf:
            allowed = f"at least {_number(self.low)}"
        else:
            allowed = f"{_number(self.low)} to {_number(self.high)}"
        return f"{self.name} {_number(self.value)} ({allowed})"

    def to_json(self) -> dict[str, Any]:
        """Plain values; null for no number and for no end."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        told = {n: x if math.isfinite(x) else None for n, x in numbers.items()}
        return {"name": self.name, **told, "violated": self.violated}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check measured.

    Attributes:
        check: Its name.
        question: What it asks, in the custodian's words.
        measurements: At least one.
        smallest_fault: What it sees in 95 of 100 runs, or in all.
        note: What else its numbers say; empty for most.
        figures: The numbers in the note, by name.
    """

    check: str
    question: str
    measurements: tuple[Measurement, ...]
    smallest_fault: str
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def violated(self) -> bool:
        """Whether any of its numbers is out of range."""
        return any(measured.violated for measured in self.measurements)

    def measured(self) -> str:
        """All its numbers with their ranges, and the note, in one line."""
        told = "; ".join(measured.text() for measured in self.measurements)
        return f"{told}. {self.note}".strip()

    def text(self) -> str:
        """One line."""
        verdict = "VIOLATION" if self.violated else "no violation"
        return (
            f"{verdict:<12}  {self.check}: {self.measured()} "
            f"Smallest fault it sees: {self.smallest_fault}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "check": self.check,
            "question": self.question,
            "violated": self.violated,
            "measurements": [measured.to_json() for measured in self.measurements],
            "smallest_fault": self.smallest_fault,
            "note": self.note,
            "figures": dict(self.figures),
        }
