"""From noise to ε and back, by privacy loss distributions.

Everything here is arithmetic on public constants; no record comes near.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import dp_accounting
import scipy.optimize
from dp_accounting import NeighboringRelation
from dp_accounting.pld import PLDAccountant

from core.errors import UserError
from core.privacy.budget import Relation

FINE = 1e-4
"""Discretisation of the privacy loss for figures that are claimed."""

COARSE = 1e-3
"""For previews and searches: up to 0.3 % conservative, several times faster."""

SMALLEST_NOISE, LARGEST_NOISE = 0.3, 3000.0
"""Range of the noise multipliers searched. Below 0.3 a step protects next to nothing,
and the accountant needs gigabytes."""

_RELATIONS = {
    Relation.ADD_OR_REMOVE_ONE: NeighboringRelation.ADD_OR_REMOVE_ONE,
    Relation.REPLACE_SPECIAL: NeighboringRelation.REPLACE_SPECIAL,
    Relation.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
}


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
        """The same without the cap: a shade less ε, four times faster to evaluate.

        For searches and previews; a claim is evaluated as it is.
        """
        return replace(self, batch_cap=None)

    def event(self) -> dp_accounting.DpEvent:
        """The dp-accounting event of all `count` uses."""
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


def epsilon(
    charges: Iterable[Charge],
    delta: float,
    relation: Relation,
    interval: float = FINE,
) -> float:
    """The ε of everything in `charges` together, at this δ.

    Guarantee: the composed mechanisms are (ε, δ)-differentially private for the
    relation. Privacy loss distributions are discretised pessimistically
    (connect-the-dots, Doroshenko et al. 2022), so the figure is an upper bound.

    Returns:
        ε ≥ 0; 0 when nothing was charged; infinity when nothing bounds it.
    """
    accountant = PLDAccountant(
        neighboring_relation=_RELATIONS[relation],
        value_discretization_interval=interval,
    )
    for charge in charges:
        if charge.count > 0:
            accountant.compose(charge.event())
    return float(accountant.get_epsilon(delta))


def calibrate(
    charges_at: Callable[[float], Iterable[Charge]],
    target: float,
    delta: float,
    relation: Relation,
) -> float:
    """The smallest noise multiplier found whose charges stay within `target`.

    Guarantee: `epsilon(charges_at(result), delta, relation)` at the fine discretisation
    was evaluated and is ≤ `target`.

    Args:
        charges_at: All charges of the run, as a function of the noise multiplier;
            their ε must fall as it rises.
        target: ε > 0.

    Raises:
        UserError: when no noise multiplier up to 3,000 keeps within the target.
    """

    def excess(logarithm: float) -> float:
        """log(ε / target) at this log noise: nearly a straight line."""
        charges = [charge.uncapped() for charge in charges_at(math.exp(logarithm))]
        found = epsilon(charges, delta, relation, COARSE)
        return math.log(max(found, 1e-12) / target)

    noise = math.exp(_root(excess))
    while epsilon(charges_at(noise), delta, relation, FINE) > target:
        # PRIVACY: what is returned keeps the target at the claimed discretisation.
        noise *= 1.001
    return noise


def _root(excess: Callable[[float], float]) -> float:
    """Where the falling function `excess` of the log noise crosses zero, to 0.05 %.

    The bracket is walked to from above, because small noise is slow to evaluate.
    """
    smallest, largest = math.log(SMALLEST_NOISE), math.log(LARGEST_NOISE)
    known: dict[float, float] = {}

    def remembered(at: float) -> float:
        if at not in known:
            known[at] = excess(at)
        return known[at]

    high = math.log(2.0)
    while remembered(high) > 0:
        high += math.log(2)
        if high > largest:
            raise UserError(
                "No amount of noise keeps within this epsilon: raise epsilon, or use "
                "fewer steps or a smaller batch."
            )
    low = high
    while remembered(low) <= 0:
        if low <= smallest:
            return smallest
        high, low = low, max(low - math.log(1.7), smallest)
    return float(scipy.optimize.brentq(remembered, low, high, xtol=5e-4, rtol=1e-6))
