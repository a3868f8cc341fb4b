"""Privacy loss distributions on a grid: added up, and read as ε(δ) and δ(ε).

The privacy loss of an outcome is log(upper(outcome) / lower(outcome)) for the two
distributions of a dominating pair (core/privacy/pairs.py). Its distribution under
`upper` fixes δ(ε) = E[(1 − e^(ε − loss))₊], and composed mechanisms add their losses
(Zhu, Dong and Wang 2022, theorem 10).

Every rounding here makes losses larger: what is read off is an upper bound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, signal
from scipy.special import logsumexp

Array = np.ndarray

TAIL = 1e-15
"""Probability that a composition may move from far losses to infinity."""

ROUNDING = 2.0**-51
"""What is added to δ per composed step for the rounding of transforms: at least four
times the most that was ever seen against extended precision."""

_BINS, _ORDERS = 256, 40  # of Chernoff's bound


@dataclass(frozen=True, kw_only=True)
class LossDistribution:
    """How the privacy loss is distributed, in one direction.

    Attributes:
        interval: Losses are whole multiples of it; > 0.
        lowest: The first mass stands for the loss lowest · interval.
        masses: float64 [n], probabilities of n consecutive losses.
        infinite: Probability that the loss has no bound.
    """

    interval: float
    lowest: int
    masses: Array
    infinite: float

    def mixed_with(self, other: LossDistribution, share: float) -> LossDistribution:
        """`other` with probability `share`, else this one.

        The interval of `other` may be a whole multiple of this one's.
        """
        stride = round(other.interval / self.interval)
        start = other.lowest * stride
        end = start + (len(other.masses) - 1) * stride + 1
        lowest = min(self.lowest, start)
        masses = np.zeros(max(self.lowest + len(self.masses), end) - lowest)
        own = self.lowest - lowest
        masses[own : own + len(self.masses)] = (1 - share) * self.masses
        masses[start - lowest : end - lowest : stride] += share * other.masses
        infinite = (1 - share) * self.infinite + share * other.infinite
        return replace(self, lowest=lowest, masses=masses, infinite=infinite)

    def deltas(self, epsilons: Array) -> Array:
        """δ at each ε ≥ 0: float64 [n]."""
        losses, above, matched = self._tails()
        index = np.minimum(np.searchsorted(losses, epsilons), len(losses) - 1)
        beyond = np.minimum(epsilons - losses[index], 0.0)
        found = above[index] - np.exp(beyond) * matched[index]
        return np.asarray(np.maximum(found, self.infinite))

    def epsilons(self, deltas: Array) -> Array:
        """The smallest ε ≥ 0 for each δ: float64 [n]; infinity when none will do."""
        losses, above, matched = self._tails()
        # The first loss whose δ is small enough: the ε sought is at most this loss.
        index = np.searchsorted(matched - above, -deltas)
        index = np.minimum(index, len(losses) - 1)
        excess = np.maximum(above[index] - deltas, 0.0)
        with np.errstate(divide="ignore"):
            below = np.log(excess / np.maximum(matched[index], 1e-300))
        found = np.clip(losses[index] + below, 0.0, losses[index])
        return np.where(deltas < self.infinite, math.inf, found)

    def _tails(self) -> tuple[Array, Array, Array]:
        """Losses l ≥ 0; the mass at or above each; Σ mass(k) · e^(l − k) over k ≥ l.

        δ(l) is the difference of the last two.
        """
        start = max(-self.lowest, 0)
        masses = np.append(self.masses[start:], 0.0)
        losses = (self.lowest + start + np.arange(len(masses))) * self.interval
        above = np.cumsum(masses[::-1])[::-1] + self.infinite
        decay = [1.0, -math.exp(-self.interval)]
        matched = signal.lfilter([1.0], decay, masses[::-1])[::-1]
        return losses, above, matched


@dataclass(frozen=True, kw_only=True)
class PrivacyLoss:
    """The privacy loss in both directions; a guarantee has to hold in both.

    Attributes:
        removed: Of the data with the unit against the data without.
        added: Of the data without the unit against the data with it; the same object
            when the two are equal.
    """

    removed: LossDistribution
    added: LossDistribution

    def mixed_with(self, other: PrivacyLoss, share: float) -> PrivacyLoss:
        """`other` with probability `share`, else this one."""
        removed = self.removed.mixed_with(other.removed, share)
        if self.added is self.removed and other.added is other.removed:
            return PrivacyLoss(removed=removed, added=removed)
        added = self.added.mixed_with(other.added, share)
        return PrivacyLoss(removed=removed, added=added)

    def deltas(self, epsilons: Sequence[float] | Array) -> Array:
        """δ at each ε ≥ 0: float64 [n]."""
        at = np.asarray(epsilons, dtype=float)
        # PRIVACY: the worse of the two directions.
        return np.asarray(np.maximum(self.removed.deltas(at), self.added.deltas(at)))

    def epsilons(self, deltas: Sequence[float] | Array) -> Array:
        """The smallest ε ≥ 0 for each δ: float64 [n]; infinity when none will do."""
        at = np.asarray(deltas, dtype=float)
        # PRIVACY: the worse of the two directions.
        worse = np.maximum(self.removed.epsilons(at), self.added.epsilons(at))
        return np.asarray(worse)


_INFINITE = LossDistribution(interval=1.0, lowest=0, masses=np.zeros(1), infinite=1.0)
UNBOUNDED = PrivacyLoss(removed=_INFINITE, added=_INFINITE)
"""Of a mechanism that protects nothing."""


def compose(parts: Sequence[tuple[PrivacyLoss, int]]) -> PrivacyLoss:
    """The privacy loss of all `parts` together, each as often as it says.

    Guarantee: δ(ε) of the result is at least that of the composition of the parts, also
    when each is chosen in view of the results before it.

    Args:
        parts: One or more, all on the same interval, each with a count ≥ 1.
    """
    removed = _sum([(part.removed, count) for part, count in parts])
    if all(part.added is part.removed for part, _ in parts):
        return PrivacyLoss(removed=removed, added=removed)
    added = _sum([(part.added, count) for part, count in parts])
    return PrivacyLoss(removed=removed, added=added)


def _sum(parts: Sequence[tuple[LossDistribution, int]]) -> LossDistribution:
    """The distribution of a sum of independent losses, by one Fourier transform each.

    The transforms are cyclic over a window of losses. What lies above the window is
    counted as infinite; what lies below comes back as a higher loss.
    """
    lowest, length, beyond = _window(parts)
    spectrum: Array | complex = 1.0 + 0.0j
    start, finite, steps = 0, 0.0, 0
    for part, count in parts:
        transform = fft.rfft(_folded(part.masses, length), length)
        spectrum = spectrum * _power(transform, count)
        start += count * part.lowest
        finite += count * math.log1p(-part.infinite)
        steps += count
    masses = np.roll(fft.irfft(spectrum, length), start - lowest)
    return LossDistribution(
        interval=parts[0][0].interval,
        lowest=lowest,
        masses=np.maximum(masses, 0.0),
        # PRIVACY: nothing that the window or the transforms lose is forgotten.
        infinite=-math.expm1(finite) + beyond + steps * ROUNDING,
    )


def _folded(masses: Array, length: int) -> Array:
    """`masses` added up modulo `length`: all that a cyclic sum needs to know."""
    if len(masses) <= length:
        return masses
    padded = np.zeros(-(-len(masses) // length) * length)
    padded[: len(masses)] = masses
    return np.asarray(padded.reshape(-1, length).sum(axis=0))


def _power(spectrum: Array, count: int) -> Array:
    """spectrum^count by squaring, four times faster than numpy's power."""
    result = np.ones_like(spectrum)
    while count:
        if count & 1:
            result = result * spectrum
        count >>= 1
        if count:
            spectrum = spectrum * spectrum
    return result


