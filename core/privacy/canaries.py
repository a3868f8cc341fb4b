"""What an attacker's guesses about planted records say of ε.

A Dirac canary is a pseudo-record whose gradient points along a coordinate of its own,
and takes part or not by a fair coin. Someone who sees every noisy sum guesses which
ones took part; this module scores the guesses, and compares them with a claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
from scipy import stats

from core.privacy.accounting import Charge
from core.privacy.gaussian import gaussian_delta

FALSE_ALARM = 1e-9
"""How often one statistic of correct code passes its threshold: beyond 6 sigma."""

POWER = 0.95
"""A fault counts as visible when so many runs would raise the alarm."""

VISIBLE_SIGMAS = float(stats.norm.isf(FALSE_ALARM) + stats.norm.ppf(POWER))
"""How many standard deviations a fault must move a statistic to be visible."""

INTERVAL = 1e-3
"""Grid of privacy losses on which a second accountant looks at a claim."""

_LARGEST_EPSILON = 100.0


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """How an attacker did who had to guess for every canary.

    Attributes:
        inside: Canaries that took part.
        found: Of these, guessed "in".
        outside: Canaries that did not.
        suspected: Of these, guessed "in" all the same.
    """

    inside: int
    found: int
    outside: int
    suspected: int

    @property
    def canaries(self) -> int:
        """All of them."""
        return self.inside + self.outside

    @property
    def right(self) -> int:
        """Guesses that were right."""
        return self.found + self.outside - self.suspected


def log_likelihood_ratio(
    sums: np.ndarray, *, sampling_probability: float, noise_multiplier: float
) -> np.ndarray:
    """log P(sum | canary in) − log P(sum | canary out), one step: float64 [..., m].

    Added up over the steps and compared with 0, no guess is right more often (Neyman
    and Pearson 1933; as a canary score Nasr et al. 2023, arXiv 2302.07956).

    Args:
        sums: Noisy sum on each canary's coordinate ÷ clip norm, float64 [..., m].
        sampling_probability: q, 0 < q < 1.
        noise_multiplier: σ, as the attacker knows it.
    """
    drawn = (2 * sums - 1) / (2 * noise_multiplier**2)
    absent = math.log1p(-sampling_probability)
    return np.logaddexp(absent, math.log(sampling_probability) + drawn)


def guesses(scores: np.ndarray, inside: np.ndarray) -> Guesses:
    """The record of guessing "in" wherever the score is above 0.

    Args:
        scores: float64 [m].
        inside: bool [m], the coins.
    """
    said = scores > 0
    return Guesses(
        inside=int(inside.sum()),
        found=int((said & inside).sum()),
        outside=int((~inside).sum()),
        suspected=int((said & ~inside).sum()),
    )


def surest(scores: np.ndarray, inside: np.ndarray, count: int) -> int:
    """Right guesses among the `count` highest ("in") and lowest ("out") scores.

    `count` must have been fixed before the scores were seen.
    """
    order = np.argsort(scores)
    return int((~inside[order[:count]]).sum() + inside[order[-count:]].sum())


def best_share(charge: Charge) -> float:
    """The largest share of right guesses that the charged mechanism admits.

    Guarantee: whoever sees the outputs guesses a fair coin's "in" or "out" rightly with
    probability at most (1 + δ(0)) / 2, δ(0) being the total variation distance of the
    two output distributions; an upper bound of it, by privacy loss distributions.
    """
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=INTERVAL,
    )
    accountant.compose(charge.event())
    return (1 + float(accountant.get_delta(0.0))) / 2


def most_right(canaries: int, share: float) -> int:
    """More right guesses than this come once in a billion runs at this share."""
    return int(stats.binom.isf(FALSE_ALARM, canaries, share))


def visible_noise(canaries: int, share: float) -> float:
    """The factor on the noise at which the alarm of `most_right` has power 0.95.

    Both distributions taken for Gaussian, which understates what is seen. Rounded down
    to two decimals; 0 when no weakening would be seen.
    """
    seen = share + VISIBLE_SIGMAS * math.sqrt(share * (1 - share) / canaries)
    if seen >= 1:
        return 0.0
    factor = float(stats.norm.ppf(share) / stats.norm.ppf(seen))
    return math.floor(100 * factor) / 100


def clopper_pearson(count: int, trials: int, miss: float) -> float:
    """Upper limit of a probability after `count` hits in `trials`.

    Guarantee: below the truth with probability at most `miss` (Clopper and Pearson
    1934).
    """
    if count >= trials:
        return 1.0
    return float(stats.beta.isf(miss, count + 1, trials - count))


def least_mu(record: Guesses, confidence: float) -> float:
    """Lower limit of μ in Gaussian differential privacy: ≥ 0 (arXiv 2302.07956).

    Guarantee: if the mechanism is μ-GDP, the figure is at most μ with probability
    `confidence`, the threshold of the guesses having been fixed before. A mechanism
    that is not Gaussian makes it an estimate.
    """
    miss = (1 - confidence) / 2
    suspected = clopper_pearson(record.suspected, record.outside, miss)
    overlooked = clopper_pearson(record.inside - record.found, record.inside, miss)
    mu = float(stats.norm.isf(suspected) - stats.norm.ppf(overlooked))
    return max(0.0, mu)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """ε(δ) of μ-GDP: the root of `gaussian_delta`, at most 100."""
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    return _root(lambda epsilon: delta - gaussian_delta(mu, epsilon))


def one_run_epsilon(
    right: int, guessed: int, canaries: int, delta: float, confidence: float
) -> float:
    """Lower limit of ε from one run (Steinke, Nasr and Jagielski, arXiv 2305.08846).

    Guarantee: for any (ε, δ)-DP mechanism and any canaries in by independent fair
    coins, the figure is at most ε with probability `confidence`, the number of guesses
    having been fixed before.

    Args:
        right: Right ones of the `guessed`; the attacker was silent on the others.
    """

    def excess(epsilon: float) -> float:
        at_random = 1 / (1 + math.exp(-epsilon))
        chance = float(stats.binom.sf(right - 1, guessed, at_random))
        shifts = np.arange(1, right + 1)
        gains = stats.binom.sf(right - shifts - 1, guessed, at_random) - chance
        slope = max(0.0, float(np.max(gains / shifts, initial=0.0)))
        return min(1.0, chance + 2 * canaries * delta * slope) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    return _root(excess)


def _root(rising: Callable[[float], float]) -> float:
    """Where a function that rises with ε crosses 0, up to the largest ε looked at."""
    if rising(_LARGEST_EPSILON) < 0:
        return _LARGEST_EPSILON
    return float(scipy.optimize.brentq(rising, 0.0, _LARGEST_EPSILON))
