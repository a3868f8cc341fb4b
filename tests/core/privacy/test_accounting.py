"""ε is an upper bound, and what is calibrated keeps it."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting import NeighboringRelation
from dp_accounting.mechanism_calibration import (
    ExplicitBracketInterval,
    calibrate_dp_mechanism,
)
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.stats import binom, norm

from core.errors import UserError
from core.privacy import accounting
from core.privacy.accounting import (
    COARSE,
    FINE,
    Charge,
    calibrate,
    delta_at,
    epsilon,
    privacy_profile,
)
from core.privacy.budget import Relation
from core.privacy.sampling import batch_cap

ADD_REMOVE, BLANK, EXCHANGE = (
    Relation.ADD_OR_REMOVE_ONE,
    Relation.REPLACE_SPECIAL,
    Relation.REPLACE_ONE,
)
DELTA = 1e-5


def steps(noise: float, count: int, population: int, batch: int) -> Charge:
    q = batch / population
    return Charge(
        noise_multiplier=noise,
        count=count,
        sampling_probability=q,
        population=population,
        batch_cap=batch_cap(population, q),
    )


def theirs(charges: list[Charge], delta: float, relation: Relation, interval: float):
    """ε by dp-accounting itself."""
    accountant = PLDAccountant(NeighboringRelation[relation.name], interval)
    for charge in charges:
        accountant.compose(charge.event())
    return accountant.get_epsilon(delta)


def analytic_gaussian(noise: float, delta: float) -> float:
    """ε of one Gaussian (Balle & Wang 2018, theorem 8)."""

    def excess(value: float) -> float:
        first = norm.cdf(0.5 / noise - value * noise)
        second = math.exp(value) * norm.cdf(-0.5 / noise - value * noise)
        return first - second - delta

    return brentq(excess, 0, 200)


@pytest.mark.parametrize("noise", [0.7, 2.0, 10.0])
def test_one_full_release_is_the_analytic_gaussian(noise):
    release = Charge(noise_multiplier=noise, count=1)
    exact = analytic_gaussian(noise, DELTA)
    assert exact <= epsilon([release], DELTA, ADD_REMOVE, FINE) <= exact + 2 * FINE
    assert exact <= epsilon([release], DELTA, BLANK, FINE) <= exact + 2 * FINE
    twice = analytic_gaussian(noise / 2, DELTA)
    assert twice <= epsilon([release], DELTA, EXCHANGE, FINE) <= twice + 2 * FINE


def test_equal_releases_compose_like_one_with_less_noise():
    four = epsilon([Charge(noise_multiplier=4.0, count=4)], DELTA, ADD_REMOVE, COARSE)
    one = Charge(noise_multiplier=4.0, count=1)
    apart = epsilon([one] * 4, DELTA, ADD_REMOVE, COARSE)
    exact = analytic_gaussian(2.0, DELTA)
    assert exact <= four <= exact + 2 * COARSE
    assert exact <= apart <= exact + 8 * COARSE


def test_runs_with_different_settings_add_up_as_elsewhere():
    runs = [
        steps(1.5, 20, 500, 50),
        Charge(noise_multiplier=6.0, count=1),
        steps(3.0, 100, 500, 25),
        Charge(noise_multiplier=9.0, count=2),
    ]
    together = epsilon(runs, DELTA, ADD_REMOVE, COARSE)
    assert together == pytest.approx(theirs(runs, DELTA, ADD_REMOVE, COARSE), rel=1e-6)
    assert together > max(epsilon([run], DELTA, ADD_REMOVE) for run in runs)
    assert together < sum(epsilon([run], DELTA, ADD_REMOVE) for run in runs)


def test_a_run_in_pieces_is_the_run():
    pieces = [steps(2.0, count, 500, 50) for count in (1, 7, 12)]
    assert epsilon(pieces, DELTA, ADD_REMOVE) == epsilon(
        [steps(2.0, 20, 500, 50)], DELTA, ADD_REMOVE
    )


def test_the_cap_costs_nothing_visible_and_never_lowers_epsilon():
    capped = steps(1.5, 20, 500, 50)
    with_cap = epsilon([capped], DELTA, ADD_REMOVE, COARSE)
    without = epsilon([capped.uncapped()], DELTA, ADD_REMOVE, COARSE)
    assert without < with_cap <= without * 1.001


@pytest.mark.parametrize("deviations", [1, 2, 3])
@pytest.mark.parametrize("relation", [ADD_REMOVE, EXCHANGE])
def test_a_low_cap_is_accounted(deviations, relation):
    """Whoever is drawn may push another one out: a second sensitivity."""
    mean, deviation = 50.0, math.sqrt(50 * 0.9)
    cap = math.ceil(mean + deviations * deviation)
    charge = replace(steps(1.5, 20, 500, 50), batch_cap=cap)
    found = epsilon([charge], DELTA, relation, COARSE)
    reference = theirs([charge], DELTA, relation, COARSE)
    # A little above: it holds for every number of units up to the declared one.
    assert reference <= found <= reference * 1.06
    assert found > 1.02 * epsilon([charge.uncapped()], DELTA, relation, COARSE)


def test_the_cap_is_priced_by_how_often_others_fill_the_sample():
    """The plain pair, but for the chance that a cap's worth of others is drawn."""
    charge = replace(steps(2.0, 1, 500, 50), batch_cap=60)
    chance = binom.sf(59, 499, 0.1)
    plain = delta_at([charge.uncapped()], 0.5, ADD_REMOVE)
    doubled = replace(charge, noise_multiplier=1.0).uncapped()
    mixed = (1 - chance) * plain + chance * delta_at([doubled], 0.5, EXCHANGE)
    assert delta_at([charge], 0.5, ADD_REMOVE) == pytest.approx(mixed, rel=1e-3)