def _window(parts: Sequence[tuple[LossDistribution, int]]) -> tuple[int, int, float]:
    """(lowest loss, number of losses, mass above) that a sum needs, in intervals.

    By Chernoff's bound, at the best of several orders.
    """
    thinned = [(*_thinned(part), count) for part, count in parts]
    lowest = sum(count * int(places[0]) for places, _, count in thinned)
    highest = sum(count * int(places[-1]) for places, _, count in thinned)
    variance = sum(count * _variance(at, masses) for at, masses, count in thinned)
    needed = -math.log(TAIL)
    # From what suits a single far loss to what suits a sum of many small ones.
    smallest = needed / max(highest - lowest, 1)
    largest = max(4 * math.sqrt(needed / max(variance, 1e-9)), 2 * smallest)
    orders = np.geomspace(smallest, min(largest, needed), _ORDERS)

    with np.errstate(divide="ignore"):
        weighted = [(places, np.log(masses), n) for places, masses, n in thinned]

    def reach(sign: int) -> float:
        """How far to this side of zero the sum lies, but for a mass of TAIL."""
        moments = np.full(len(orders), needed)
        for places, logs, count in weighted:
            exponents = np.outer(sign * orders, places) + logs
            moments += count * logsumexp(exponents, axis=1)
        return float(np.min(moments / orders))

    lower = max(lowest, math.floor(-reach(-1)))
    upper = min(highest, math.ceil(reach(+1)))
    length = int(fft.next_fast_len(upper - lower + 1, real=True))
    return lower, length, TAIL if upper < highest else 0.0


def _thinned(part: LossDistribution) -> tuple[Array, Array]:
    """(places, masses): fewer losses, of at least the same exponential moments.

    Each bin's mass goes to its two ends so that its mean stays; bins are narrow where
    the mass is.
    """
    masses = part.masses
    size = len(masses)
    if size <= 4 * _BINS:
        return part.lowest + np.arange(size), masses
    bulk = np.searchsorted(np.cumsum(masses), masses.sum() * np.array([1e-5, 1 - 1e-5]))
    ranges = itertools.pairwise([0, *bulk, size])
    edges = np.unique(
        np.concatenate([np.linspace(a, b, _BINS).astype(int) for a, b in ranges])
    )
    starts, widths = edges[:-1], np.diff(edges)
    totals = np.add.reduceat(masses, starts)
    moments = np.add.reduceat(masses * np.arange(size), starts) - totals * starts
    result = np.zeros(len(edges))
    result[1:] += moments / widths
    result[:-1] += totals - moments / widths
    return part.lowest + edges, result


def _variance(places: Array, masses: Array) -> float:
    total = masses.sum()
    mean = masses @ places / total
    return float(masses @ (places - mean) ** 2 / total)
