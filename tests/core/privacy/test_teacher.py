"""One unit moves the sum of the teacher's gradients by at most 1."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from core.privacy import teacher as room
from core.privacy.accounting import Charge
from core.privacy.teacher import Lessons, noisy_gradient, sum_of_gradients

CLASSES, WIDTH, OTHERS = 3, 4, 5

hostile = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, 1e30, -3e38, 1e-40, 0.5, np.inf, np.nan]),
)
images = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        arrays(np.float32, (count, WIDTH), elements=hostile),
        arrays(np.int64, count, elements=st.integers(0, CLASSES - 1)),
    )
)
models = arrays(
    np.float32, (CLASSES, WIDTH), elements=st.floats(-1e6, 1e6, width=32)
).map(torch.from_numpy)
BLANK = torch.zeros(CLASSES, WIDTH)


def lessons(features, labels, units) -> Lessons:
    units = torch.as_tensor(units)
    return Lessons(
        coefficients=torch.as_tensor(features, dtype=torch.float32),
        labels=torch.as_tensor(labels),
        weights=1 / torch.bincount(units)[units].float(),
        units=units,
        classes=CLASSES,
    )


def moved_by(vectors, labels, model=BLANK) -> torch.Tensor:
    """By one more unit, whose images share a weight of 1."""
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(OTHERS, WIDTH, generator=generator)
    named = torch.arange(OTHERS) % CLASSES
    before = lessons(others, named, torch.arange(OTHERS))
    after = lessons(
        torch.cat([others, torch.as_tensor(vectors, dtype=torch.float32)]),
        torch.cat([named, torch.as_tensor(labels)]),
        torch.cat([torch.arange(OTHERS), torch.full((len(labels),), OTHERS)]),
    )
    moved = sum_of_gradients(after, model).double()
    return moved - sum_of_gradients(before, model).double()


def gradient(vectors, labels, model=BLANK) -> torch.Tensor:
    """Of the mean loss of a unit's images, by differentiation."""
    weights = model.double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        torch.as_tensor(vectors).double() @ weights.T, torch.as_tensor(labels)
    )
    return torch.autograd.grad(loss, weights)[0]


@settings(max_examples=300, deadline=None)
@given(unit=images, model=models)
def test_a_unit_moves_the_sum_by_at_most_one(unit, model):
    assert float(moved_by(*unit, model).norm()) <= 1 + 1e-6


@pytest.mark.parametrize("count", [1, 10])
def test_a_patient_weighs_as_much_as_an_image(count):
    far = np.full((count, WIDTH), 100, np.float32)
    moved = moved_by(far, np.ones(count, np.int64))
    assert abs(float(moved.norm()) - 1) < 1e-5


def test_short_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(0, 0.2, (3, WIDTH)), np.array([0, 2, 2])
    model = torch.from_numpy(rng.normal(size=(CLASSES, WIDTH))).float()
    expected = gradient(vectors, labels, model)
    moved = moved_by(vectors, labels, model)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_a_units_images_are_averaged_and_then_shortened_once():
    """The direction is that of the mean, however unlike the images are."""
    vectors = np.array([[30.0, 0, 0, 0], [0, 0.1, 0, 0]])
    moved, expected = moved_by(vectors, [0, 1]), gradient(vectors, [0, 1])
    alike = float((moved * expected).sum() / moved.norm() / expected.norm())
    assert alike > 1 - 1e-6 and 0.99 < float(moved.norm()) <= 1 + 1e-6


def test_rows_that_are_not_finite_add_nothing():
    broken = [[1, np.nan, 0, 0], [np.inf, 0, 0, 0]]
    assert torch.equal(moved_by(broken, [1, 2]), torch.zeros(CLASSES, WIDTH).double())
    whole = [0.1, 0.2, 0, 0]
    beside = moved_by([whole, broken[0]], [1, 2])
    torch.testing.assert_close(beside, gradient([whole], [1]) / 2, atol=1e-6, rtol=0)


def test_units_are_told_apart_across_portions(monkeypatch):
    rng = np.random.default_rng(1)
    data = lessons(rng.normal(0, 3, (9, WIDTH)), [0, 1, 2] * 3, [0, 0, 0, 1, 1, 1, 1,
                                                                 2, 3])  # fmt: skip
    whole = sum_of_gradients(data, BLANK)
    monkeypatch.setattr(room, "CHUNK", 2)
    torch.testing.assert_close(sum_of_gradients(data, BLANK), whole)


def test_the_sum_is_not_rounded_before_its_noise():
    """What a unit adds is there to many more places than single precision has."""
    faint = np.array([[3e-7, 0, 0, 0]])
    moved = moved_by(faint, [2])
    torch.testing.assert_close(moved, gradient(faint, [2]), rtol=1e-5, atol=0)


def test_nobody_gives_zeros():
    nobody = lessons(
        torch.zeros(0, WIDTH), torch.zeros(0).long(), torch.zeros(0).long()
    )
    assert torch.equal(sum_of_gradients(nobody, BLANK), BLANK)


def released(data: Lessons, sigma: float, declared: int, order: list | None = None):
    order = [] if order is None else order

    def read() -> Lessons:
        order.append("read")
        return data

    return noisy_gradient(
        read, BLANK, noise_multiplier=sigma, declared_count=declared,
        commit=order.append,
    )  # fmt: skip


def test_the_charge_comes_first_and_is_that_of_one_release():
    order: list = []
    released(lessons(torch.ones(2, WIDTH), [0, 1], [0, 1]), 7.0, 10, order)
    assert order == [Charge(noise_multiplier=7.0, count=1), "read"]


@pytest.mark.parametrize("present", [1, 40])
def test_it_is_divided_by_the_declared_count_however_many_are_there(present):
    same = lessons(
        torch.full((present, WIDTH), 0.1),
        torch.zeros(present).long(),
        torch.arange(present),
    )
    expected = sum_of_gradients(same, BLANK).float() / 50
    torch.testing.assert_close(released(same, 1e-7, 50), expected, atol=1e-6, rtol=0)


def test_every_number_carries_the_noise():
    """2,400 numbers of standard deviation σ / N."""
    data = lessons(torch.ones(2, WIDTH), [0, 1], [0, 1])
    clean = sum_of_gradients(data, BLANK) / 10
    noise = torch.stack([released(data, 5.0, 10) - clean for _ in range(200)])
    assert float(noise.std()) == pytest.approx(0.5, rel=0.1)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
