"""Sums of privacy losses: no mass is lost, and every rounding goes up."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from core.privacy import losses as room
from core.privacy.losses import (
    ROUNDING,
    TAIL,
    UNBOUNDED,
    LossDistribution,
    PrivacyLoss,
    compose,
)


def distribution(masses, lowest=0, infinite=0.0, interval=0.1) -> LossDistribution:
    return LossDistribution(
        interval=interval,
        lowest=lowest,
        masses=np.array(masses, dtype=float),
        infinite=infinite,
    )


def both(one: LossDistribution) -> PrivacyLoss:
    return PrivacyLoss(removed=one, added=one)


def delta_by_hand(one: LossDistribution, epsilon: float) -> float:
    losses = (one.lowest + np.arange(len(one.masses))) * one.interval
    return one.infinite + np.sum(
        one.masses * np.maximum(1 - np.exp(epsilon - losses), 0)
    )


@pytest.fixture
def uneven() -> LossDistribution:
    masses = np.array([0.3, 0.05, 0.2, 0.0, 0.1, 0.25, 0.09])
    return distribution(masses, lowest=-2, infinite=0.01)


def test_delta_is_the_mean_of_what_lies_above(uneven):
    epsilons = np.array([0.0, 0.03, 0.1, 0.25, 0.4, 0.41, 5.0])
    expected = [delta_by_hand(uneven, epsilon) for epsilon in epsilons]
    assert uneven.deltas(epsilons) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("lowest", [-20, -2, 0, 3])
def test_epsilon_is_the_smallest_whose_delta_will_do(uneven, lowest):
    moved = replace(uneven, lowest=lowest)
    for delta in (0.011, 0.02, 0.05, 0.2, 0.9):
        found = moved.epsilons(np.array([delta]))[0]
        assert delta_by_hand(moved, found) <= delta * (1 + 1e-12)
        if found > 0:
            assert delta_by_hand(moved, found - 1e-6) > delta
    assert moved.epsilons(np.array([0.0099]))[0] == math.inf


def test_losses_of_thousands_do_not_overflow():
    far = distribution([0.5, 0.5], lowest=30_000)
    assert far.epsilons(np.array([0.25]))[0] == pytest.approx(3_000.1, abs=1)
    assert far.deltas(np.array([0.0, 2_999.0])) == pytest.approx(1, abs=0.4)


def test_the_worse_direction_counts(uneven):
    milder = replace(uneven, lowest=uneven.lowest - 1)
    for pair in (
        PrivacyLoss(removed=uneven, added=milder),
        PrivacyLoss(removed=milder, added=uneven),
    ):
        assert pair.deltas([0.1]) == uneven.deltas(np.array([0.1]))
        assert pair.epsilons([0.05]) == uneven.epsilons(np.array([0.05]))


def test_a_mixture_on_a_coarser_grid_lands_where_it_belongs(uneven):
    other = distribution([0.25, 0.7], lowest=-1, interval=0.3, infinite=0.05)
    mixed = uneven.mixed_with(other, 0.2)
    assert mixed.lowest == -3
    expected = 0.8 * np.concatenate([[0], uneven.masses])
    expected[0] += 0.2 * 0.25
    expected[3] += 0.2 * 0.7
    assert mixed.masses == pytest.approx(expected)
    assert mixed.infinite == pytest.approx(0.8 * 0.01 + 0.2 * 0.05)


def test_a_mixture_keeps_what_is_equal_in_both_directions_one_object(uneven):
    other = distribution([1.0])
    mixed = both(uneven).mixed_with(both(other), 0.5)
    assert mixed.added is mixed.removed
    apart = PrivacyLoss(removed=uneven, added=replace(uneven, lowest=-5))
    mixed = apart.mixed_with(both(other), 0.5)
    assert (mixed.removed.lowest, mixed.added.lowest) == (-2, -5)


def convolved(parts) -> LossDistribution:
    masses, lowest, finite = np.ones(1), 0, 1.0
    for part, count in parts:
        for _ in range(count):
            masses = np.convolve(masses, part.masses)
            lowest += part.lowest
            finite *= 1 - part.infinite
    return distribution(masses, lowest=lowest, infinite=1 - finite)


def test_a_sum_is_the_convolution(uneven):
    other = distribution([0.5, 0.25, 0.25], lowest=4)
    parts = [(uneven, 3), (other, 2), (uneven, 1)]
    expected = convolved(parts)
    found = compose([(both(part), count) for part, count in parts]).removed
    epsilons = np.linspace(0, 4, 50)
    assert found.deltas(epsilons) == pytest.approx(expected.deltas(epsilons), abs=1e-13)


def test_directions_are_added_up_separately(uneven):
    other = replace(uneven, lowest=1)
    found = compose([(PrivacyLoss(removed=uneven, added=other), 4)])
    assert found.removed.deltas(np.array([0.2])) == pytest.approx(
        convolved([(uneven, 4)]).deltas(np.array([0.2]))
    )
    assert found.added.deltas(np.array([0.2])) == pytest.approx(
        convolved([(other, 4)]).deltas(np.array([0.2]))
    )
    same = compose([(both(uneven), 4)])
    assert same.added is same.removed


@pytest.mark.parametrize(("count", "tail"), [(1, 0.0), (40, TAIL), (3_000, TAIL)])
def test_what_the_transforms_may_lose_is_charged(uneven, count, tail):
    finite = replace(uneven, infinite=0.0, masses=uneven.masses / uneven.masses.sum())
    found = compose([(both(finite), count)]).removed
    assert found.infinite == pytest.approx(count * ROUNDING + tail, rel=1e-6)


def test_delta_is_never_below_the_infinite_mass():
    """Not even where all finite masses cancel out."""
    one = distribution([0.1, 0.7, 0.2], infinite=1e-18)
    assert (one.deltas(np.array([0.1, 0.2, 3.0])) >= 1e-18).all()


def test_unbounded_losses_add_up(uneven):
    found = compose([(both(uneven), 100)]).removed
    assert found.infinite == pytest.approx(1 - 0.99**100, rel=1e-9)
    assert UNBOUNDED.epsilons([0.5])[0] == math.inf
    assert UNBOUNDED.deltas([9.0])[0] == 1


def rare_and_far() -> LossDistribution:
    """A narrow loss, and once in a hundred million a huge one."""
    masses = np.zeros(100_000)
    masses[:20] = np.arange(20, 0, -1)
    masses /= masses.sum() / (1 - 1e-8)
    masses[-1] = 1e-8
    return distribution(masses, lowest=-8, interval=1e-3)


def test_a_rare_loss_farther_than_the_window_is_never_forgotten():
    """The huge loss of one step lies beyond what the sum's transform is as long as."""
    part = rare_and_far()
    found = compose([(both(part), 50)]).removed
    assert found.deltas(np.array([60.0]))[0] == pytest.approx(
        50 * 1e-8 * (1 - math.exp(60 - 100)), rel=1e-3
    )
    # Where two of them are needed, too.
    assert found.deltas(np.array([150.0]))[0] == pytest.approx(
        50 * 49 / 2 * 1e-16, rel=0.1
    )


