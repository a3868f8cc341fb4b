"""Poisson sampling: one independent coin per unit, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from core.privacy.sampling import batch_cap, draw_units

PRESENT, PROBABILITY, DRAWS = 40, 0.3, 6_000


@pytest.fixture(scope="module")
def included() -> np.ndarray:
    """bool [draws, units]."""
    matrix = np.zeros((DRAWS, PRESENT), bool)
    for row in matrix:
        row[draw_units(PRESENT, PROBABILITY, PRESENT)] = True
    return matrix


def test_sizes_are_binomial(included):
    sizes = included.sum(axis=1)
    law = stats.binom(PRESENT, PROBABILITY)
    edges = np.arange(6, 20)
    observed = np.bincount(np.clip(sizes, 6, 19) - 6, minlength=14)
    shares = law.pmf(edges)
    shares[0], shares[-1] = law.cdf(6), law.sf(18)
    assert stats.chisquare(observed, DRAWS * shares).pvalue > 1e-6


def test_every_unit_is_drawn_equally_often(included):
    counts = included.sum(axis=0)
    variance = DRAWS * PROBABILITY * (1 - PROBABILITY)
    statistic = ((counts - DRAWS * PROBABILITY) ** 2 / variance).sum()
    assert 1e-6 < stats.chi2(PRESENT).sf(statistic) < 1 - 1e-6


def test_units_are_drawn_independently(included):
    """A shuffle or a fixed batch size has pairs of covariance −q(1−q)/(n−1)."""
    centred = included - PROBABILITY
    covariance = centred.T @ centred / DRAWS
    pairs = covariance[np.triu_indices(PRESENT, 1)]
    error = PROBABILITY * (1 - PROBABILITY) / (DRAWS * len(pairs)) ** 0.5
    fixed_size = -PROBABILITY * (1 - PROBABILITY) / (PRESENT - 1)
    assert abs(pairs.mean()) < 5 * error < abs(fixed_size)


def test_no_unit_twice_and_none_that_is_not_there():
    for _ in range(200):
        units = draw_units(12, 0.7, 12)
        assert len(set(units.tolist())) == len(units)
        assert all(0 <= unit < 12 for unit in units)


def test_cut_samples_are_uniform_subsets():
    counts = np.zeros(10)
    for _ in range(4_000):
        units = draw_units(10, 0.9, 3)
        assert len(units) <= 3
        counts[units] += 1
    assert stats.chisquare(counts).pvalue > 1e-6


def test_empty_samples_are_a_normal_outcome():
    sizes = [len(draw_units(3, 0.05, 3)) for _ in range(200)]
    assert sizes.count(0) > 100
    assert len(draw_units(0, 0.5, 10)) == 0


@pytest.mark.parametrize(
    ("population", "probability", "cap"),
    [(60_000, 4096 / 60_000, 4467), (10, 0.9, 10), (100, 0.01, 7)],
)
def test_cap_is_mean_and_six_deviations(population, probability, cap):
    assert batch_cap(population, probability) == cap
