"""Data sets that differ by one unit, as sums of the moments see them."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis.extra.numpy import arrays

from core.privacy.moments import Contributions

CLASSES, WIDTH, OTHERS = 3, 4, 5

_hostile = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, 1e30, -3e38, 1e-40, 0.5, 14.0])
)
units = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        arrays(np.float32, (count, WIDTH), elements=_hostile),
        arrays(np.int64, count, elements=st.integers(0, CLASSES - 1)),
    )
)
"""(float32 [n, WIDTH], int64 [n]): the vectors and classes of one unit's images."""


def others() -> Contributions:
    """Five units of one image each."""
    generator = torch.Generator().manual_seed(0)
    return Contributions(
        coefficients=torch.randn(OTHERS, WIDTH, generator=generator),
        labels=torch.arange(OTHERS) % CLASSES,
        weights=torch.ones(OTHERS),
        classes=CLASSES,
    )


def with_unit(coefficients: np.ndarray, labels: np.ndarray) -> Contributions:
    """The others and one more unit, whose images share a weight of 1."""
    before = others()
    weights = torch.full((len(labels),), 1 / len(labels))
    return Contributions(
        coefficients=torch.cat([before.coefficients, torch.from_numpy(coefficients)]),
        labels=torch.cat([before.labels, torch.from_numpy(labels)]),
        weights=torch.cat([before.weights, weights]),
        classes=CLASSES,
    )
