"""The one way out for private records: charge, draw, sum, noise, divide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.errors import UserError
from core.privacy import mechanism as room
from core.privacy.accounting import Charge
from core.privacy.mechanism import Mechanism, private_step, private_sum

FIELDS = {
    "population": 200,
    "sampling_probability": 0.1,
    "batch_cap": 60,
    "noise_multiplier": 2.0,
    "clip_norm": 0.5,
    "divisor": 20.0,
    "steps": 7,
}


def make(**changes) -> Mechanism:
    return Mechanism(**(FIELDS | changes))


@pytest.fixture
def silent(monkeypatch):
    """Noise of zero, and the standard deviations that were asked for."""
    asked = []

    def zeros(size: int, standard_deviation: float) -> torch.Tensor:
        asked.append(standard_deviation)
        return torch.zeros(size)

    monkeypatch.setattr(room, "gaussian", zeros)
    return asked


def test_charge_comes_before_the_draw_and_the_read(monkeypatch):
    order = []
    draw = room.draw_units
    monkeypatch.setattr(
        room, "draw_units", lambda *of: order.append("draw") or draw(*of)
    )

    def sums(units: np.ndarray) -> torch.Tensor:
        order.append("read")
        return torch.zeros(3)

    charges: list[Charge] = []
    private_step(
        make(),
        present=200,
        clipped_sum=sums,
        commit=lambda charge: order.append("charge") or charges.append(charge),
    )
    assert order == ["charge", "draw", "read"]
    assert charges == [make().charge(1)] and charges[0].count == 1


def test_failed_charge_reads_nothing(monkeypatch):
    def refuse(*_):
        raise AssertionError("read without a charge")

    def full(charge: Charge):
        raise UserError("the disk is full")

    monkeypatch.setattr(room, "draw_units", refuse)
    with pytest.raises(UserError):
        private_step(make(), present=200, clipped_sum=refuse, commit=full)
    with pytest.raises(UserError):
        private_sum(refuse, sensitivity=1.0, noise_multiplier=1.0, commit=full)


def test_divides_by_the_public_divisor_whatever_was_drawn(silent, monkeypatch):
    for drawn in (1, 5, 60):
        monkeypatch.setattr(room, "draw_units", lambda *_, n=drawn: np.arange(n))
        noisy = private_step(
            make(),
            present=200,
            clipped_sum=lambda units: torch.full((2,), float(len(units))),
            commit=lambda _: None,
        )
        assert noisy.tolist() == pytest.approx([drawn / 20.0] * 2)
    assert silent == [2.0 * 0.5] * 3  # σ·C, once per step


def test_empty_sample_is_a_noise_only_step(monkeypatch):
    monkeypatch.setattr(room, "draw_units", lambda *_: np.array([], np.int64))
    charges = []
    noisy = private_step(
        make(),
        present=0,
        clipped_sum=lambda units: torch.zeros(20_000),
        commit=charges.append,
    )
    assert charges == [make().charge(1)]
    assert abs(float(noisy.std()) / (2.0 * 0.5 / 20.0) - 1) < 0.03


def test_noise_is_added_once_per_step():
    noisy = private_step(
        make(divisor=1.0),
        present=200,
        clipped_sum=lambda units: torch.zeros(200_000),
        commit=lambda _: None,
    )
    assert abs(float(noisy.std()) / (2.0 * 0.5) - 1) < 0.01
    assert noisy.dtype is torch.float32


@pytest.mark.parametrize("present", [150, 200, 10_000])
def test_draws_at_most_the_declared_population(monkeypatch, present):
    asked = []

    def draw(*arguments) -> np.ndarray:
        asked.append(arguments)
        return np.arange(2)

    monkeypatch.setattr(room, "draw_units", draw)
    private_step(
        make(),
        present=present,
        clipped_sum=lambda units: torch.zeros(1),
        commit=lambda _: None,
    )
    assert asked == [(min(present, 200), 0.1, 60)]


def test_private_sum_is_charged_before_it_is_computed():
    order = []
    noisy = private_sum(
        lambda: order.append("read") or torch.zeros(300, 1_000, dtype=torch.float64),
        sensitivity=3.0,
        noise_multiplier=2.0,
        commit=order.append,
    )
    assert order == [Charge(noise_multiplier=2.0, count=1), "read"]
    assert noisy.shape == (300, 1_000) and noisy.dtype is torch.float32
    assert abs(float(noisy.std()) / 6.0 - 1) < 0.01


def test_the_noise_comes_before_the_rounding(monkeypatch):
    far = 2.0**24  # From there on, single precision knows even numbers only.
    monkeypatch.setattr(room, "gaussian", lambda size, _: torch.full((size,), -far))
    noisy = private_sum(
        lambda: torch.tensor([far + 0.5, far + 1], dtype=torch.float64),
        sensitivity=1.0,
        noise_multiplier=1.0,
        commit=lambda _: None,
    )
    assert noisy.tolist() == [0.5, 1.0]


def explained(noisy: torch.Tensor, total: torch.Tensor) -> float:
    """Share of coordinates that `total` and some noise in single precision make."""
    nearest = (noisy.double() - total.double()).float()
    infinity = torch.full_like(nearest, float("inf"))
    found = torch.zeros(len(noisy), dtype=torch.bool)
    for end in (nearest, infinity, -infinity):
        found |= (total.double() + nearest.nextafter(end).double()).float() == noisy
    return float(found.double().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_last_digits_do_not_tell_neighbours(dtype):
    """Noise coarser than the sum leaves the sum's last digits as they are: thousands of
    the neighbour's coordinates could then not have made the output."""
    generator = torch.Generator().manual_seed(0)
    without = 4 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    unit = torch.randn(20_000, generator=generator, dtype=torch.float64)
    present, absent = (without + unit / unit.norm()).to(dtype), without.to(dtype)
    noisy = private_sum(
        lambda: present, sensitivity=1.0, noise_multiplier=4.0, commit=lambda _: None
    )
    # One sd of this difference is some 0.003; single precision gives 0.07 and more.
    assert abs(explained(noisy, present) - explained(noisy, absent)) < 0.02


