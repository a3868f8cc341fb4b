"""What the same charges mean for groups, for the other unit, and as μ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from scipy.stats import binom, norm

from core.privacy import comparison
from core.privacy.accounting import FINE, Charge, delta_at, epsilon, privacy_loss
from core.privacy.budget import Relation, UnitKind
from core.privacy.comparison import (
    central_limit_mu,
    dominating_mu,
    group_epsilon,
    other_unit_epsilon,
)
from core.privacy.gaussian import gaussian_delta, gaussian_mu

ADD_REMOVE, BLANK, EXCHANGE = (
    Relation.ADD_OR_REMOVE_ONE,
    Relation.REPLACE_SPECIAL,
    Relation.REPLACE_ONE,
)
DELTA = 1e-5
STEPS = Charge(
    noise_multiplier=2.0,
    count=20,
    sampling_probability=0.1,
    population=500,
    batch_cap=91,
)
RELEASE = Charge(noise_multiplier=8.0, count=1)


def gaussian_epsilon(mu: float, delta: float) -> float:
    low, high = 0.0, 1e4
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
        )
    return high


@pytest.mark.parametrize("relation", list(Relation))
def test_a_group_of_one_is_the_unit(relation):
    charges = [STEPS, RELEASE]
    assert group_epsilon(charges, 1, DELTA, relation) == epsilon(
        charges, DELTA, relation
    )


@pytest.mark.parametrize("size", [2, 5])
def test_a_group_in_a_full_release_is_that_many_sensitivities(size):
    exact = gaussian_epsilon(size / 8, DELTA)
    found = group_epsilon([RELEASE], size, DELTA, ADD_REMOVE)
    assert exact <= found <= exact * 1.001
    assert group_epsilon([RELEASE], size, DELTA, BLANK) == found
    exchanged = group_epsilon([RELEASE], size, DELTA, EXCHANGE)
    twice = gaussian_epsilon(2 * size / 8, DELTA)
    assert twice <= exchanged <= twice * 1.001


@pytest.mark.parametrize("size", [2, 4])
def test_a_sampled_group_is_the_mixture_of_dp_accounting(size):
    plain = STEPS.uncapped()
    accountant = PLDAccountant(value_discretization_interval=2e-3)
    weights = binom.pmf(np.arange(size + 1), size, plain.sampling_probability)
    event = dp_event.MixtureOfGaussiansDpEvent(
        plain.noise_multiplier, [float(n) for n in range(size + 1)], list(weights)
    )
    accountant.compose(event, plain.count)
    loss = privacy_loss([plain], ADD_REMOVE, size=size, interval=2e-3)
    assert loss.epsilons([DELTA])[0] == pytest.approx(
        accountant.get_epsilon(DELTA), rel=1e-6
    )
    assert group_epsilon([plain], size, DELTA, ADD_REMOVE) == pytest.approx(
        accountant.get_epsilon(DELTA), rel=1e-3
    )


def generic_group_epsilon(size: int, charges: list[Charge], relation: Relation):
    """k ε at δ (e^(kε) − 1) / (e^ε − 1), at the best point of the profile."""
    candidates = np.linspace(0.01, 20, 2_000)
    deltas = privacy_loss(charges, relation).deltas(candidates)
    grown = deltas * np.expm1(size * candidates) / np.expm1(candidates)
    return size * candidates[np.flatnonzero(grown <= DELTA)[0]]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("relation", [ADD_REMOVE, BLANK])
def test_a_group_is_better_than_the_generic_inequality_says(size, relation):
    charges = [STEPS, RELEASE]
    found = group_epsilon(charges, size, DELTA, relation)
    generic = generic_group_epsilon(size, charges, relation)
    assert size * epsilon(charges, DELTA, relation) < found < generic


def test_larger_groups_lose_more():
    found = [group_epsilon([STEPS], size, DELTA, ADD_REMOVE) for size in (1, 2, 3, 8)]
    assert found == sorted(found) and found[0] < found[-1] < math.inf
    exchanged = [group_epsilon([STEPS], size, DELTA, EXCHANGE) for size in (1, 2, 3)]
    assert all(a > b for a, b in zip(exchanged, found, strict=False))
    assert exchanged == sorted(exchanged)


def test_the_cap_is_part_of_a_groups_price():
    """Under a low cap each of the group may push another unit out."""
    low = Charge(**(vars(STEPS) | {"batch_cap": 60}))
    plain = group_epsilon([STEPS.uncapped()], 3, DELTA, ADD_REMOVE)
    assert plain < group_epsilon([STEPS], 3, DELTA, ADD_REMOVE) < plain * 1.01
    assert group_epsilon([low], 3, DELTA, ADD_REMOVE) > plain * 1.2
    # In one step: the plain pair, but for the chance that 58 of 497 others are drawn.
    one = Charge(**(vars(low) | {"count": 1}))
    chance = binom.sf(57, 497, 0.1)
    halved = Charge(**(vars(one) | {"noise_multiplier": 1.0}))
    parts = [
        privacy_loss([charge.uncapped()], ADD_REMOVE, size=3, interval=FINE)
        for charge in (one, halved)
    ]
    mixed = [
        (1 - chance) * plain + chance * doubled
        for plain, doubled in zip(
            *(part.deltas([0.0, 1.0, 3.0]) for part in parts), strict=True
        )
    ]
    capped = privacy_loss([one], ADD_REMOVE, size=3, interval=FINE)
    assert capped.deltas([0.0, 1.0, 3.0]) == pytest.approx(mixed, rel=2e-3)


def test_an_exchanged_group_is_removed_and_others_are_added():
    """The second δ counts e^ε₁ fold; no division of δ may promise more than that."""
    charges = [Charge(noise_multiplier=1.0, count=30, sampling_probability=0.02)]
    found = group_epsilon(charges, 2, DELTA, EXCHANGE)
    loss = privacy_loss(charges, ADD_REMOVE, size=2)
    best = math.inf
    for first in np.linspace(0.01, 15, 1_500):
        rest = DELTA - loss.removed.deltas(np.array([first]))[0]
        if rest > 0:
            second = loss.added.epsilons(np.array([rest * math.exp(-first)]))[0]
            best = min(best, first + second)
    assert best * 0.999 <= found <= best * 1.03
    # Here it beats giving away how many were sampled.
    given_away = privacy_loss(charges, EXCHANGE, size=2).epsilons([DELTA])[0]
    assert found < 0.9 * given_away


def test_where_chaining_fails_the_sampled_number_is_given_away():
    charges = [Charge(noise_multiplier=0.5, count=3)]
    exact = gaussian_epsilon(2 * 2 * math.sqrt(3) / 0.5, DELTA)
    assert group_epsilon(charges, 2, DELTA, EXCHANGE) == pytest.approx(exact, rel=1e-3)


def test_groups_of_nobody_and_of_nothing():
    with pytest.raises(ValueError, match="one unit or more"):
        group_epsilon([STEPS], 0, DELTA, ADD_REMOVE)
    for relation in Relation:
        assert group_epsilon([], 3, DELTA, relation) == 0
    # Everybody and more: still a bound.
    tiny = Charge(**(vars(STEPS) | {"population": 4, "batch_cap": 2}))
    assert epsilon([tiny], DELTA, ADD_REMOVE) < group_epsilon(
        [tiny], 9, DELTA, ADD_REMOVE
    )


def test_a_large_group_needs_no_more_memory_than_a_small_one():
    """A thousand times the losses, on a grid that is so much coarser."""
    loss = privacy_loss([STEPS], ADD_REMOVE, size=40)
    assert len(loss.removed.masses) < 2**21


@pytest.mark.parametrize("relation", list(Relation))
def test_a_patient_under_a_plan_for_images_is_a_group(relation):
    found = other_unit_epsilon([STEPS], UnitKind.IMAGE, 3, DELTA, relation)
    assert found == group_epsilon([STEPS], 3, DELTA, relation)
    one = other_unit_epsilon([STEPS], UnitKind.IMAGE, 1, DELTA, relation)
    assert one == epsilon([STEPS], DELTA, relation)


@pytest.mark.parametrize("relation", list(Relation))
def test_an_image_under_a_plan_for_patients_turns_its_patients_vector(relation):
    """Up to 2C, when the patient has others: never less than an exchange."""
    charges = [STEPS, RELEASE]
    found = other_unit_epsilon(charges, UnitKind.PATIENT, 3, DELTA, relation)
    assert found == epsilon(charges, DELTA, EXCHANGE)
    assert found >= epsilon(charges, DELTA, relation)


def test_an_image_can_indeed_turn_its_patients_vector():
    """The example behind the bound: two images of one patient, clipped together."""

    def clipped(images: list[np.ndarray]) -> np.ndarray:
        mean = np.mean(images, axis=0)
        return mean / max(1.0, np.linalg.norm(mean))

    quiet, loud = np.array([-1.0, 0.0]), np.array([1e6, 0.0])
    moved = np.linalg.norm(clipped([quiet, loud]) - clipped([quiet]))
    assert moved == pytest.approx(2.0)
    # So in a full release the image gets no better than this.
    exact = gaussian_epsilon(moved / 8, DELTA)
    found = other_unit_epsilon([RELEASE], UnitKind.PATIENT, 2, DELTA, ADD_REMOVE)
    assert exact <= found <= exact * 1.001


def test_mu_of_full_releases_is_exact():
    charges = [Charge(noise_multiplier=4.0, count=3), RELEASE]
    exact = math.sqrt(3 / 16 + 1 / 64)
    assert central_limit_mu(charges, ADD_REMOVE) == pytest.approx(exact)
    assert exact <= dominating_mu(charges, ADD_REMOVE) <= exact * 1.001
    assert central_limit_mu(charges, EXCHANGE) == pytest.approx(2 * exact)
    assert dominating_mu(charges, EXCHANGE) == pytest.approx(2 * exact, rel=1e-3)


def test_mu_of_many_noisy_steps_tends_to_the_central_limit():
    steps = Charge(noise_multiplier=8.0, count=4_000, sampling_probability=0.1)
    limit = central_limit_mu([steps], ADD_REMOVE)
    assert limit == pytest.approx(0.1 * math.sqrt(4_000 * math.expm1(1 / 64)))
    assert dominating_mu([steps], ADD_REMOVE) == pytest.approx(limit, rel=0.01)


def test_the_dominating_gaussian_dominates_and_a_smaller_one_does_not():
    charges = [Charge(noise_multiplier=0.7, count=30, sampling_probability=0.05)]
    mu = dominating_mu(charges, ADD_REMOVE)
    assert mu > 1.5 * central_limit_mu(charges, ADD_REMOVE)
    candidates = np.linspace(0, 16, 80)
    ours = [delta_at(charges, value, ADD_REMOVE) for value in candidates]
    larger = [gaussian_delta(mu * 1.01, value) for value in candidates]
    smaller = [gaussian_delta(mu * 0.99, value) for value in candidates]
    seen = [delta > comparison.SMALLEST_DELTA for delta in ours]
    assert all(a <= b for a, b, ok in zip(ours, larger, seen, strict=True) if ok)
    assert any(a > b for a, b, ok in zip(ours, smaller, seen, strict=True) if ok)


def test_mu_of_nothing_and_of_everything():
    assert central_limit_mu([], ADD_REMOVE) == 0 == dominating_mu([], ADD_REMOVE)
    loud = Charge(noise_multiplier=0.001, count=1)
    assert dominating_mu([loud], ADD_REMOVE) == math.inf
    faint = Charge(noise_multiplier=3e3, count=1, sampling_probability=1e-9)
    assert dominating_mu([faint], ADD_REMOVE) == 0


@pytest.mark.parametrize("mu", [0.01, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("value", [0.0, 0.3, 6.0])
def test_gaussian_figures_agree_with_the_formula_and_each_other(mu, value):
    delta = gaussian_delta(mu, value)
    plain = norm.cdf(mu / 2 - value / mu) - math.exp(value) * norm.cdf(
        -value / mu - mu / 2
    )
    assert delta == pytest.approx(plain, abs=1e-15)
    if 1e-12 < delta < 1 - 1e-9:
        assert gaussian_mu(value, delta) == pytest.approx(mu, rel=1e-6)


def test_gaussian_figures_at_their_ends():
    assert gaussian_delta(0.0, 1.0) == 0
    assert gaussian_delta(1.0, 2_000.0) == 0
    assert 0 < gaussian_mu(0.0, 1e-12) < 1e-7
