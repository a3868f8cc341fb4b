"""What a plan's charges mean in other terms: for a group, for the other unit, as μ.

Everything here is arithmetic on public constants; no record comes near.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from core.privacy.accounting import (
    Charge,
    central_limit_variance,
    epsilon,
    privacy_loss,
)
from core.privacy.budget import Relation, UnitKind
from core.privacy.gaussian import gaussian_mu

SMALLEST_DELTA = 1e-10
"""Down to where `dominating_mu` compares."""

_SPLITS = 99


def group_epsilon(
    charges: Iterable[Charge], size: int, delta: float, relation: Relation
) -> float:
    """The ε of `size` units that change together, at this δ.

    Guarantee: a proven upper bound, under the cap as well. Added, removed or blanked
    out units are accounted by the pair in which a binomial number of them moves the
    sum, exact up to rounding (Ganesh 2024, arXiv 2401.10294). For exchanged ones it is
    the smaller of two bounds: the sampled number given away, or the units first removed
    and then others added; P(S) ≤ e^ε₁ · R(S) + δ₁ and R(S) ≤ e^ε₂ · Q(S) + δ₂ give
    ε₁ + ε₂ at δ₁ + e^ε₁ · δ₂, at the best of many divisions of δ.

    Args:
        size: ≥ 1, fewer than the charges' population.

    Returns:
        ε ≥ 0; infinity when nothing bounds it.
    """
    if size < 1:
        raise ValueError("a group has one unit or more")
    charges = tuple(charges)
    if size == 1:
        return epsilon(charges, delta, relation)
    loss = privacy_loss(charges, relation, size=size)
    if loss is None:
        return 0.0
    found = float(loss.epsilons([delta])[0])
    if relation is not Relation.REPLACE_ONE:
        return found
    return min(found, _removed_then_added(charges, size, delta))


def _removed_then_added(charges: Iterable[Charge], size: int, delta: float) -> float:
    loss = privacy_loss(charges, Relation.ADD_OR_REMOVE_ONE, size=size)
    assert loss is not None
    shares = np.arange(1, _SPLITS + 1) / (_SPLITS + 1)
    first = loss.removed.epsilons((1 - shares) * delta)
    # PRIVACY: the second δ counts e^ε₁ fold.
    second = loss.added.epsilons(shares * delta * np.exp(-first))
    return float(np.min(first + second))


def other_unit_epsilon(
    charges: Iterable[Charge],
    unit: UnitKind,
    images: int,
    delta: float,
    relation: Relation,
) -> float:
    """The ε that the same charges give the unit that was not chosen, at this δ.

    Guarantee: a proven upper bound.

    - Unit image: a patient with `images` images is a group of so many units; see
      `group_epsilon`, under the plan's relation.
    - Unit patient: a single image of a patient. When the patient has other images, its
      presence can turn the patient's clipped vector into any other of norm ≤ C, a
      change of up to 2C: that is the exchange of a unit. When it is the only one, its
      presence is the unit's, which an exchange bounds too, because a vector of zero is
      one of those that a unit may be exchanged for. So the bound is that of
      REPLACE_ONE, whatever the plan's relation is, and whether the image is added,
      blanked out or exchanged. It may exceed the plan's own ε: that covers the patient
      as a whole against their absence.

    Args:
        unit: The plan's.
        images: m ≥ 1 of the patient that is asked about; for the unit patient it does
            not matter.
    """
    if unit is UnitKind.PATIENT:
        return epsilon(charges, delta, Relation.REPLACE_ONE)
    return group_epsilon(charges, images, delta, relation)


def central_limit_mu(charges: Iterable[Charge], relation: Relation) -> float:
    """μ of the Gaussian that the charges' privacy loss tends to: √Σ variance.

    An estimate, never a bound: good for many steps of much noise, too small else. Exact
    when every unit takes part in every release (Bu et al. 2020; Dong et al. 2022).
    """
    return math.sqrt(central_limit_variance(charges, relation))


def dominating_mu(charges: Iterable[Charge], relation: Relation) -> float:
    """The smallest μ whose Gaussian is no more private than the charges at any ε ≥ 0.

    An estimate, never a bound: the charges' δ(ε) is compared down to δ = 1e-10 only,
    and at 60 points. 0 when nothing was charged, infinity when nothing bounds it.
    """
    loss = privacy_loss(charges, relation)
    if loss is None:
        return 0.0
    largest = float(loss.deltas([0.0])[0])
    if largest <= SMALLEST_DELTA:
        return 0.0
    deltas = np.geomspace(largest, SMALLEST_DELTA, 60)
    epsilons = loss.epsilons(deltas)
    if not np.isfinite(epsilons).all():
        return math.inf
    points = zip(epsilons.tolist(), deltas.tolist(), strict=True)
    return max(gaussian_mu(at, delta) for at, delta in points)