@pytest.mark.parametrize(
    ("population", "batch", "count", "delta", "published"),
    [
        (50_000, 16_384, 200, 1e-5, 2.451),
        (302_436, 16_384, 200, 3e-6, 0.764),
        (60_000, 4_096, 4_000, 1e-5, 2.282),
    ],
)
def test_noise_for_epsilon_ten_is_what_others_compute(
    population, batch, count, delta, published
):
    """Published check values: calibration meets them within 0.1 %."""
    found = calibrate(
        lambda noise: [steps(noise, count, population, batch)], 10, delta, ADD_REMOVE
    )
    assert found == pytest.approx(published, rel=1e-3)


def test_the_papers_own_run():
    """σ = 2.852 for ε = 9.99 by Rényi accounting; privacy losses allow less."""
    run = steps(2.852, 4_000, 50_000, 4_096)
    looser = dp_accounting.rdp.RdpAccountant()
    looser.compose(run.uncapped().event())
    assert looser.get_epsilon(DELTA) == pytest.approx(9.99, abs=0.01)
    assert 9.0 < epsilon([run], DELTA, ADD_REMOVE) < 9.5


def test_monotone_in_everything():
    base = epsilon([steps(2.0, 20, 500, 50)], DELTA, ADD_REMOVE, COARSE)
    assert epsilon([steps(2.2, 20, 500, 50)], DELTA, ADD_REMOVE, COARSE) < base
    assert epsilon([steps(2.0, 21, 500, 50)], DELTA, ADD_REMOVE, COARSE) > base
    assert epsilon([steps(2.0, 20, 500, 55)], DELTA, ADD_REMOVE, COARSE) > base
    assert epsilon([steps(2.0, 20, 500, 50)], 1e-6, ADD_REMOVE, COARSE) > base
    more = [steps(2.0, 20, 500, 50), Charge(noise_multiplier=9.0, count=1)]
    assert epsilon(more, DELTA, ADD_REMOVE, COARSE) > base


def test_the_finer_figure_is_the_smaller_bound():
    charges = [steps(4.0, 20, 500, 50)]
    grids = [FINE * factor for factor in (1, 2, 8, 32)]
    found = [epsilon(charges, DELTA, ADD_REMOVE, grid) for grid in grids]
    assert found == sorted(found)
    assert found[-1] <= found[0] + 2 * grids[-1]


@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize(
    "charges",
    [
        [steps(0.5, 100, 10_000, 64)],
        [steps(2.5, 200, 50_000, 16_384)],
        [steps(8.0, 2_000, 10_000, 256), Charge(noise_multiplier=3.0, count=1)],
        [steps(60.0, 10, 10_000, 256)],
    ],
    ids=["little noise", "large batch", "two kinds", "much noise"],
)
def test_the_grid_chosen_by_itself_adds_next_to_nothing(charges, relation):
    fine = epsilon(charges, DELTA, relation, FINE)
    chosen = epsilon(charges, DELTA, relation)
    assert fine * (1 - 1e-9) <= chosen <= fine * 1.0005


@pytest.mark.parametrize(
    "charge",
    [Charge(noise_multiplier=3.0, count=1), steps(2.0, 20, 500, 50)],
    ids=["release", "steps"],
)
def test_exchanging_a_record_costs_more_than_removing_one(charge):
    one = epsilon([charge], DELTA, ADD_REMOVE, COARSE)
    both = epsilon([charge], DELTA, EXCHANGE, COARSE)
    assert 1.5 * one < both < 3 * one
    assert epsilon([charge], DELTA, BLANK, COARSE) == one


