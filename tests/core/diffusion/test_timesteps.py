"""The timestep mixture, whole and cut in two."""

from __future__ import annotations

import pytest
import torch

from core.diffusion.schedules import (
    ContinuousSchedule,
    DiscreteSchedule,
    LogNormalSchedule,
    TangentSchedule,
)
from core.diffusion.timesteps import UNIFORM, TimestepMixture
from core.errors import UserError

PAPER = TimestepMixture(weights=(0.015, 0.785, 0.2), bounds=(0, 30, 600, 1000))


def of(mixture: TimestepMixture) -> dict[tuple[int, int], float]:
    """Interval → weight, those of no weight left out."""
    parts = zip(mixture.bounds, mixture.bounds[1:], mixture.weights, strict=False)
    return {(low, high): weight for low, high, weight in parts if weight}


def test_a_mixture_is_cut_at_its_own_bounds():
    assert of(PAPER.within(30, 600)) == {(30, 600): 1.0}
    assert of(PAPER.outside(30, 600)) == pytest.approx(
        {(0, 30): 0.015 / 0.215, (600, 1000): 0.2 / 0.215}
    )
    assert PAPER.weight_within(30, 600) == pytest.approx(0.785)


def test_a_mixture_is_cut_inside_its_parts():
    """Half of a part has half of its weight; both cuts may fall into one part."""
    assert of(PAPER.within(0, 315)) == pytest.approx(
        {(0, 30): 0.015 / 0.4075, (30, 315): 0.3925 / 0.4075}
    )
    assert of(UNIFORM.outside(200, 700)) == pytest.approx(
        {(0, 200): 0.4, (700, 1000): 0.6}
    )
    assert UNIFORM.weight_within(200, 700) == pytest.approx(0.5)


def test_the_two_cuts_draw_from_where_they_say():
    generator = torch.Generator().manual_seed(0)
    inner = PAPER.within(100, 650).sample(4000, generator)
    assert 100 <= float(inner.min()) < 103 and 640 < float(inner.max()) < 650
    outer = PAPER.outside(100, 650).sample(4000, generator)
    assert not ((outer >= 100) & (outer < 650)).any()
    assert (outer < 100).any() and (outer >= 650).any()


@pytest.mark.parametrize(("lower", "upper"), [(0, 1000), (0, 600)])
def test_a_cut_that_leaves_nothing_is_refused(lower, upper):
    mixture = TimestepMixture(weights=(1.0, 0.0), bounds=(0, 600, 1000))
    with pytest.raises(UserError, match="leaves no timesteps"):
        mixture.outside(lower, upper)
    with pytest.raises(UserError, match="leaves no timesteps"):
        mixture.within(600, 1000)


@pytest.mark.parametrize(
    ("schedule", "bounds"),
    [
        (DiscreteSchedule(), (0, 30, 600, 1000)),
        (DiscreteSchedule("linear", 4000), (0, 30, 600, 1000)),
        # σ = 0.11 and 6.2: cos²(πt/2) = 1/(1 + σ²), but for the curve's offset of 8.
        (DiscreteSchedule("cosine"), (0, 63, 897, 1000)),
        (ContinuousSchedule(), (0, 30, 600, 1000)),
        # ln σ = −2.2 and 1.8 are 0.83 below and 2.5 deviations above the mean.
        (LogNormalSchedule(), (0, 203, 994, 1000)),
        (TangentSchedule(), (0, 70, 904, 1000)),
    ],
)
def test_a_mixture_means_the_same_noise_on_every_schedule(schedule, bounds):
    found = PAPER.on(schedule)
    assert found.weights == pytest.approx(PAPER.weights)
    assert found.bounds == pytest.approx(bounds, abs=3)
    linear = DiscreteSchedule().sigma(torch.tensor([30.0, 600.0]).double())
    there = schedule.sigma(torch.tensor(found.bounds[1:-1]).double())
    torch.testing.assert_close(there, linear, rtol=0.1, atol=0)


def test_noise_that_a_schedule_does_not_train_is_left_out():
    """EDM's quantiles end at σ = 12, before the linear chain's timestep 750."""
    edges = TimestepMixture(weights=(0.5, 0.25, 0.25), bounds=(0, 750, 900, 1000))
    found = edges.on(LogNormalSchedule())
    assert (found.bounds, found.weights) == ((0, 1000), (1.0,))
    with pytest.raises(UserError, match="leaves no timesteps"):
        edges.within(900, 1000).on(LogNormalSchedule())
