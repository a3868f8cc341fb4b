"""ε is an upper bound, and what is calibrated keeps it."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from core.errors import UserError
from core.privacy import accounting
from core.privacy.accounting import COARSE, FINE, Charge, calibrate, epsilon
from core.privacy.budget import Relation
from core.privacy.sampling import batch_cap

ADD_REMOVE = Relation.ADD_OR_REMOVE_ONE
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


def analytic_gaussian(noise: float, delta: float) -> float:
    """ε of one Gaussian (Balle & Wang 2018, theorem 8)."""

    def excess(value: float) -> float:
        first = norm.cdf(0.5 / noise - value * noise)
        second = math.exp(value) * norm.cdf(-0.5 / noise - value * noise)
        return first - second - delta

    return brentq(excess, 0, 200)


@pytest.mark.parametrize("noise", [0.7, 2.0, 10.0])
def test_one_full_release_is_the_analytic_gaussian(noise):
    found = epsilon([Charge(noise_multiplier=noise, count=1)], DELTA, ADD_REMOVE)
    exact = analytic_gaussian(noise, DELTA)
    assert exact <= found <= exact + 2 * FINE


def test_equal_releases_compose_like_one_with_less_noise():
    four = epsilon([Charge(noise_multiplier=4.0, count=4)], DELTA, ADD_REMOVE, COARSE)
    one = Charge(noise_multiplier=4.0, count=1)
    apart = epsilon([one] * 4, DELTA, ADD_REMOVE, COARSE)
    exact = analytic_gaussian(2.0, DELTA)
    assert exact <= four <= exact + 2 * COARSE
    assert exact <= apart <= exact + 8 * COARSE


@pytest.mark.parametrize("noise", [1.0, 2.0, 5.0])
@pytest.mark.parametrize(("population", "batch"), [(1_000, 50), (60_000, 4_096)])
@pytest.mark.parametrize("count", [10, 200])
def test_at_most_what_the_moments_accountant_says(noise, population, batch, count):
    looser = RdpAccountant()
    looser.compose(
        dp_accounting.PoissonSampledDpEvent(
            batch / population, dp_accounting.GaussianDpEvent(noise)
        ),
        count,
    )
    plain = Charge(
        noise_multiplier=noise, count=count, sampling_probability=batch / population
    )
    found = epsilon([plain], DELTA, ADD_REMOVE, COARSE)
    # Never far below it either: a bound that is too good is a mistake in the event.
    assert 0.5 * looser.get_epsilon(DELTA) < found <= looser.get_epsilon(DELTA)


def test_the_cap_costs_nothing_visible_and_never_lowers_epsilon():
    capped = steps(1.5, 20, 500, 50)
    plain = Charge(noise_multiplier=1.5, count=20, sampling_probability=0.1)
    with_cap = epsilon([capped], DELTA, ADD_REMOVE, COARSE)
    without = epsilon([plain], DELTA, ADD_REMOVE, COARSE)
    assert without <= with_cap <= without * 1.001


@pytest.mark.parametrize(
    ("population", "batch", "count", "published"),
    [(50_000, 16_384, 200, 2.451), (60_000, 4_096, 4_000, 2.282)],
)
def test_noise_for_epsilon_ten_is_what_others_compute(
    population, batch, count, published
):
    """σ of the published check values, within 0.5 % above and 0.1 % below."""
    enough = steps(published * 1.005, count, population, batch)
    too_little = steps(published * 0.999, count, population, batch)
    assert epsilon([enough], DELTA, ADD_REMOVE, COARSE) <= 10
    assert epsilon([too_little], DELTA, ADD_REMOVE, COARSE) > 10


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
    coarse = epsilon(charges, DELTA, ADD_REMOVE, COARSE)
    fine = epsilon(charges, DELTA, ADD_REMOVE)
    assert fine <= coarse <= fine + 2 * COARSE


@pytest.mark.parametrize(
    "charge",
    [Charge(noise_multiplier=3.0, count=1), steps(2.0, 20, 500, 50)],
    ids=["release", "steps"],
)
def test_exchanging_a_record_costs_more_than_removing_one(charge):
    one = epsilon([charge], DELTA, ADD_REMOVE, COARSE)
    both = epsilon([charge], DELTA, Relation.REPLACE_ONE, COARSE)
    assert 1.5 * one < both < 3 * one


def test_nothing_charged_is_epsilon_zero():
    assert epsilon([], DELTA, ADD_REMOVE) == 0
    assert epsilon([Charge(noise_multiplier=1.0, count=0)], DELTA, ADD_REMOVE) == 0


@pytest.mark.parametrize("target", [0.2, 0.6])
def test_calibrated_noise_keeps_the_target_and_wastes_little(target):
    def charges_at(noise: float) -> list[Charge]:
        return [Charge(noise_multiplier=8.0 / target, count=1), steps(noise, 9, 80, 8)]

    noise = calibrate(charges_at, target, DELTA, ADD_REMOVE)
    assert epsilon(charges_at(noise), DELTA, ADD_REMOVE) <= target
    assert epsilon(charges_at(noise * 0.99), DELTA, ADD_REMOVE, COARSE) > target


def test_calibration_corrects_an_optimistic_search(monkeypatch):
    """Whatever the search finds, what is returned was checked at the fine grid."""
    monkeypatch.setattr(accounting, "_root", lambda excess: 0.0)
    noise = calibrate(
        lambda noise: [Charge(noise_multiplier=noise, count=1)], 4.3, DELTA, ADD_REMOVE
    )
    assert 1.0 < noise < 1.03
    assert analytic_gaussian(noise, DELTA) <= 4.3


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


@pytest.mark.parametrize(
    ("noise", "probability", "steps"), [(1.0, 0.01, 500), (2.0, 0.1, 200)]
)
def test_agrees_with_the_accountant_of_opacus(noise, probability, steps):
    from opacus.accountants import PRVAccountant

    other = PRVAccountant()
    other.history = [(noise, probability, steps)]
    theirs = other.get_epsilon(delta=1e-5, eps_error=0.001)
    charge = Charge(
        noise_multiplier=noise, count=steps, sampling_probability=probability
    )
    ours = epsilon([charge], 1e-5, Relation.ADD_OR_REMOVE_ONE)
    assert ours == pytest.approx(theirs, abs=0.005)
