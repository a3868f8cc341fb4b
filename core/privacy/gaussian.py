"""Gaussian differential privacy: one number μ, the ratio of a shift to its noise.

Dong, Roth and Su 2022. A single Gaussian release of noise multiplier σ is exactly
μ = 1 / σ; for DP-SGD, μ is an estimate.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

_LARGEST = 1e4


def gaussian_delta(mu: float, epsilon: float) -> float:
    """δ of a Gaussian release at ε (Balle and Wang 2018, theorem 8)."""
    if mu == 0:
        return 0.0
    missed = math.exp(epsilon + float(log_ndtr(-epsilon / mu - mu / 2)))
    return max(float(ndtr(mu / 2 - epsilon / mu)) - missed, 0.0)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The μ > 0 of the Gaussian release that is exactly (ε, δ)-private, 0 < δ < 1."""

    def excess(logarithm: float) -> float:
        found = gaussian_delta(math.exp(logarithm), epsilon)
        return math.log(max(found, 1e-300) / delta)

    smallest, largest = math.log(1e-8), math.log(_LARGEST)
    if excess(smallest) >= 0:
        return math.exp(smallest)
    return math.exp(brentq(excess, smallest, largest, xtol=1e-9))
