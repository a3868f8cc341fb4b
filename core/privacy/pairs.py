"""Dominating pairs of Gaussian mechanisms, and their privacy losses on a grid.

A pair of distributions on the line dominates a mechanism when no two neighbouring data
sets can be told apart better than the pair can; composing mechanisms composes their
pairs (Zhu, Dong and Wang 2022). Here both distributions are mixtures of normals of
equal width, and the loss rises from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, ndtr
from scipy.stats import binom

from core.privacy.losses import Array, LossDistribution, PrivacyLoss

REACH = 9.5
"""Standard deviations looked at on either side; 1e-21 lies beyond."""

_NEWTON_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Σ weights · N(means, noise²): float64 [k] each."""

    means: Array
    weights: Array
    noise: float

    def log_density(self, place: float) -> float:
        """Up to the constant that mixtures of the same noise share."""
        distances = (place - self.means) / self.noise
        return float(logsumexp(-(distances**2) / 2, b=self.weights))

    def below(self, place: float) -> float:
        """Mass at or below a place."""
        return float(self.weights @ ndtr((place - self.means) / self.noise))

    def above(self, place: float) -> float:
        """Mass above a place, as exactly as `below`."""
        return float(self.weights @ ndtr((self.means - place) / self.noise))

    def between(self, places: Array) -> Array:
        """Mass between consecutive places: float64 [n - 1], exact in both tails."""
        total = np.zeros(len(places) - 1)
        for mean, weight in zip(self.means, self.weights, strict=True):
            distances = (places - mean) / self.noise
            right = distances > 0
            tails = ndtr(-np.abs(distances))
            masses = np.diff(np.where(right, -tails, tails))
            masses[right[1:] & ~right[:-1]] += 1.0
            total += weight * masses
        return total


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A dominating pair.

    Attributes:
        upper, lower: The output with the unit, and without it.
        place: Where the privacy loss reaches each of the given values: float64 [n],
            −inf where it always does.
        symmetric: Whether the loss is distributed the same in both directions.
    """

    upper: Mixture
    lower: Mixture
    place: Callable[[Array], Array]
    symmetric: bool = False

    def loss(self, place: float) -> float:
        """The privacy loss at a place."""
        return self.upper.log_density(place) - self.lower.log_density(place)

    def discretised(self, interval: float, reach: float = REACH) -> PrivacyLoss:
        """The privacy loss, rounded to multiples of `interval`.

        Guarantee: δ(ε) is at least the pair's own, for every ε. Each bucket of losses
        is split between its two ends so that neither distribution's mass changes, which
        only spreads the losses (connect-the-dots, Doroshenko et al. 2022, theorem 3);
        what lies outside is moved to the next higher loss. A grid that holds all losses
        of another gives at most the other's δ(ε).

        Args:
            interval: > 0.
            reach: Standard deviations looked at beyond the outermost means.
        """
        means = np.concatenate([self.upper.means, self.lower.means])
        margin = reach * self.upper.noise
        lowest = math.floor(self.loss(means.min() - margin) / interval)
        highest = max(math.ceil(self.loss(means.max() + margin) / interval), lowest + 1)
        losses = np.arange(lowest, highest + 1) * interval
        places = self.place(losses)
        upper, lower = self.upper.between(places), self.lower.between(places)
        masses = _split(upper, lower, losses)
        masses[0] += self.upper.below(places[0])
        removed = LossDistribution(
            interval=interval,
            lowest=lowest,
            masses=masses,
            # PRIVACY: what lies beyond the grid is counted as unbounded.
            infinite=self.upper.above(places[-1]),
        )
        if self.symmetric:
            return PrivacyLoss(removed=removed, added=removed)
        masses = _split(lower[::-1], upper[::-1], -losses[::-1])
        masses[0] += self.lower.above(places[-1])
        added = LossDistribution(
            interval=interval,
            lowest=-highest,
            masses=masses,
            infinite=self.lower.below(places[0]),
        )
        return PrivacyLoss(removed=removed, added=added)


def _split(masses: Array, others: Array, losses: Array) -> Array:
    """Masses [n - 1] of buckets, split between the `losses` [n] that bound them.

    With `up` at the upper end, the other distribution's mass (mass − up) · e^(−low) +
    up · e^(−high) stays what it is. Where rounding breaks that, `up` errs upwards.
    """
    interval = losses[1] - losses[0]
    matched = others * np.exp(np.minimum(losses[:-1], 700.0))
    up = np.clip((masses - matched) / -math.expm1(-interval), 0.0, masses)
    result = np.zeros(len(losses))
    result[1:] += up
    result[:-1] += masses - up
    return result


def removal(noise_multiplier: float, probability: float, size: int = 1) -> Pair:
    """`size` units together are there or not, each sampled with `probability`.

    Guarantee: dominates the Poisson-sampled Gaussian mechanism when units are added,
    removed or blanked out: a binomial number j of them moves the sum by at most j
    sensitivities (Ganesh 2024, arXiv 2401.10294, for `size` > 1).
    """
    counts = np.arange(size + 1)
    weights = binom.pmf(counts, size, probability)
    counts, weights = counts[weights > 0].astype(float), weights[weights > 0]
    upper = Mixture(means=counts, weights=weights, noise=noise_multiplier)
    lower = Mixture(means=np.zeros(1), weights=np.ones(1), noise=noise_multiplier)
    shifted = counts > 0
    means, logs = counts[shifted], np.log(weights[shifted])
    still = float(weights[0]) if counts[0] == 0 else 0.0
    variance = noise_multiplier**2

    def place(losses: Array) -> Array:
        """Where Σ weights · e^((means · place − means² / 2) / variance) is e^loss.

        Newton's method on the logarithm without the unmoved part: a convex function of
        slope between the first and the last mean, started on the right of its root;
        for one mean the start is the root.
        """
        with np.errstate(divide="ignore"):
            lifted = losses - math.log(still) if still else np.full_like(losses, np.inf)
            wanted = losses + np.log(-np.expm1(-np.maximum(lifted, 0.0)))
        starts = (wanted[:, None] - logs) * variance / means + means / 2
        found = np.min(starts, axis=1)
        finite = np.isfinite(found)
        for _ in range(_NEWTON_STEPS if len(means) > 1 else 0):
            at = found[finite, None]
            terms = logs + (at - means / 2) * means / variance
            height = logsumexp(terms, axis=1)
            slope = np.exp(terms - height[:, None]) @ means / variance
            moves = (height - wanted[finite]) / slope
            found[finite] -= moves
            if np.max(np.abs(moves), initial=0.0) < 1e-12 * noise_multiplier:
                break
        return np.asarray(found)

    return Pair(upper=upper, lower=lower, place=place, symmetric=still == 0.0)


def exchange(noise_multiplier: float, probability: float) -> Pair:
    """One unit is exchanged for another, sampled with `probability`.

    Guarantee: dominates the Poisson-sampled Gaussian mechanism when a unit is replaced:
    it moves the sum by one sensitivity to one side, or as far to the other.
    """
    variance = noise_multiplier**2
    means, weights = np.array([0.0, 1.0]), np.array([1 - probability, probability])
    if probability == 1:
        means, weights = means[1:], weights[1:]

    def place(losses: Array) -> Array:
        """Where sinh(place / variance − loss / 2) is odds · sinh(loss / 2)."""
        half = np.abs(losses) / 2
        if probability == 1:
            return np.asarray(losses * variance / 2)
        odds = 0.5 / variance + math.log1p(-probability) - math.log(probability)
        with np.errstate(divide="ignore"):
            log_sinh = odds + half + np.log(-np.expm1(-2 * half)) - math.log(2)
        arsinh = np.logaddexp(np.logaddexp(0.0, 2 * log_sinh) / 2, log_sinh)
        return np.asarray(np.sign(losses) * (arsinh + half) * variance)

    return Pair(
        upper=Mixture(means=means, weights=weights, noise=noise_multiplier),
        lower=Mixture(
            means=-means[::-1], weights=weights[::-1], noise=noise_multiplier
        ),
        place=place,
        symmetric=True,
    )


def group_exchange(
    noise_multiplier: float, probability: float, size: int, interval: float
) -> PrivacyLoss:
    """`size` units are exchanged for others, each sampled with `probability`.

    Guarantee: dominates, by giving away how many of them were sampled: j move the sum
    by at most 2j sensitivities, and knowing j can only help (δ(ε) is jointly convex).
    Exact when all are sampled, loose when few are.
    """
    nothing = LossDistribution(
        interval=interval, lowest=0, masses=np.ones(1), infinite=0.0
    )
    loss = PrivacyLoss(removed=nothing, added=nothing)
    weights = binom.pmf(np.arange(size + 1), size, probability)
    for count, total in enumerate(np.cumsum(weights)):
        if count > 0 and weights[count] > 0:
            moved = exchange(noise_multiplier / count, 1.0).discretised(interval)
            loss = loss.mixed_with(moved, float(weights[count] / total))
    return loss
