"""One unit moves the sum by at most the clip norm, whatever its gradient is."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from core.parallel import Workers
from core.privacy.clipping import add_clipped, batched_clipped_sum, clipped_sum

CLIP_NORM = 1e-3
SIZE = 7

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
hostile = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, 1e30, -1e30, 3e38, 1e-40, 1e-45, 1e-3]),
)


def vectors(numbers):
    return st.lists(numbers, min_size=SIZE, max_size=SIZE).map(
        lambda values: [torch.tensor(values[:3]), torch.tensor(values[3:]).view(2, 2)]
    )


@pytest.fixture(params=[1, 2, 3])
def pool(request):
    workers = Workers(request.param)
    yield workers
    workers.close()


def clip(gradient, clip_norm: float) -> torch.Tensor:
    """What one unit adds."""
    total = torch.zeros(sum(part.numel() for part in gradient), dtype=torch.float64)
    add_clipped(total, [part[None] for part in gradient], clip_norm)
    return total


def norm_of(vector: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(vector.double()))


@settings(max_examples=200, deadline=None)
@given(gradient=vectors(hostile), clip_norm=st.sampled_from([1e-3, 1.0, 50.0]))
def test_clip_bounds_any_input(gradient, clip_norm):
    clipped = clip(gradient, clip_norm)
    assert clipped.shape == (SIZE,)
    assert norm_of(clipped) <= clip_norm * (1 + 1e-9)
    whole = torch.cat([part.reshape(-1) for part in gradient])
    if not torch.isfinite(whole).all():
        assert not clipped.any()


@pytest.mark.parametrize("value", [1e-3, 1e5, 1e18])
def test_clip_bounds_a_million_equal_numbers(value):
    """Where a single-precision norm comes out 7e-4 too small."""
    clipped = clip([torch.full((1_701_836,), value)], CLIP_NORM)
    assert norm_of(clipped) <= CLIP_NORM * (1 + 1e-9)
    assert norm_of(clipped) >= CLIP_NORM * (1 - 1e-5)


@pytest.mark.parametrize("size", [1, SIZE, 100_000])
def test_long_gradient_is_shortened_to_the_norm_and_keeps_its_direction(size):
    gradient = torch.randn(size)
    gradient *= 5 * CLIP_NORM / norm_of(gradient)
    clipped = clip([gradient], CLIP_NORM)
    expected = gradient.double() / 5
    torch.testing.assert_close(clipped, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("length", [0.0, 1e-40, 0.5, 0.999])
def test_short_gradient_is_left_alone(length):
    gradient = torch.zeros(SIZE)
    gradient[2] = length * CLIP_NORM
    assert torch.equal(clip([gradient], CLIP_NORM), gradient.double())


def test_the_norm_is_that_of_all_parts_together():
    """Clipping each layer to C would let a unit weigh C·√layers."""
    parts = [torch.full((4,), 1.0), torch.full((2, 2), 1.0)]
    assert norm_of(clip(parts, 1.0)) <= 1 + 1e-6


@settings(max_examples=60, deadline=None)
@given(present=st.lists(vectors(finite), max_size=5), extra=vectors(hostile))
def test_adding_a_unit_moves_the_sum_by_at_most_the_clip_norm(present, extra):
    gradients = [*present, extra]
    pool = Workers(1)

    def total(units: range) -> torch.Tensor:
        return clipped_sum(
            np.array(units, dtype=np.int64),
            lambda unit: gradients[unit],
            clip_norm=CLIP_NORM,
            size=SIZE,
            pool=pool,
        ).double()

    moved = total(range(len(gradients))) - total(range(len(present)))
    pool.close()
    assert norm_of(moved) <= CLIP_NORM * (1 + 1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("size", [SIZE, 600_000])
def test_numbers_of_any_precision_add_what_single_precision_would(kind, size):
    """Nothing of the sum is rounded to fewer digits; parts may differ in precision."""
    # Of one sign: sums that cancel would lose digits however they are made.
    gradient = torch.rand(2, size, generator=torch.Generator().manual_seed(0))
    parts = [gradient[:, :3].contiguous(), gradient[:, 3:].contiguous().to(kind)]
    sums = torch.zeros(2, size, dtype=torch.float64)
    add_clipped(sums[0], [part.clone() for part in parts], CLIP_NORM)
    add_clipped(sums[1], [part.float() for part in parts], CLIP_NORM)
    assert norm_of(sums[1]) > CLIP_NORM
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-6, atol=0)


def random_gradients(count: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.randn(SIZE, generator=generator) * 10 ** (index % 5 - 5)]
        for index in range(count)
    ]


def test_sum_is_that_of_the_clipped_units_for_any_workers_and_order(pool):
    gradients = random_gradients(20)
    expected = sum(clip(gradient, CLIP_NORM).double() for gradient in gradients)
    for order in (np.arange(20), np.random.default_rng(0).permutation(20)):
        total = clipped_sum(
            order,
            lambda unit: gradients[unit],
            clip_norm=CLIP_NORM,
            size=SIZE,
            pool=pool,
        )
        torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-9)


def test_sum_is_additive_over_disjoint_sets(pool):
    gradients = random_gradients(9)

    def total(units: list[int]) -> torch.Tensor:
        return clipped_sum(
            np.array(units),
            lambda unit: gradients[unit],
            clip_norm=CLIP_NORM,
            size=SIZE,
            pool=pool,
        )

    together = total(list(range(9)))
    apart = total([0, 3, 8]) + total([1, 2, 4, 5, 6, 7])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-9)


def test_empty_sample_sums_to_zero(pool):
    def never(unit: int):
        raise AssertionError("no unit was drawn")

    total = clipped_sum(
        np.array([], np.int64), never, clip_norm=CLIP_NORM, size=SIZE, pool=pool
    )
    assert total.shape == (SIZE,) and not total.any()


def test_the_sum_of_no_unit_is_where_the_others_are():
    """On a graphics card an empty step would else end in an error, charged."""
    pool, place = Workers(2), torch.device("meta")
    total = batched_clipped_sum(
        np.array([], np.int64), lambda part: [], clip_norm=1.0, size=3, pool=pool,
        device=place,
    )  # fmt: skip
    pool.close()
    assert total.device == place


def test_among_many_a_unit_still_moves_the_sum_by_its_own_length():
    """In single precision 15,000 others round it to a multiple of a thousandth."""
    pool = Workers(1)

    def total(count: int) -> torch.Tensor:
        return batched_clipped_sum(
            np.arange(count),
            lambda part: [[torch.full((len(part), 1), 0.7)]],
            clip_norm=1.0,
            size=1,
            pool=pool,
        )

    moved = float(total(15_001).double() - total(15_000).double())
    pool.close()
    assert moved == pytest.approx(0.7, rel=1e-7)


@pytest.mark.parametrize("given", [[0, 1, 2], [0, 1, 1, 2, 2], [0]])
def test_a_unit_that_is_lost_or_comes_twice_is_noticed(given):
    """A unit added twice would weigh twice its clip norm."""
    gradients = random_gradients(3)
    pool = Workers(1)
    with pytest.raises(RuntimeError, match="of 4 units"):
        batched_clipped_sum(
            np.arange(4),
            lambda part: ([gradients[unit][0][None]] for unit in given),
            clip_norm=CLIP_NORM,
            size=SIZE,
            pool=pool,
        )
    pool.close()
