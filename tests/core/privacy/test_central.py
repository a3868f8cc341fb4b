"""One unit moves the sum behind the central images by at most 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from core.privacy.central import sum_of_images
from core.privacy.moments import Contributions
from tests.core.privacy.neighbours import CLASSES, WIDTH, others, units, with_unit


def moved_by(vectors: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """By one more unit."""
    after = sum_of_images(with_unit(vectors, labels))
    return after.double() - sum_of_images(others()).double()


@settings(max_examples=200, deadline=None)
@given(unit=units)
def test_a_unit_moves_the_sum_by_at_most_one(unit):
    assert float(moved_by(*unit).norm()) <= 1 + 1e-6


@pytest.mark.parametrize("count", [1, 10])
def test_a_patient_weighs_as_much_as_an_image(count):
    """Long vectors of one class: exactly at the bound, however many."""
    far = np.full((count, WIDTH), 100, np.float32)
    moved = moved_by(far, np.ones(count, np.int64)).view(CLASSES, WIDTH)
    assert abs(float(moved.norm()) - 1) < 1e-6
    assert torch.equal(moved[[0, 2]], torch.zeros(2, WIDTH).double())


def test_vectors_that_are_not_finite_add_nothing():
    broken = np.array([[1, np.nan, 0, 0], [np.inf, 0, 0, 0]], np.float32)
    assert torch.equal(moved_by(broken, np.array([1, 2])), torch.zeros(12).double())


def test_short_vectors_are_added_as_they_are():
    short = np.array([[0.5, 0, 0, -0.5]], np.float32)
    moved = moved_by(short, np.array([2])).view(CLASSES, WIDTH)
    torch.testing.assert_close(moved[2].float(), torch.from_numpy(short[0]))


def test_the_sum_is_not_rounded_before_its_noise():
    """What a unit adds is there to many more places than single precision has."""
    faint = np.array([[3e-7, 0, 0, 0]], np.float32)
    moved = moved_by(faint, np.array([2])).view(CLASSES, WIDTH)
    assert float(moved[2, 0]) == pytest.approx(float(faint[0, 0]), rel=1e-6)


def test_a_draw_of_nobody_gives_zeros():
    nobody = Contributions(
        coefficients=torch.zeros(0, WIDTH),
        labels=torch.zeros(0, dtype=torch.long),
        weights=torch.zeros(0),
        classes=CLASSES,
    )
    assert torch.equal(sum_of_images(nobody), torch.zeros(CLASSES * WIDTH))