def test_nothing_charged_is_epsilon_zero():
    for charges in ([], [Charge(noise_multiplier=1.0, count=0)]):
        assert epsilon(charges, DELTA, ADD_REMOVE) == 0
        assert delta_at(charges, 0.0, ADD_REMOVE) == 0
        assert set(privacy_profile(charges, ADD_REMOVE).epsilons) == {0.0}
    never = Charge(noise_multiplier=1.0, count=5, sampling_probability=0.0)
    assert epsilon([never], DELTA, ADD_REMOVE) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": 0.001},
        {"noise_multiplier": -2.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"sampling_probability": math.nan},
        {"sampling_probability": -0.1},
        {"sampling_probability": 1.1},
    ],
    ids=str,
)
def test_what_nothing_bounds_is_infinite(change):
    """Beside what is well, too; and never passed over as if it were free."""
    charges = [steps(2.0, 20, 500, 50), replace(steps(2.0, 1, 500, 50), **change)]
    assert epsilon(charges, DELTA, ADD_REMOVE) == math.inf
    assert delta_at(charges, 100.0, ADD_REMOVE) == 1


def test_a_delta_below_the_rounding_of_the_transforms_is_not_vouched_for():
    assert epsilon([steps(2.0, 20, 500, 50)], 1e-17, ADD_REMOVE) == math.inf


@pytest.mark.parametrize("relation", list(Relation))
def test_delta_and_epsilon_are_each_others_inverse(relation):
    charges = [steps(1.2, 30, 500, 50), Charge(noise_multiplier=5.0, count=1)]
    for delta in (1e-3, 1e-6):
        found = epsilon(charges, delta, relation)
        assert delta_at(charges, found, relation) == pytest.approx(delta, rel=1e-9)
        assert delta_at(charges, found * 1.01, relation) < delta


def test_the_profile_is_epsilon_at_every_delta():
    charges = [steps(1.2, 30, 500, 50)]
    profile = privacy_profile(charges, ADD_REMOVE, deltas=(1e-7, 1e-2, 1e-5))
    assert profile.relation is ADD_REMOVE
    assert profile.deltas == (1e-2, 1e-5, 1e-7)
    assert profile.epsilons == tuple(
        epsilon(charges, delta, ADD_REMOVE) for delta in profile.deltas
    )
    assert profile.epsilons == tuple(sorted(profile.epsilons))
    with pytest.raises(FrozenInstanceError):
        profile.deltas = ()


def test_the_profile_composes_once(monkeypatch):
    counted = []
    compose = accounting.compose
    monkeypatch.setattr(
        accounting, "compose", lambda parts: counted.append(1) or compose(parts)
    )
    profile = privacy_profile([steps(1.2, 30, 500, 50)], ADD_REMOVE)
    assert len(profile.epsilons) > 20 and counted == [1]


@pytest.mark.parametrize("target", [0.2, 0.6])
def test_calibrated_noise_keeps_the_target_and_wastes_little(target):
    def charges_at(noise: float) -> list[Charge]:
        return [Charge(noise_multiplier=8.0 / target, count=1), steps(noise, 9, 80, 8)]

    noise = calibrate(charges_at, target, DELTA, ADD_REMOVE)
    assert epsilon(charges_at(noise), DELTA, ADD_REMOVE) <= target
    assert epsilon(charges_at(noise), DELTA, ADD_REMOVE, FINE) <= target
    assert theirs(charges_at(noise), DELTA, ADD_REMOVE, FINE) <= target
    assert epsilon(charges_at(noise * 0.995), DELTA, ADD_REMOVE, FINE) > target


@pytest.mark.parametrize("relation", list(Relation))
def test_calibrated_noise_never_exceeds_its_target(relation):
    def charges_at(noise: float) -> list[Charge]:
        return [Charge(noise_multiplier=20.0, count=1), steps(noise, 9, 80, 8)]

    noise = calibrate(charges_at, 0.8, DELTA, relation)
    for interval in (None, FINE):
        assert epsilon(charges_at(noise), DELTA, relation, interval) <= 0.8
    assert epsilon(charges_at(noise * 0.99), DELTA, relation) > 0.8


def test_a_charges_event_is_all_of_it():
    """What the release is rechecked by, and what the second accountant hears."""
    capped = steps(2.0, 20, 500, 50)
    assert capped.event() == dp_accounting.SelfComposedDpEvent(
        dp_accounting.TruncatedSubsampledGaussianDpEvent(500, 0.1, 91, 2.0), 20
    )
    sampled = dp_accounting.PoissonSampledDpEvent(
        0.1, dp_accounting.GaussianDpEvent(2.0)
    )
    assert capped.uncapped().event() == dp_accounting.SelfComposedDpEvent(sampled, 20)
    release = Charge(noise_multiplier=3.0, count=2)
    assert release.event() == dp_accounting.SelfComposedDpEvent(
        dp_accounting.GaussianDpEvent(3.0), 2
    )


