"""From noise to ε and back, by privacy loss distributions.

Everything here is arithmetic on public constants; no record comes near.

The method is that of Google's dp-accounting, and so is its outcome at an equal grid to
eight digits; this one is vectorised, which makes it 30 times faster. Releases are
rechecked with dp-accounting itself (core/release), and tests compare the two, Opacus'
accountant and Rényi accounting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import binom

from core.errors import UserError
from core.privacy.budget import Relation
from core.privacy.gaussian import gaussian_mu
from core.privacy.losses import UNBOUNDED, PrivacyLoss, compose
from core.privacy.pairs import REACH, exchange, group_exchange, removal

FINE = 1e-4
"""The finest grid of privacy losses. All others are whole multiples, so that evaluating
a claim anew on this one never gives more."""

COARSE = 1e-3
"""For looks only."""

LARGEST_INTERVAL = 512 * FINE

MOST_LOSSES = 2**20
"""On a grid that was chosen here, to bound time and memory."""

ROUNDING_SHARE = 1e-4
"""What the choice of grid may add to ε, as a share of it."""

SMALLEST_NOISE, LARGEST_NOISE = 0.3, 3000.0
"""Range of noise multipliers searched; below 0.3 a step protects next to nothing."""

MARGIN = 1e-5
"""Calibration stays this share below its target: more than the rounding of any
evaluation."""

_FIRST_WIDTH, _TOLERANCE = 0.05, 2e-4  # of the logarithm of the noise

PROFILE_DELTAS = tuple(float(delta) for delta in np.geomspace(1e-1, 1e-10, 37))

NO_NOISE = 0.01
"""A full release with less has an ε above 5,000: it counts as unbounded."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """`count` uses of one private mechanism, as the accountant sees them.

    Attributes:
        noise_multiplier: Noise standard deviation ÷ L2 sensitivity.
        count: How often, ≥ 0.
        sampling_probability: q of the Poisson sampling; 1 when every unit takes part.
        population: Public upper bound on the number of units.
        batch_cap: Samples are cut down to so many units; None for no cap.
    """

    noise_multiplier: float
    count: int
    sampling_probability: float = 1.0
    population: int = 0
    batch_cap: int | None = None

    def uncapped(self) -> Charge:
        """The same without the cap: a shade less ε, for looks only."""
        return replace(self, batch_cap=None)

    def event(self) -> Any:
        """The dp-accounting event of all `count` uses, for whoever checks the sum."""
        import dp_accounting

        gaussian: dp_accounting.DpEvent
        if self.batch_cap is not None:
            gaussian = dp_accounting.TruncatedSubsampledGaussianDpEvent(
                dataset_size=self.population,
                sampling_probability=self.sampling_probability,
                truncated_batch_size=self.batch_cap,
                noise_multiplier=self.noise_multiplier,
            )
        else:
            gaussian = dp_accounting.GaussianDpEvent(self.noise_multiplier)
            if self.sampling_probability < 1:
                gaussian = dp_accounting.PoissonSampledDpEvent(
                    self.sampling_probability, gaussian
                )
        return dp_accounting.SelfComposedDpEvent(gaussian, self.count)


@dataclass(frozen=True, kw_only=True)
class PrivacyProfile:
    """ε as a function of δ: the whole guarantee, of which a budget is one point.

    Attributes:
        relation: Against which change of the data.
        deltas: Falling.
        epsilons: The ε of each δ, rising; infinity where nothing bounds it.
    """

    relation: Relation
    deltas: tuple[float, ...]
    epsilons: tuple[float, ...]


def epsilon(
    charges: Iterable[Charge],
    delta: float,
    relation: Relation,
    interval: float | None = None,
) -> float:
    """The ε of everything in `charges` together, at this δ.

    Guarantee: the composed mechanisms are (ε, δ)-differentially private for the
    relation, whichever run they belong to and in whatever order they were chosen.

    Args:
        interval: Of the grid of losses; by default the coarsest multiple of `FINE` that
            adds about 0.01 % to ε.

    Returns:
        ε ≥ 0; 0 when nothing was charged; infinity when nothing bounds it.
    """
    loss = privacy_loss(charges, relation, interval=interval)
    return 0.0 if loss is None else float(loss.epsilons([delta])[0])


def delta_at(charges: Iterable[Charge], epsilon: float, relation: Relation) -> float:
    """The δ of everything in `charges` together, at this ε ≥ 0.

    Guarantee: as `epsilon`.
    """
    loss = privacy_loss(charges, relation)
    return 0.0 if loss is None else float(loss.deltas([epsilon])[0])


def privacy_profile(
    charges: Iterable[Charge],
    relation: Relation,
    deltas: Sequence[float] = PROFILE_DELTAS,
) -> PrivacyProfile:
    """ε at many δ, from one composition.

    Guarantee: as `epsilon`, at every point, and at all of them together.
    """
    falling = sorted(deltas, reverse=True)
    loss = privacy_loss(charges, relation)
    found = [0.0] * len(falling) if loss is None else loss.epsilons(falling).tolist()
    return PrivacyProfile(
        relation=relation, deltas=tuple(falling), epsilons=tuple(found)
    )


def privacy_loss(
    charges: Iterable[Charge],
    relation: Relation,
    *,
    size: int = 1,
    interval: float | None = None,
) -> PrivacyLoss | None:
    """The composed privacy loss of `charges`; None when nothing was charged.

    Guarantee: dominates the composition of the charged mechanisms for a change of
    `size` units, of at most `population` in all.

    Args:
        size: How many units change together.
    """
    gathered = _gathered(charges)
    if not gathered:
        return None
    # PRIVACY: what is no mechanism at all, or has no noise, bounds nothing.
    if not all(_bounds_something(charge, size) for charge in gathered):
        return UNBOUNDED
    grid = interval or _interval(gathered, relation, size)
    return compose(
        [(_single(charge, relation, size, grid), charge.count) for charge in gathered]
    )


def _bounds_something(charge: Charge, size: int) -> bool:
    enough = NO_NOISE * size <= charge.noise_multiplier < math.inf
    return enough and 0 < charge.sampling_probability <= 1


def _gathered(charges: Iterable[Charge]) -> list[Charge]:
    """Equal charges added up; full Gaussian releases made one with less noise."""
    counts: dict[Charge, int] = {}
    for charge in charges:
        if charge.count > 0 and charge.sampling_probability != 0:
            kind = replace(charge, count=1)
            counts[kind] = counts.get(kind, 0) + charge.count
    return [
        replace(kind, noise_multiplier=kind.noise_multiplier / math.sqrt(count))
        if kind.sampling_probability == 1 and kind.batch_cap is None
        else replace(kind, count=count)
        for kind, count in counts.items()
    ]


def _single(
    charge: Charge, relation: Relation, size: int, interval: float
) -> PrivacyLoss:
    """The privacy loss of one use.

    Guarantee: dominates the mechanism with its cap. While the other units alone leave
    room for the `size` changing ones, nothing is cut, and the plain pair dominates.
    Else, once the kept part of the other units is fixed, each changing unit that was
    sampled, a binomial number, moves the sum by one sensitivity itself and by at most
    one more through the unit that it pushes out. Which case holds depends on the other
    units alone, and mixing two cases at most mixes their δ(ε). Exchanged units displace
    nobody: their samples are of one size.
    """
    noise, q = charge.noise_multiplier, charge.sampling_probability
    exchanged = relation is Relation.REPLACE_ONE
    if exchanged and size > 1:
        return group_exchange(noise, q, size, interval)
    pair = exchange(noise, q) if exchanged else removal(noise, q, size)
    loss = pair.discretised(interval)
    if charge.batch_cap is None:
        return loss
    others, room = max(charge.population - size, 0), charge.batch_cap - size
    share = float(binom.sf(room, others, q))
    if share == 0.0:
        return loss
    # PRIVACY: the cap is part of the accounting. Twice the sensitivity is half the
    # noise; for one unit, dp-accounting takes the looser bound of an exchange.
    halved = replace(charge, noise_multiplier=noise / 2, count=1)
    if size == 1:
        doubled, relation = exchange(noise / 2, q), Relation.REPLACE_ONE
    else:
        doubled = removal(noise / 2, q, size)
    # So rare a case needs no fine grid, and no far reach.
    stride = max(1, int(_interval([halved], relation, size) / interval))
    reach = min(REACH, -float(ndtri(min(0.5, 1e-21 / share))))
    return loss.mixed_with(doubled.discretised(interval * stride, reach), share)


def _interval(charges: Sequence[Charge], relation: Relation, size: int) -> float:
    """The coarsest grid that adds about `ROUNDING_SHARE` to ε, a multiple of `FINE`.

    Rounding to a grid adds at most interval² / 6 to a loss's variance, on average, and
    ε grows like the square root of the sum's.
    """
    steps = sum(charge.count for charge in charges)
    variance = size**2 * central_limit_variance(charges, relation)
    wanted = math.sqrt(12 * ROUNDING_SHARE * variance / steps)
    noise = min(charge.noise_multiplier for charge in charges)
    largest_loss = (size / noise) ** 2 / 2 + REACH * size / noise
    affordable = size * largest_loss / MOST_LOSSES
    grid = max(min(wanted, LARGEST_INTERVAL), affordable)
    return float(FINE * 2 ** math.floor(math.log2(max(grid / FINE, 1.0))))


def central_limit_variance(charges: Iterable[Charge], relation: Relation) -> float:
    """The variance of the privacy loss that many small steps tend to: μ² of Gaussian
    differential privacy (Bu et al. 2020, theorem 5, with its χ² for other relations).

    An estimate, exact for full releases.
    """
    total = 0.0
    exchanged = relation is Relation.REPLACE_ONE
    for charge in charges:
        q = charge.sampling_probability
        precision = min(charge.noise_multiplier**-2, 500.0)
        if q == 1:
            total += charge.count * precision * (4 if exchanged else 1)
        elif exchanged:
            total += charge.count * 4 * q**2 * math.sinh(precision)
        else:
            total += charge.count * q**2 * math.expm1(precision)
    return total


def calibrate(
    charges_at: Callable[[float], Iterable[Charge]],
    target: float,
    delta: float,
    relation: Relation,
) -> float:
    """The smallest noise multiplier found whose charges stay within `target`.

    Guarantee: `epsilon(charges_at(result), delta, relation)` was evaluated and is
    ≤ `target`, and so it is on every finer grid that holds the losses of this one.

    Args:
        charges_at: All charges of the run, as a function of the noise multiplier;
            their ε must fall as it rises.
        target: ε > 0.

    Raises:
        UserError: when no noise multiplier up to 3,000 keeps within the target.
    """
    aim = target * (1 - MARGIN)

    def excess(logarithm: float) -> float:
        """log(ε / aim) at this log noise: nearly a straight line."""
        found = epsilon(charges_at(math.exp(logarithm)), delta, relation)
        return math.log(min(max(found / aim, 1e-12), 1e12))

    def estimated_excess(logarithm: float) -> float:
        """The same in the central limit, at no cost."""
        charges = charges_at(math.exp(logarithm))
        variance = central_limit_variance(charges, relation)
        return math.log(max(variance, 1e-300) / wanted)

    wanted = gaussian_mu(aim, delta) ** 2
    ends = math.log(SMALLEST_NOISE), math.log(LARGEST_NOISE)
    if estimated_excess(ends[0]) <= 0:
        guess = ends[0]
    elif estimated_excess(ends[1]) >= 0:
        guess = ends[1]
    else:
        guess = brentq(estimated_excess, *ends, xtol=1e-3)
    noise = math.exp(_root(excess, guess, ends))
    while epsilon(charges_at(noise), delta, relation) > aim:
        # PRIVACY: what is returned was evaluated, and keeps the target.
        noise *= 1 + _TOLERANCE
    return noise


def _root(
    excess: Callable[[float], float], guess: float, ends: tuple[float, float]
) -> float:
    """Where the falling function `excess` crosses zero, from a first guess.

    The lower end, when it is below zero everywhere.

    Raises:
        UserError: when it is above zero everywhere.
    """
    known: dict[float, float] = {}

    def remembered(at: float) -> float:
        if at not in known:
            known[at] = excess(at)
        return known[at]

    low = high = guess
    width = _FIRST_WIDTH
    while remembered(high) > 0:
        if high >= ends[1]:
            raise UserError(
                "No amount of noise keeps within this epsilon: raise epsilon, or use "
                "fewer steps or a smaller batch."
            )
        low, high, width = high, min(high + width, ends[1]), 2 * width
    while remembered(low) <= 0:
        if low <= ends[0]:
            return low
        low, high, width = max(low - width, ends[0]), low, 2 * width
    return float(brentq(remembered, low, high, xtol=_TOLERANCE))
