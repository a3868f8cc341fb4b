"""Our ε against three other accountants, and closed forms, over a grid of settings."""

from __future__ import annotations

import itertools
import math
from functools import cache

import dp_accounting
import numpy as np
import pytest
from dp_accounting import NeighboringRelation
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from core.privacy.accounting import FINE, Charge, delta_at, epsilon
from core.privacy.budget import Relation
from core.privacy.sampling import batch_cap

ADD_REMOVE = Relation.ADD_OR_REMOVE_ONE
DELTA = 1e-5

NOISES = (0.55, 0.7, 0.9, 1.2, 1.7, 2.5, 4.0, 8.0)
PROBABILITIES = (0.005, 0.012, 0.03, 0.08, 0.2, 0.4)
STRENGTHS = (0.03, 0.06, 0.12, 0.2, 0.3, 0.45, 0.65, 0.9, 1.2, 1.55, 1.9)
"""μ of the central limit, from hardly any loss to ε ≈ 10."""

PRV_ERROR = 0.02
"""Of Opacus' accountant, as a share of ε."""


def counts(noise: float, probability: float) -> list[int]:
    """Numbers of steps of these strengths, between 1 and 4,000."""
    one = probability * math.sqrt(math.expm1(noise**-2))
    wanted = {round((strength / one) ** 2) for strength in STRENGTHS}
    return sorted(count for count in wanted if 1 <= count <= 4_000)


SETTINGS = tuple(
    (noise, probability, count)
    for noise, probability in itertools.product(NOISES, PROBABILITIES)
    for count in counts(noise, probability)
)


def charge(noise: float, probability: float, count: int) -> Charge:
    return Charge(noise_multiplier=noise, count=count, sampling_probability=probability)


@cache
def ours(noise: float, probability: float, count: int) -> float:
    return epsilon([charge(noise, probability, count)], DELTA, ADD_REMOVE)


def settings_of(noise: float) -> list[tuple[float, float, int]]:
    return [setting for setting in SETTINGS if setting[0] == noise]


def test_there_are_enough_settings_and_they_span_what_plans_ask_for():
    assert len(set(SETTINGS)) >= 300
    found = [ours(*setting) for setting in SETTINGS]
    assert min(found) < 0.2 and 8 < max(found) < 15


@pytest.mark.parametrize("noise", NOISES)
def test_never_above_renyi_accounting(noise):
    for setting in settings_of(noise):
        _, probability, count = setting
        looser = RdpAccountant(orders=[*range(2, 65), 128, 256, 512])
        gaussian = dp_accounting.GaussianDpEvent(noise)
        looser.compose(
            dp_accounting.PoissonSampledDpEvent(probability, gaussian), count
        )
        assert ours(*setting) <= looser.get_epsilon(DELTA) * (1 + 1e-9), setting


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize("noise", NOISES)
def test_within_the_error_of_opacus_prv(noise):
    """Its bounds hold ours, and ours lies near their middle, its estimate."""
    for setting in settings_of(noise):
        _, probability, count = setting
        found = ours(*setting)
        error = PRV_ERROR * found
        other = PRVAccountant()
        other.history = [(noise, probability, count)]
        estimate = other.get_epsilon(delta=DELTA, eps_error=error) - error
        # A fifth of what it allows itself; our own rounding is up to 0.03 %.
        assert abs(found - estimate) <= error / 5, (setting, found, estimate)


def theirs(charges: list[Charge], relation: Relation, interval: float) -> float:
    accountant = PLDAccountant(NeighboringRelation[relation.name], interval)
    for each in charges:
        accountant.compose(each.event())
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("relation", [ADD_REMOVE, Relation.REPLACE_ONE])
@pytest.mark.parametrize("noise", [0.55, 0.9, 1.7, 4.0])
@pytest.mark.parametrize("probability", [0.012, 0.08, 0.4])
def test_the_figure_of_dp_accounting_at_an_equal_grid(noise, probability, relation):
    """With the cap and a release beside the steps; never below it."""
    interval, population = 20 * FINE, 20_000
    cap = batch_cap(population, probability)
    for count in counts(noise, probability)[2::3]:
        charges = [
            Charge(
                noise_multiplier=noise,
                count=count,
                sampling_probability=probability,
                population=population,
                batch_cap=cap,
            ),
            Charge(noise_multiplier=6.0, count=2),
        ]
        found = epsilon(charges, DELTA, relation, interval)
        reference = theirs(charges, relation, interval)
        assert reference * (1 - 1e-7) <= found <= reference * (1 + 2e-4)


def test_monotone_along_every_axis():
    noises, probabilities = NOISES[::2], PROBABILITIES
    steps = (1, 3, 10, 30, 100)
    grid = np.array(
        [[[ours(s, q, t) for t in steps] for q in probabilities] for s in noises]
    )
    assert (np.diff(grid, axis=0) <= 0).all()
    assert (np.diff(grid, axis=1) >= 0).all()
    assert (np.diff(grid, axis=2) >= 0).all()
    # Strictly, wherever there is a loss to speak of.
    lossy = grid > 0.05
    assert (np.diff(grid, axis=0)[lossy[1:]] < 0).all()
    assert (np.diff(grid, axis=1)[lossy[:, :-1]] > 0).all()
    assert (np.diff(grid, axis=2)[lossy[:, :, :-1]] > 0).all()


def gaussian_delta(mu: float, value: float) -> float:
    """Balle & Wang 2018, theorem 8."""
    missed = math.exp(value + norm.logcdf(-value / mu - mu / 2))
    return norm.cdf(mu / 2 - value / mu) - missed


@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize(
    ("noise", "count"),
    [(0.6, 1), (0.6, 9), (1.0, 4), (3.0, 1), (3.0, 100), (12.0, 400), (50.0, 9)],
)
def test_full_releases_are_one_analytic_gaussian(noise, count, relation):
    release = Charge(noise_multiplier=noise, count=count)
    mu = math.sqrt(count) / noise * (2 if relation is Relation.REPLACE_ONE else 1)
    exact = brentq(lambda value: gaussian_delta(mu, value) - DELTA, 0, 1_000)
    found = epsilon([release], DELTA, relation)
    assert exact * (1 - 1e-9) <= found <= exact * 1.0005 + FINE


def one_step_delta(noise: float, q: float, value: float) -> float:
    """δ of one Poisson-sampled step: the larger of both directions, in closed form.

    The loss of removing, log(1 − q + q e^((2x − 1) / 2σ²)), rises with x.
    """

    def place(loss: float) -> float:
        return noise**2 * math.log((math.exp(loss) - 1 + q) / q) + 0.5

    x = place(value)
    with_unit = (1 - q) * norm.sf(x / noise) + q * norm.sf((x - 1) / noise)
    removed = with_unit - math.exp(value) * norm.sf(x / noise)
    if math.exp(-value) <= 1 - q:
        return removed
    x = place(-value)
    with_unit = (1 - q) * norm.cdf(x / noise) + q * norm.cdf((x - 1) / noise)
    return max(removed, norm.cdf(x / noise) - math.exp(value) * with_unit)


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0, 6.0])
@pytest.mark.parametrize("probability", [0.01, 0.1, 0.3, 0.5])
def test_one_step_is_the_closed_form(noise, probability):
    step = charge(noise, probability, 1)
    for value in (0.0, 0.01, 0.2, 1.0, 3.0):
        exact = one_step_delta(noise, probability, value)
        found = delta_at([step], value, ADD_REMOVE)
        assert exact * (1 - 1e-9) <= found <= exact * 1.01 + 1e-9, value
