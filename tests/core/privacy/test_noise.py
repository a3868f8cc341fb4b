"""The noise has the scale, the shape and the freshness that the bound assumes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from scipy import stats

from core.privacy.noise import STATEMENT, fresh_generator, gaussian

DRAWN = 1_000_000


@pytest.fixture(scope="module")
def large() -> torch.Tensor:
    return gaussian(DRAWN, 3.0)


def test_scale_is_within_half_a_percent(large):
    """One sd of this ratio is 0.07 %; a noise of σ·√(1 ± 0.01) would fail."""
    ratio = float(large.double().square().mean()) ** 0.5 / 3.0
    assert abs(ratio - 1) < 0.005


def test_normal_of_mean_zero(large):
    values = large.numpy() / 3.0
    assert abs(values.mean()) < 5 / DRAWN**0.5
    # A Kolmogorov-Smirnov test that true normals fail once in a million times.
    assert stats.kstest(values[:200_000], "norm").pvalue > 1e-6
    assert abs(stats.kurtosis(values)) < 0.03


@pytest.mark.parametrize("scale", [2 / 3, 0.97, 1.03, 3 / 2])
def test_the_same_test_rejects_a_wrong_scale(large, scale):
    """A test that no noise can fail would show nothing."""
    values = scale * large.numpy()[:200_000] / 3.0
    assert stats.kstest(values, "norm").pvalue < 1e-6


def test_no_call_resembles_another():
    """Neither value by value nor shifted, as one key for all tensors would make it."""
    calls, size = 8, 50_000
    drawn = np.stack([gaussian(size, 1.0).numpy() for _ in range(calls)])
    limit = 6 / size**0.5
    for shift in (0, 1, 64):
        found = np.corrcoef(drawn, np.roll(drawn, shift, axis=1))
        same = np.eye(2 * calls, dtype=bool)
        if shift == 0:  # The second half is then the first.
            same |= np.roll(same, calls, axis=1)
        assert np.abs(found[~same]).max() < limit


def test_double_precision_and_no_value_twice(large):
    """bfloat16 would leave a few hundred distinct values, float32 nine in ten."""
    assert large.dtype is torch.float64
    assert len(np.unique(large.numpy())) == DRAWN


def test_calls_are_independent():
    first, second = (gaussian(200_000, 1.0).numpy() for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 200_000**0.5
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 5 / 200_000**0.5


def test_no_seed_replays_it():
    def draw() -> tuple[torch.Tensor, int]:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return gaussian(64, 1.0), int(fresh_generator().integers(2**62))

    (first, one), (second, two) = draw(), draw()
    assert not torch.equal(first, second)
    assert one != two


def test_every_draw_asks_the_operating_system_for_a_key(monkeypatch):
    asked = []

    def key(bits: int) -> int:
        asked.append(bits)
        return len(asked)

    monkeypatch.setattr("core.privacy.noise.secrets.randbits", key)
    gaussian(4, 1.0)
    gaussian(4, 1.0)
    assert asked == [128, 128]


def test_four_independent_draws_are_summed(monkeypatch):
    """As the statement in the release says."""

    class Counting:
        calls = 0

        def standard_normal(self, size: int) -> np.ndarray:
            Counting.calls += 1
            return np.full(size, float(10**Counting.calls))

    monkeypatch.setattr("core.privacy.noise.fresh_generator", Counting)
    assert gaussian(1, 1.0).item() == (10 + 100 + 1_000 + 10_000) / 2
    assert "four independent" in STATEMENT
