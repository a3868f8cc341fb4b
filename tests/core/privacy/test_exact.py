"""Products that do not round: a row hangs on itself alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.privacy.exact import Grid, exact_product

COARSE = Grid(step=2.0**-10, limit=16.0)
FINE = Grid(step=2.0**-16, limit=1.0)


def test_a_row_alone_is_bit_for_bit_the_row_among_others():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(301, 784, generator=generator)
    columns = torch.randn(784, 126, generator=generator) / 28
    together = exact_product(rows, columns, COARSE, FINE)
    for number in (0, 7, 300):
        alone = exact_product(rows[number : number + 1], columns, COARSE, FINE)
        assert torch.equal(alone[0], together[number])
    backwards = exact_product(rows.flip(0), columns, COARSE, FINE)
    assert torch.equal(backwards.flip(0), together)


def test_it_is_the_product_of_whole_numbers():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(5, 900, generator=generator) * 20
    columns = torch.randn(900, 3, generator=generator)
    left = [[int(x) for x in row] for row in COARSE.steps(rows).tolist()]
    right = [[int(x) for x in row] for row in FINE.steps(columns).tolist()]
    exact = np.array(left, object) @ np.array(right, object)
    found = exact_product(rows, columns, COARSE, FINE) / (COARSE.step * FINE.step)
    assert np.array_equal(exact, found.numpy().astype(object))
    assert max(abs(x) for row in left for x in row) == 16 * 1024, "cut to the limit"


def test_what_is_no_number_counts_as_nothing():
    rows = torch.tensor([[float("nan"), 1.0], [float("inf"), 0.0]])
    found = exact_product(rows, torch.eye(2), COARSE, FINE)
    assert found.tolist() == [[0.0, 1.0], [16.0, 0.0]]


def test_sums_that_could_be_rounded_are_refused():
    rows = torch.zeros(1, 2**11)
    exact_product(rows[:, :1024], torch.zeros(1024, 1), Grid(2.0**-20, 16.0), FINE)
    with pytest.raises(ValueError, match="too fine"):
        exact_product(rows, torch.zeros(2**11, 1), Grid(2.0**-20, 128.0), FINE)
