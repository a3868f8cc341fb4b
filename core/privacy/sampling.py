"""Exact Poisson sampling of units."""

from __future__ import annotations

import math

import numpy as np

from core.privacy.noise import fresh_generator

CAP_DEVIATIONS = 6


def batch_cap(population: int, probability: float) -> int:
    """Mean + 6 standard deviations of the sample size, at most the population.

    A hard bound on time and memory; it is part of the accounting and costs nothing
    visible there.
    """
    mean = population * probability
    deviation = math.sqrt(mean * (1 - probability))
    return min(population, math.ceil(mean + CAP_DEVIATIONS * deviation))


def draw_units(present: int, probability: float, cap: int) -> np.ndarray:
    """Each of `present` units independently with `probability`, cut down to `cap`.

    Guarantee: Poisson sampling, exactly, cut to a uniform subset where it is larger: a
    binomial count, then so many units without replacement, is the same distribution as
    one coin per unit (arXiv 2406.17298v3, lemma 1).

    Returns:
        int64 [n], n ≤ cap, in random order; n = 0 is a normal outcome.
    """
    generator = fresh_generator()
    # PRIVACY: an exact binomial count; never a fixed or rounded batch size.
    count = min(int(generator.binomial(present, probability)), cap)
    return generator.choice(present, count, replace=False)