@pytest.mark.parametrize("relation", [ADD_REMOVE, EXCHANGE])
@pytest.mark.parametrize(
    ("population", "batch", "count", "target", "delta"),
    [
        (10_000, 64, 300, 8.0, 1e-5),
        (10_000, 64, 1_000, 0.1, 1e-5),
        (50_000, 16_384, 200, 10.0, 1e-6),
        (162_770, 16_384, 2_000, 1.0, 1e-6),
        (500, 50, 5, 12.0, 1e-4),
        (1_000_000, 1_024, 10_000, 3.0, 1e-7),
    ],
)
def test_calibration_over_the_range_of_plans(
    population, batch, count, target, delta, relation
):
    def charges_at(noise: float) -> list[Charge]:
        return [steps(noise, count, population, batch)]

    noise = calibrate(charges_at, target, delta, relation)
    assert epsilon(charges_at(noise), delta, relation, FINE) <= target
    assert epsilon(charges_at(noise * 0.995), delta, relation, FINE) > target


def test_calibration_is_as_tight_as_dp_accountings_own():
    def event(noise: float) -> dp_accounting.DpEvent:
        return steps(noise, 20, 500, 100).event()

    found = calibrate(
        lambda noise: [steps(noise, 20, 500, 100)], 1.0, DELTA, ADD_REMOVE
    )
    reference = calibrate_dp_mechanism(
        PLDAccountant,
        event,
        1.0,
        DELTA,
        bracket_interval=ExplicitBracketInterval(found * 0.9, found * 1.1),
        tol=1e-4,
    )
    assert reference * (1 - 1e-4) <= found <= reference * 1.005


def test_calibration_corrects_an_optimistic_search(monkeypatch):
    """Whatever the search finds, what is returned was evaluated."""
    monkeypatch.setattr(accounting, "_root", lambda excess, guess, ends: 0.0)
    noise = calibrate(
        lambda noise: [Charge(noise_multiplier=noise, count=1)], 4.3, DELTA, ADD_REMOVE
    )
    assert 1.0 < noise < 1.03
    assert analytic_gaussian(noise, DELTA) <= 4.3


def test_calibration_needs_few_evaluations(monkeypatch):
    counted = []
    evaluate = accounting.epsilon
    monkeypatch.setattr(
        accounting, "epsilon", lambda *args: counted.append(1) or evaluate(*args)
    )
    fixed = Charge(noise_multiplier=0.7, count=1)
    calibrate(
        lambda noise: [fixed, steps(noise, 8, 10_000, 400)], 10, DELTA, ADD_REMOVE
    )
    assert len(counted) <= 12


@pytest.mark.parametrize("guess", [0.3, 1.0, 40.0, 3000.0])
def test_the_search_does_not_depend_on_its_first_guess(guess):
    ends = math.log(0.3), math.log(3000.0)
    root = accounting._root(lambda at: 2.0 - at, math.log(guess), ends)
    assert root == pytest.approx(2.0, abs=1e-3)


def test_an_impossible_target_is_the_users_to_change():
    fixed = Charge(noise_multiplier=1.0, count=1)
    with pytest.raises(UserError, match="epsilon"):
        calibrate(lambda noise: [fixed], 0.1, DELTA, ADD_REMOVE)


def test_noise_is_never_below_the_floor(monkeypatch):
    monkeypatch.setattr(accounting, "SMALLEST_NOISE", 1.5)
    noise = calibrate(
        lambda noise: [Charge(noise_multiplier=noise, count=1)], 50.0, 0.1, ADD_REMOVE
    )
    assert noise == pytest.approx(1.5)


def test_the_central_limit_is_exact_for_full_releases():
    charges = [
        Charge(noise_multiplier=4.0, count=3),
        Charge(noise_multiplier=2.0, count=1),
    ]
    found = accounting.central_limit_variance(charges, ADD_REMOVE)
    assert found == pytest.approx(3 / 16 + 1 / 4)
    assert accounting.central_limit_variance(charges, EXCHANGE) == pytest.approx(
        4 * found
    )


@pytest.mark.parametrize("relation", [ADD_REMOVE, EXCHANGE])
def test_the_central_limit_is_the_chi_square_distance_of_a_step(relation):
    noise, q = 1.3, 0.2
    x = np.linspace(-15, 15, 20_001)
    rest, moved = norm.pdf(x, 0, noise), norm.pdf(x, 1, noise)
    changed = rest if relation is ADD_REMOVE else norm.pdf(x, -1, noise)
    distance = q**2 * np.sum((moved - changed) ** 2 / rest) * (x[1] - x[0])
    charge = Charge(noise_multiplier=noise, count=5, sampling_probability=q)
    found = accounting.central_limit_variance([charge], relation)
    assert found == pytest.approx(5 * distance, rel=1e-6)
