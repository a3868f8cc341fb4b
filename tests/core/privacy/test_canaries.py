"""What guesses about canaries say of ε: against closed forms and published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from core.privacy.accounting import Charge
from core.privacy.canaries import (
    FALSE_ALARM,
    Guesses,
    best_share,
    clopper_pearson,
    gaussian_epsilon,
    guesses,
    least_mu,
    log_likelihood_ratio,
    most_right,
    one_run_epsilon,
    surest,
    visible_noise,
)


def expected(mu: float, each: int) -> Guesses:
    """What the best guesser of a μ-GDP mechanism does on average."""
    wrong = round(each * stats.norm.cdf(-mu / 2))
    return Guesses(inside=each, found=each - wrong, outside=each, suspected=wrong)


@pytest.mark.parametrize(
    ("canaries", "cap"),
    [(100, 3.49), (500, 5.11), (1_000, 5.81), (5_000, 7.42), (10_000, 8.11),
     (50_000, 9.72)],
)  # fmt: skip
def test_one_run_bound_of_a_perfect_record_is_its_closed_form(canaries, cap):
    """−ln(0.05^(−1/m) − 1) at δ = 0: nothing larger can come out of one run."""
    found = one_run_epsilon(canaries, canaries, canaries, 0.0, 0.95)
    assert found == pytest.approx(-math.log(0.05 ** (-1 / canaries) - 1), abs=1e-6)
    assert found == pytest.approx(cap, abs=0.005)


@pytest.mark.parametrize(("canaries", "cap"), [(10_000, 7.83), (50_000, 8.20)])
def test_delta_lowers_the_one_run_bound(canaries, cap):
    found = one_run_epsilon(canaries, canaries, canaries, 1e-5, 0.95)
    assert found == pytest.approx(cap, abs=0.005)


def test_one_run_bound_of_coin_flips_is_zero():
    assert one_run_epsilon(500, 1_000, 1_000, 1e-5, 0.95) == 0.0


def test_one_run_bound_holds_for_randomised_response():
    """Right with probability e^ε / (1 + e^ε): exactly ε, over 400 experiments."""
    rng, epsilon, canaries = np.random.default_rng(3), 1.0, 400
    share = 1 / (1 + math.exp(-epsilon))
    found = [
        one_run_epsilon(int(right), canaries, canaries, 0.0, 0.95)
        for right in rng.binomial(canaries, share, 400)
    ]
    assert np.mean(np.array(found) > epsilon) < 0.09
    assert np.median(found) > 0.7


def test_epsilon_of_a_gaussian_release():
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.377, abs=1e-3)
    assert gaussian_epsilon(0.0, 1e-5) == 0.0
    assert gaussian_epsilon(1e-6, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("each", "published"), [(500, 2.98), (2_000, 3.76), (10_000, 4.08),
                                (50_000, 4.18)],
)  # fmt: skip
def test_gaussian_estimate_has_the_published_power(each, published):
    """σ = 1, δ = 1e-5, 95 %; a threshold fixed beforehand does a little better."""
    mu = least_mu(expected(1.0, each), 0.95)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(published, abs=0.26)


def test_gaussian_estimate_is_seldom_above_the_truth():
    rng, each, mu = np.random.default_rng(5), 2_000, 1.0
    wrong = stats.norm.cdf(-mu / 2)
    found = [
        least_mu(
            Guesses(
                inside=each,
                found=each - int(rng.binomial(each, wrong)),
                outside=each,
                suspected=int(rng.binomial(each, wrong)),
            ),
            0.95,
        )
        for _ in range(400)
    ]
    assert np.mean(np.array(found) > mu) < 0.05
    assert np.median(found) > 0.85


@pytest.mark.parametrize(("found", "suspected"), [(0, 10), (10, 10), (5, 5)])
def test_gaussian_estimate_is_never_negative(found, suspected):
    record = Guesses(inside=10, found=found, outside=10, suspected=suspected)
    assert least_mu(record, 0.95) == 0.0


def test_clopper_pearson_limits():
    assert clopper_pearson(0, 10, 0.05) == pytest.approx(1 - 0.05**0.1)
    assert clopper_pearson(10, 10, 0.05) == 1.0
    limit = clopper_pearson(3, 10, 0.05)
    assert stats.binom.cdf(3, 10, limit) == pytest.approx(0.05)


def test_score_is_the_logarithm_of_the_two_densities():
    sums, q, noise = np.array([-2.0, 0.0, 0.5, 3.0]), 0.2, 0.9
    absent, drawn = stats.norm(0, noise).pdf(sums), stats.norm(1, noise).pdf(sums)
    ratio = (1 - q) + q * drawn / absent
    found = log_likelihood_ratio(sums, sampling_probability=q, noise_multiplier=noise)
    np.testing.assert_allclose(found, np.log(ratio), rtol=1e-12)


def test_score_without_noise_is_a_number():
    sums = np.array([0.0, 1.0, 10.0])
    found = log_likelihood_ratio(sums, sampling_probability=0.2, noise_multiplier=1e-9)
    assert found[0] == pytest.approx(math.log(0.8))
    assert (found[1:] > 1e10).all() and np.isfinite(found).all()


def test_guesses_are_counted():
    scores = np.array([2.0, 1.0, -1.0, -2.0, 0.5, -0.5])
    inside = np.array([True, True, True, False, False, False])
    record = guesses(scores, inside)
    assert record == Guesses(inside=3, found=2, outside=3, suspected=1)
    assert (record.canaries, record.right) == (6, 4)
    assert surest(scores, inside, 2) == 3  # 2.0, 1.0 in; -2.0 out; -1.0 was in


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
def test_best_share_of_one_full_release_is_its_closed_form(noise):
    found = best_share(Charge(noise_multiplier=noise, count=1))
    assert found == pytest.approx(stats.norm.cdf(1 / (2 * noise)), abs=1e-4)


def test_best_share_bounds_the_best_guesser_of_sampled_steps():
    """Simulated without the engine: the score's guesses reach it and do not pass it."""
    rng, q, noise, steps, each = np.random.default_rng(7), 0.2, 0.9, 20, 40_000
    taken = rng.random((2 * each, steps)) < q
    taken[each:] = False
    sums = taken + noise * rng.standard_normal(taken.shape)
    scores = log_likelihood_ratio(sums, sampling_probability=q, noise_multiplier=noise)
    record = guesses(scores.sum(axis=1), np.arange(2 * each) < each)
    charge = Charge(noise_multiplier=noise, count=steps, sampling_probability=q)
    assert record.right / record.canaries == pytest.approx(best_share(charge), abs=8e-3)


def test_alarm_is_as_rare_as_it_says():
    most = most_right(10_000, 0.7)
    assert stats.binom.sf(most, 10_000, 0.7) <= FALSE_ALARM
    assert stats.binom.sf(most - 1, 10_000, 0.7) > FALSE_ALARM


def test_noise_of_the_visible_factor_raises_the_alarm():
    canaries, mu = 100_000, 2.0
    share = float(stats.norm.cdf(mu / 2))
    factor = visible_noise(canaries, share)
    assert 0.9 < factor < 1
    for times, power in ((factor, (0.95, 1.0)), (factor + 0.03, (0.0, 0.2))):
        seen = stats.norm.cdf(mu / times / 2)
        alarm = stats.binom.sf(most_right(canaries, share), canaries, seen)
        assert power[0] <= alarm <= power[1]


def test_few_canaries_see_nothing():
    assert visible_noise(10, 0.9) == 0.0
