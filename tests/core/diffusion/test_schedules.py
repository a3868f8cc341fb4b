"""Noise levels: the published numbers, and that timestep, σ and network time agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from core.diffusion.schedules import (
    ContinuousSchedule,
    DiscreteSchedule,
    LogNormalSchedule,
    LogUniformSchedule,
    TangentSchedule,
    parse_schedule,
)
from core.diffusion.timesteps import UNIFORM, TimestepMixture
from core.errors import UserError

ALL = [
    DiscreteSchedule(),
    DiscreteSchedule("linear", 400),
    DiscreteSchedule("cosine", 4000, rescaled=True),
    ContinuousSchedule(),
    LogUniformSchedule(),
    LogNormalSchedule(),
    TangentSchedule(),
]


def named(schedule) -> str:
    return schedule.name


def signal(schedule, index: int) -> float:
    """ᾱ of one step of a chain."""
    at = torch.tensor([(index + 0.5) * 1000 / schedule.count], dtype=torch.float64)
    return 1 / (1 + schedule.sigma(at).item() ** 2)


@pytest.mark.parametrize("schedule", ALL, ids=named)
def test_noise_rises_with_the_timestep_and_falls_in_a_sampler(schedule):
    timesteps = torch.linspace(0, 999.99, 400, dtype=torch.float64)
    sigmas = schedule.sigma(timesteps)
    assert sigmas.dtype is torch.float64
    assert (sigmas.diff() > 0).all() and sigmas[0] > 0
    assert (schedule.time(sigmas).diff() > 0).all()
    levels = schedule.levels(25)
    assert levels.shape == (25,) and (levels.diff() < 0).all() and levels[-1] > 0


@pytest.mark.parametrize("schedule", ALL, ids=named)
def test_a_name_gives_the_schedule_back(schedule):
    assert parse_schedule(schedule.name) == schedule


@pytest.mark.parametrize(
    "name", ["", "linear", "linear-0", "sine-1000", "linear-1000-", "linear-x", "1000"]
)
def test_a_name_of_no_schedule_is_refused(name):
    with pytest.raises(UserError, match="schedule"):
        parse_schedule(name)


def test_the_linear_chain_is_the_published_one():
    """Ho et al. 2020: β from 1e-4 to 0.02 in 1,000 steps; ᾱ_1000 = 4.04e-5."""
    schedule = DiscreteSchedule()
    assert signal(schedule, 0) == pytest.approx(1 - 1e-4, rel=1e-9)
    assert signal(schedule, 999) == pytest.approx(4.036e-5, rel=1e-3)
    # A chain of another length has its βs scaled, so that it ends alike.
    assert signal(DiscreteSchedule("linear", 4000), 3999) == pytest.approx(
        4.2e-5, rel=0.05
    )


@pytest.mark.parametrize("count", [1000, 4000])
def test_the_cosine_chain_is_the_published_one(count):
    """Nichol & Dhariwal 2021, eq. 17: ᾱ_t = f(t)/f(0), f = cos²(…), s = 0.008."""

    def curve(at: float) -> float:
        return math.cos((at / count + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = DiscreteSchedule("cosine", count)
    for index in (0, count // 3, count - 2):
        expected = curve(index + 1) / curve(0)
        assert signal(schedule, index) == pytest.approx(expected, rel=1e-6)
    # The last β would be 1; it is held at 0.999.
    last = signal(schedule, count - 1) / signal(schedule, count - 2)
    assert last == pytest.approx(0.001, rel=1e-6)


@pytest.mark.parametrize("count", [1000, 4000])
@pytest.mark.parametrize("rescaled", [False, True])
def test_a_chain_tells_the_network_the_number_of_the_step(count, rescaled):
    schedule = DiscreteSchedule("linear", count, rescaled)
    index = torch.arange(count)
    sigmas = schedule.sigma((index + 0.25) * 1000.0 / count)
    factor = 1000 / count if rescaled else 1.0
    assert torch.equal(schedule.time(sigmas), index * factor)
    # Between two steps, the nearer one.
    near = (sigmas[10] ** 0.6 * sigmas[11] ** 0.4).reshape(1)
    assert schedule.time(near).item() == 10 * factor


@pytest.mark.parametrize("steps", [1, 3, 7, 20, 999, 1000])
def test_a_chain_is_sampled_at_trailing_timesteps(steps):
    schedule = DiscreteSchedule()
    numbers = schedule.time(schedule.levels(steps)).numpy()
    trailing = np.round(1000 - np.arange(steps) * 1000 / steps) - 1
    assert np.array_equal(numbers, trailing)
    assert numbers[0] == 999


@pytest.mark.parametrize("steps", [1, 20, 1000])
def test_a_cosine_chain_is_sampled_from_where_a_linear_one_ends(steps):
    """Beyond, its noise levels rise to 20,000 within four steps."""
    schedule = DiscreteSchedule("cosine")
    levels = schedule.levels(steps)
    assert 120 < levels[0] < 164.1
    assert len(levels) == min(steps, 996) and (levels.diff() < 0).all()


def test_a_linear_chain_too_short_for_its_noise_is_refused():
    assert DiscreteSchedule("linear", 21).levels(3).isfinite().all()
    with pytest.raises(UserError, match="more than 20"):
        DiscreteSchedule("linear", 20)


def test_continuous_time_is_that_of_song_et_al():
    """σ(t)² = e^(½·19.9·t² + 0.1·t) − 1 (Karras et al. 2022, Table 1)."""
    schedule = ContinuousSchedule()
    half = torch.tensor([500.0], dtype=torch.float64)
    assert schedule.sigma(half).item() == pytest.approx(
        math.sqrt(math.exp(19.9 / 8 + 0.05) - 1), rel=1e-4
    )
    assert schedule.time(schedule.sigma(half)).item() == pytest.approx(499.5, rel=1e-4)
    levels = schedule.levels(3)
    assert levels[0].item() == pytest.approx(152, rel=0.01)
    assert schedule.time(levels)[-1].item() == pytest.approx(0.999, rel=1e-6)


def test_log_uniform_goes_from_a_fiftieth_to_a_hundred():
    schedule = LogUniformSchedule()
    ends = schedule.sigma(torch.tensor([0.0, 500.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.02, math.sqrt(2)]).double())
    assert schedule.time(torch.tensor([2.0])).item() == 0
    torch.testing.assert_close(schedule.levels(2), torch.tensor([100, 0.02]).double())


def test_log_normal_trains_what_karras_et_al_train():
    """ln σ ~ N(−1.2, 1.2²) for uniform timesteps; ρ = 7 from 80 to 0.002."""
    schedule = LogNormalSchedule()
    drawn = UNIFORM.sample(40_000, torch.Generator().manual_seed(0))
    logs = schedule.sigma(drawn).log()
    assert abs(logs.mean().item() + 1.2) < 0.02
    assert abs(logs.std().item() - 1.2) < 0.02
    assert torch.isfinite(logs).all() and len(logs.unique()) > 39_000
    edges = schedule.sigma(torch.tensor([0.0, 1000.0], dtype=torch.float64))
    assert torch.isfinite(edges).all()
    assert schedule.time(torch.tensor([1.0])).item() == 0
    levels = schedule.levels(3)
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    torch.testing.assert_close(levels, torch.tensor([80, middle, 0.002]).double())


def test_tangent_trains_what_dockhorn_et_al_train():
    """t = 2/π·arccos(1/√(1 + e^−λ)) uniform, for a log-SNR λ from 13 to −9."""

    def time(log_snr: float) -> float:
        return 2 * math.acos(1 / math.sqrt(1 + math.exp(-log_snr))) / math.pi

    schedule = TangentSchedule()
    ends = schedule.sigma(torch.tensor([0.0, 1000.0], dtype=torch.float64))
    expected = torch.tensor([math.exp(-6.5), math.exp(4.5)]).double()
    torch.testing.assert_close(ends, expected, rtol=1e-6, atol=0)
    quarter = schedule.sigma(torch.tensor([250.0], dtype=torch.float64))
    at = time(13) + (time(-9) - time(13)) / 4
    expected = math.sqrt(math.cos(math.pi * at / 2) ** -2 - 1)
    assert quarter.item() == pytest.approx(expected, rel=1e-9)
    assert schedule.time(quarter).item() == pytest.approx(at, rel=1e-9)
    torch.testing.assert_close(schedule.levels(9), LogNormalSchedule().levels(9))


def test_mixture_has_the_shares_and_stays_within_the_bounds():
    mixture = TimestepMixture(weights=(0.1, 0.7, 0.2), bounds=(0, 30, 600, 1000))
    drawn = mixture.sample(60_000, torch.Generator().manual_seed(0))
    assert drawn.dtype is torch.float64
    assert 0 <= float(drawn.min()) and 999 < float(drawn.max()) < 1000
    for share, low, high in ((0.1, 0, 30), (0.7, 30, 600), (0.2, 600, 1000)):
        inside = drawn[(drawn >= low) & (drawn < high)]
        assert abs(len(inside) / 60_000 - share) < 0.01
        assert abs(float(inside.mean()) - (low + high) / 2) < 0.02 * (high - low)


def test_every_step_can_be_drawn():
    drawn = UNIFORM.sample(30_000, torch.Generator().manual_seed(0))
    assert len(drawn.long().unique()) == 1000


def test_a_rounded_up_product_stays_below_the_bound(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.ones(count))
    mixture = TimestepMixture(weights=(1.0, 0.0), bounds=(0, 10, 1000))
    drawn = mixture.sample(4, torch.Generator())
    assert drawn.long().tolist() == [9] * 4


@pytest.mark.parametrize(
    ("weights", "bounds"),
    [
        ((0.5, 0.4), (0, 500, 1000)),
        ((0.5, 0.5), (0, 1000)),
        ((0.5, 0.5), (0, 0, 1000)),
        ((0.5, 0.5), (1, 500, 1000)),
        ((0.5, 0.5), (0, 500, 999)),
        ((1.5, -0.5), (0, 500, 1000)),
    ],
)
def test_a_mixture_that_is_none_is_refused(weights, bounds):
    with pytest.raises(UserError, match="mixture"):
        TimestepMixture(weights=weights, bounds=bounds)