def test_every_portion_has_noise_of_its_own(monkeypatch):
    monkeypatch.setattr(room, "PORTION", 1_000)
    noisy = private_sum(
        lambda: torch.zeros(2_500), sensitivity=1.0, noise_multiplier=1.0,
        commit=lambda _: None,
    )  # fmt: skip
    assert noisy.shape == (2_500,) and len(noisy.unique()) > 2_490


def test_what_is_charged_is_what_runs():
    """The accountant's event holds the same constants as the sampler and the noise."""
    event = make().charge(5).event()
    assert (event.count, event.event.dataset_size) == (5, 200)
    assert event.event.sampling_probability == 0.1
    assert event.event.truncated_batch_size == 60
    assert event.event.noise_multiplier == 2.0


def test_poisson_takes_rate_cap_and_divisor_from_public_numbers():
    made = Mechanism.poisson(
        population=60_000, batch_size=4_096, noise_multiplier=1, clip_norm=1, steps=3
    )
    assert made.sampling_probability == 4_096 / 60_000
    assert (made.batch_cap, made.divisor, made.population) == (4_467, 4_096.0, 60_000)


@pytest.mark.parametrize(
    "changes",
    [{name: 0} for name in FIELDS]
    + [{"sampling_probability": 1.0}, {"noise_multiplier": float("nan")}],
)
def test_constants_out_of_range_are_refused(changes):
    with pytest.raises(UserError):
        make(**changes)


@pytest.mark.parametrize("batch_size", [0, 200, 300])
def test_batch_must_be_below_the_population(batch_size):
    with pytest.raises(UserError, match="batch"):
        Mechanism.poisson(
            population=200,
            batch_size=batch_size,
            noise_multiplier=1.0,
            clip_norm=1.0,
            steps=1,
        )