@pytest.mark.parametrize("side", ["below", "above"])
def test_a_window_that_is_too_short_only_adds_to_delta(monkeypatch, uneven, side):
    """Cyclic sums: what lies below comes back above; what lies above is charged."""
    exact = convolved([(uneven, 30)])
    kept = np.cumsum(exact.masses) / exact.masses.sum()
    epsilons = np.linspace(0, 8, 30)

    def shorter(parts):
        if side == "below":
            cut = int(np.searchsorted(kept, 0.01))
            return exact.lowest + cut, len(kept) - cut, 0.0
        cut = int(np.searchsorted(kept, 0.99))
        return exact.lowest, cut, exact.masses[cut:].sum()

    monkeypatch.setattr(room, "_window", shorter)
    found = compose([(both(uneven), 30)]).removed
    assert (found.deltas(epsilons) >= exact.deltas(epsilons) - 1e-12).all()
    assert (found.deltas(epsilons) > exact.deltas(epsilons) + 1e-4).any()


def test_the_window_holds_all_but_the_tail():
    """At the true distribution of a sum of 500, on either side."""
    part = rare_and_far()
    lowest, length, beyond = room._window([(part, 500)])
    sum_ = np.ones(1)
    narrow = part.masses[:40]
    for _ in range(500):
        sum_ = np.convolve(sum_, narrow)
        sum_ = sum_[: np.flatnonzero(sum_ > 1e-30)[-1] + 1]
    start = 500 * part.lowest
    below = max(lowest - start, 0)
    assert sum_[:below].sum() <= TAIL
    # Three huge losses have probability 2e-17, two have 1e-11: they must fit in.
    assert lowest + length > 2 * 100_000 and beyond == TAIL
    assert length < 600_000


def test_a_folded_array_has_the_same_cyclic_sums():
    values = np.random.default_rng(0).random(23)
    folded = room._folded(values, 7)
    expected = [values[place::7].sum() for place in range(7)]
    assert folded == pytest.approx(expected)
    assert room._folded(values, 30) is values


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 4_095])
def test_powers_are_powers(count):
    spectrum = np.exp(1j * np.linspace(0, 3, 100)) * np.linspace(0.9, 1, 100)
    assert room._power(spectrum.copy(), count) == pytest.approx(
        spectrum**count, abs=1e-12
    )


def test_thinning_keeps_masses_and_means_and_lowers_no_moment():
    masses = np.random.default_rng(1).random(50_000) ** 8
    masses[20_000:20_100] += 1_000
    part = distribution(masses / masses.sum(), lowest=-20_000, interval=1e-4)
    places, thinned = room._thinned(part)
    exact = part.lowest + np.arange(len(part.masses))
    assert len(places) < 1_000
    assert thinned.sum() == pytest.approx(1, rel=1e-12)
    assert thinned @ places == pytest.approx(part.masses @ exact, rel=1e-9, abs=1e-6)
    for order in (-2e-3, -1e-4, 1e-4, 2e-3):
        moment = part.masses @ np.exp(order * exact)
        assert thinned @ np.exp(order * places) >= moment * (1 - 1e-12)
