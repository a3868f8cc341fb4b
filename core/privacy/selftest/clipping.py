"""Can one unit push harder than the clip norm?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.privacy.selftest.engine import Engine, OneThread
from core.privacy.selftest.findings import Conditions, Finding, Measurement

_LARGEST = torch.finfo(torch.float32).max

Gradient = list[Tensor]


def _finite() -> tuple[Gradient, ...]:
    """Gradients that have broken clipping elsewhere."""
    return (
        [torch.zeros(5)],
        [torch.full((5,), 1e-45), torch.full((2, 2), 1e-40)],
        [torch.full((4,), 0.1)],
        # Two layers of the full norm each.
        [torch.full((4,), 0.5), torch.full((2, 2), 0.5)],
        [torch.full((7,), 1e30)],
        [torch.full((3,), _LARGEST)],
        [torch.cat([torch.full((999,), 1e-8), torch.ones(1)])],
    )


def _not_finite() -> tuple[Gradient, ...]:
    return (
        [torch.tensor([math.nan, 1.0, 2.0])],
        [torch.tensor([math.inf, 1.0, 2.0])],
        [torch.ones(3), torch.tensor([[-math.inf, 0.0]])],
        [torch.tensor([math.nan, math.inf, -math.inf])],
    )


def bound(engine: Engine, conditions: Conditions) -> Finding:
    """How far any one unit moves a sum, in clip norms; lengths in float64."""

    def total(gradients: Sequence[Gradient], clip_norm: float = 1.0) -> Tensor:
        return engine.clipped_sum(
            np.arange(len(gradients)),
            lambda unit: gradients[unit],
            clip_norm=clip_norm,
            size=sum(part.numel() for part in gradients[0]),
            pool=OneThread(),
        ).double()

    def length(vector: Tensor) -> float:
        return float(torch.linalg.vector_norm(vector))

    # The norm of a million numbers in single precision can come out too small.
    large = [torch.full((1_701_836,), 1e-3)]
    longest = [
        length(total([gradient], clip_norm)) / clip_norm
        for gradient in (*_finite(), large)
        for clip_norm in (1e-3, 1.0)
    ]
    copies = [length(total([gradient] * 7)) / 7 for gradient in _finite()]
    spoilt = [length(total([gradient])) for gradient in _not_finite()]
    ordinary = [[torch.linspace(-3.0, number, 3)] for number in range(8)]
    added = [[torch.tensor([value] * 3)] for value in (math.nan, math.inf, 1e30, -1.0)]
    moved = [length(total([*ordinary, unit]) - total(ordinary)) for unit in added]
    return Finding(
        check="clipping",
        question="Can no single record push harder than allowed?",
        measurements=(
            _excess("longest unit", longest, 1e-8),
            _excess("seven copies of a unit, by seven,", copies, 1e-8),
            _excess("move of a sum by one more unit", moved, 1e-8),
            Measurement(
                name="weight of a unit that is not a number",
                value=float(np.max(spoilt)),
                high=0.0,
            ),
        ),
        smallest_fault="a unit 0.000001 % too long",
    )


def _excess(what: str, lengths: Sequence[float], allowed: float) -> Measurement:
    """How much the longest is beyond 1; not a number when one of them is none."""
    longest = float(np.max(lengths))
    return Measurement(
        name=f"{what} beyond the clip norm",
        value=longest if math.isnan(longest) else max(0.0, longest - 1),
        high=allowed,
    )
