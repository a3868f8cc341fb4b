"""Pairs of mixtures: losses are put on the grid without ever getting smaller."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from core.privacy.pairs import Mixture, Pair, exchange, group_exchange, removal

PAIRS = {
    "a unit of a large batch": removal(2.0, 0.3),
    "a unit of a small batch": removal(0.6, 0.01),
    "a full release": removal(1.5, 1.0),
    "three units": removal(1.2, 0.2, size=3),
    "three of three units": removal(3.0, 1.0, size=3),
    "ten units, little noise": removal(0.5, 0.05, size=10),
    "an exchange": exchange(2.0, 0.3),
    "an exchange in a small batch": exchange(0.6, 0.01),
    "an exchange in a full release": exchange(1.5, 1.0),
}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS.keys())
def pair(request):
    return request.param


def above(mixture: Mixture, place: float) -> float:
    return float(mixture.weights @ norm.sf(place, mixture.means, mixture.noise))


def below(mixture: Mixture, place: float) -> float:
    return float(mixture.weights @ norm.cdf(place, mixture.means, mixture.noise))


def exact_deltas(pair: Pair, epsilon: float) -> tuple[float, float]:
    """(removed, added): the outcomes beyond the places where the loss is ±ε."""

    def at(loss: float) -> float:
        if pair.loss(-500.0) >= loss:
            return -math.inf
        return brentq(lambda x: pair.loss(x) - loss, -500, 500, xtol=1e-13)

    right, left = at(epsilon), at(-epsilon)
    factor = math.exp(epsilon)
    removed = above(pair.upper, right) - factor * above(pair.lower, right)
    added = below(pair.lower, left) - factor * below(pair.upper, left)
    return removed, added


def test_the_loss_is_reached_at_its_place(pair):
    losses = np.concatenate([np.linspace(-0.3, 8, 40), [1e-7, 0.0]])
    places = pair.place(losses)
    for loss, place in zip(losses, places, strict=True):
        if math.isfinite(place):
            assert pair.loss(place) == pytest.approx(loss, abs=1e-9)
        else:
            # Never so small: even far out on the left the loss is larger.
            assert place == -math.inf and pair.loss(-1_000.0) >= loss
    order = np.argsort(losses)
    assert (np.diff(places[order][np.isfinite(places[order])]) > 0).all()


@pytest.mark.parametrize("interval", [0.02, 0.3])
def test_on_the_grid_delta_is_exact_at_its_points_and_above_between(pair, interval):
    loss = pair.discretised(interval)
    for steps in (0, 1, 4, 4.5, 10, 10.5):
        epsilon = steps * interval
        exact = exact_deltas(pair, epsilon)
        for one, delta in zip((loss.removed, loss.added), exact, strict=True):
            found = one.deltas(np.array([epsilon]))[0]
            assert found >= delta - 1e-13
            if steps == int(steps):
                assert found == pytest.approx(delta, abs=1e-12)
            elif delta > 1e-4:
                assert delta < found < delta + interval


def test_a_coarser_grid_gives_more(pair):
    epsilons = np.linspace(0, 5, 101)
    grids = [pair.discretised(0.01 * factor).deltas(epsilons) for factor in (1, 2, 8)]
    assert (grids[0] <= grids[1] + 1e-14).all() and (grids[1] <= grids[2] + 1e-14).all()
    assert (grids[2] > grids[0] + 1e-9).any()


def test_masses_are_probabilities_of_both_distributions(pair):
    loss = pair.discretised(0.01)
    for one in (loss.removed, loss.added):
        losses = (one.lowest + np.arange(len(one.masses))) * one.interval
        assert (one.masses >= 0).all()
        assert one.masses.sum() + one.infinite == pytest.approx(1, abs=1e-12)
        # E[e^−loss] is the other distribution's mass.
        assert one.masses @ np.exp(-losses) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("reach", [0.5, 2.0])
def test_what_lies_beyond_the_grid_counts_as_unbounded(pair, reach):
    near, far = pair.discretised(0.05, reach), pair.discretised(0.05)
    epsilons = np.linspace(0, 5, 26)
    assert (near.deltas(epsilons) >= far.deltas(epsilons) - 1e-14).all()
    assert near.removed.infinite > 1e6 * far.removed.infinite > 0
    for one in (near.removed, near.added):
        assert one.masses.sum() + one.infinite == pytest.approx(1, abs=1e-12)


def test_symmetric_pairs_say_so(pair):
    """Claimed symmetry is real; the rest have two directions."""
    loss = pair.discretised(0.05)
    removed, added = exact_deltas(pair, 0.1)
    assert pair.symmetric == math.isclose(removed, added, rel_tol=1e-6)
    assert (loss.added is loss.removed) == pair.symmetric


def test_masses_between_places_are_exact_in_both_tails():
    mixture = Mixture(means=np.array([0.0]), weights=np.ones(1), noise=1.0)
    places = np.array([-np.inf, -21.0, -20.0, 0.0, 20.0, 21.0])
    found = mixture.between(places)
    assert found[1] == pytest.approx(norm.cdf(-20) - norm.cdf(-21), rel=1e-12)
    assert found[1] == found[4] > 0
    assert found[2:4] == pytest.approx([0.5, 0.5])
    assert mixture.below(-20.0) == pytest.approx(norm.cdf(-20), rel=1e-12)
    assert mixture.above(20.0) == mixture.below(-20.0)


def test_several_units_move_the_sum_by_a_binomial_number():
    pair = removal(1.0, 0.25, size=4)
    assert pair.upper.means.tolist() == [0, 1, 2, 3, 4]
    assert pair.upper.weights == pytest.approx(binom.pmf(range(5), 4, 0.25))
    assert pair.lower.means.tolist() == [0] and not pair.symmetric


def test_exchanging_several_units_of_a_full_release_is_exact():
    """All are sampled: one normal moves by twice as many sensitivities."""
    found = group_exchange(3.0, 1.0, 4, 0.01).deltas([0.0, 1.0, 5.0])
    expected = removal(3.0 / 8, 1.0).discretised(0.01).deltas([0.0, 1.0, 5.0])
    assert found == pytest.approx(expected, rel=1e-9)


def test_exchanging_units_gives_away_how_many_were_sampled():
    found = group_exchange(2.0, 0.3, 2, 0.01).deltas([0.0, 0.5, 2.0])
    weights = binom.pmf(range(3), 2, 0.3)
    expected = sum(
        weights[count]
        * exchange(2.0 / count, 1.0).discretised(0.01).deltas([0.0, 0.5, 2.0])
        for count in (1, 2)
    )
    assert found == pytest.approx(expected, rel=1e-9)
    # Looser than the pair of one exchanged unit, which gives nothing away.
    one = group_exchange(2.0, 0.3, 1, 0.01).deltas([0.5])
    assert one > exchange(2.0, 0.3).discretised(0.01).deltas([0.5])
