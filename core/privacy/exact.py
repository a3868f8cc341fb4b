"""Products of matrices without rounding, where a private record decides something.

Which cell a record belongs to must hang on that record alone. A usual product of
matrices rounds a row differently with more or fewer rows beside it; near a border that
could send a record to another cell because somebody else is there, and the sums would
then move by more than one record.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 512
"""Rows at a time: in double precision, many images are large."""

EXACT = 2.0**53
"""Whole numbers up to here are exact in double precision."""


@dataclass(frozen=True)
class Grid:
    """Whole multiples of `step`, a power of 2, within [-limit, limit]."""

    step: float
    limit: float

    def steps(self, values: Tensor) -> Tensor:
        """The nearest on it, in steps: float64; what is not a number becomes 0."""
        clear = torch.nan_to_num(values.double(), nan=0.0)
        return clear.clamp_(-self.limit, self.limit).div_(self.step).round_()


def exact_product(rows: Tensor, columns: Tensor, left: Grid, right: Grid) -> Tensor:
    """`rows` @ `columns`, both brought to their grids first: float64 [n, m].

    Guarantee: row i of the result is a function of row i of `rows` and of `columns`,
    bit for bit, whatever else is in `rows`: every term and every partial sum is a
    whole number below 2^53, in whatever order they are added up.

    Args:
        rows: [n, d]; private.
        columns: [d, m]; public, or released before.

    Raises:
        ValueError: when sums could be too large to be exact.
    """
    largest = left.limit / left.step * right.limit / right.step * rows.shape[1]
    # PRIVACY: beyond this, sums are rounded, and rows no longer independent.
    if largest > EXACT:
        raise ValueError("grids too fine for exact sums")
    whole = right.steps(columns)
    product = torch.empty(len(rows), columns.shape[1], dtype=torch.float64)
    for part, found in zip(
        torch.split(rows, BLOCK), torch.split(product, BLOCK), strict=True
    ):
        torch.mm(left.steps(part), whole, out=found)
    return product.mul_(left.step * right.step)
