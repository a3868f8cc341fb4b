"""One unit moves each sum of the moment release by at most 1."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from core.privacy import moments as room
from core.privacy.moments import (
    Contributions,
    shortened,
    sum_of_means,
    sum_of_squares,
    unstack,
)
from tests.core.privacy.neighbours import (
    CLASSES,
    OTHERS,
    WIDTH,
    others,
    units,
    with_unit,
)


def crowd(count: int) -> Contributions:
    """So many units of one class, each as long as it may be."""
    return Contributions(
        coefficients=torch.ones(count, 1),
        labels=torch.zeros(count, dtype=torch.int64),
        weights=torch.ones(count),
        classes=1,
    )


@pytest.mark.parametrize("portion", [1, 7, OTHERS, OTHERS + 1])
def test_the_sums_do_not_hang_on_how_many_rows_are_taken_at_a_time(
    monkeypatch, portion
):
    data = others()
    means = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(1))
    whole = sum_of_means(data, 1.5), sum_of_squares(data, means, 1.5)
    monkeypatch.setattr(room, "PORTION", portion)
    again = sum_of_means(data, 1.5), sum_of_squares(data, means, 1.5)
    for found, expected in zip(again, whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_the_sums_of_a_million_units_are_not_rounded_before_their_noise():
    many = 1_000_000
    for count in range(many, many + 4):
        moved = norm_of(
            sum_of_means(crowd(count + 1), 1.0) - sum_of_means(crowd(count), 1.0)
        )
        assert moved <= 1 + 1e-6
    still = torch.zeros(1, 1)
    half = torch.full((1, 1), 1 - 0.7**0.5)  # Leaves 0.7 of each, which is not exact.
    for means in (still, half):
        more = sum_of_squares(crowd(many + 1), means, 1.0)
        assert norm_of(more - sum_of_squares(crowd(many), means, 1.0)) <= 1 + 1e-6
        assert more.dtype is torch.float64


def norm_of(difference: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(difference.double()))


@settings(max_examples=150, deadline=None)
@given(unit=units, clip_norm=st.sampled_from([0.5, 14.0]))
def test_a_unit_moves_the_sum_of_means_by_at_most_one(unit, clip_norm):
    moved = sum_of_means(with_unit(*unit), clip_norm) - sum_of_means(
        others(), clip_norm
    )
    assert norm_of(moved) <= 1 + 1e-5


@settings(max_examples=150, deadline=None)
@given(
    unit=units,
    clip_norm=st.sampled_from([0.5, 14.0]),
    means=arrays(np.float32, (CLASSES, WIDTH), elements=st.floats(-50, 50, width=32)),
)
def test_a_unit_moves_the_sum_of_squares_by_at_most_one(unit, clip_norm, means):
    centre = torch.from_numpy(means)
    moved = sum_of_squares(with_unit(*unit), centre, clip_norm) - sum_of_squares(
        others(), centre, clip_norm
    )
    assert norm_of(moved) <= 1 + 1e-5


def test_a_patient_weighs_no_more_than_an_image():
    """Ten equal images of one unit, each of full length: exactly at the bound."""
    far = np.full((10, WIDTH), 100, np.float32)
    labels = np.zeros(10, np.int64)
    means = torch.zeros(CLASSES, WIDTH)
    moved = sum_of_means(with_unit(far, labels), 2.0) - sum_of_means(others(), 2.0)
    assert abs(norm_of(moved) - 1) < 1e-5
    moved = sum_of_squares(with_unit(far, labels), means, 2.0) - sum_of_squares(
        others(), means, 2.0
    )
    assert abs(norm_of(moved) - 1) < 1e-5


@pytest.mark.parametrize("value", [0.013, 0.1, 3.0])
def test_long_rows_are_shortened_to_one_to_many_places(value):
    """Where a single-precision norm comes out 1e-5 too small."""
    rows = torch.full((2, 14_720), value)
    assert norm_of(shortened(rows, 1.0)[0]) <= 1 + 1e-9


def test_rows_that_are_not_finite_add_no_coefficients():
    broken = np.array([[1, np.nan, 0, 0], [np.inf, 0, 0, 0]], np.float32)
    labels = np.array([1, 2])
    moved = sum_of_means(with_unit(broken, labels), 1.0) - sum_of_means(others(), 1.0)
    assert torch.equal(moved[:, :-1], torch.zeros(CLASSES, WIDTH))
    means = torch.zeros(CLASSES, WIDTH)
    assert torch.equal(
        sum_of_squares(with_unit(broken, labels), means, 1.0),
        sum_of_squares(others(), means, 1.0),
    )


def test_without_noise_the_sums_give_back_mean_and_covariance():
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(500, WIDTH, generator=generator)
    drawn = drawn @ torch.randn(WIDTH, WIDTH, generator=generator)
    data = Contributions(
        coefficients=drawn,
        labels=torch.zeros(500, dtype=torch.long),
        weights=torch.ones(500),
        classes=1,
    )
    wide = 1_000.0
    sums = sum_of_means(data, wide).float() * 2**0.5
    means = sums[:, :-1] * wide / sums[:, -1:]
    torch.testing.assert_close(means[0], drawn.mean(dim=0), rtol=1e-4, atol=1e-4)
    stacked = sum_of_squares(data, means, wide).float()
    squares = unstack(stacked, WIDTH) * wide**2 / 500
    expected = torch.cov(drawn.T, correction=0)
    torch.testing.assert_close(squares[0], expected, rtol=1e-3, atol=1e-3)


def test_unstack_is_the_inverse_of_vech_and_keeps_norms():
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, WIDTH, generator=generator)
    data = Contributions(
        coefficients=row,
        labels=torch.zeros(1, dtype=torch.long),
        weights=torch.ones(1),
        classes=1,
    )
    length = float(row.norm())
    stacked = sum_of_squares(data, torch.zeros(1, WIDTH), length).float()
    square = unstack(stacked, WIDTH)[0]
    torch.testing.assert_close(square, row.T @ row / length**2)
    assert abs(norm_of(stacked) - norm_of(square)) < 1e-6
