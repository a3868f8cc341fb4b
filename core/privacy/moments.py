"""Noisy class moments: the sums that the moment warm-up releases.

A unit contributes the weighted coefficients of its images in a public basis, and their
outer products around the released means. Both sums are bounded per unit here; the noise
is added in `mechanism.private_sum`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

PORTION = 8192


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """The private input of a moment release.

    Attributes:
        coefficients: float32 [n, d], one row per image, in a public basis.
        labels: int64 [n] in [0, classes).
        weights: float64 [n], > 0; the weights of one unit's images add up to 1 or less.
        classes: Number of classes; public.
    """

    coefficients: Tensor
    labels: Tensor
    weights: Tensor
    classes: int


def shortened(vectors: Tensor, clip_norm: float) -> Tensor:
    """Rows of norm at most 1: v / C, shortened to 1; rows not finite become zero.

    Guarantee: for any input whatever, each row has a norm of at most 1 + 1e-9 and
    depends on its own numbers only.

    Args:
        vectors: Floating point [n, d].

    Returns:
        float64 [n, d].
    """
    # PRIVACY: a single-precision norm of some ten thousand numbers can come out 1e-5
    # too small.
    vectors = vectors.double()
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    # PRIVACY: a row that is not finite contributes nothing.
    finite = torch.isfinite(norms)
    # PRIVACY: the sensitivity of both sums.
    scale = 1 / torch.clamp(norms, min=clip_norm)
    return torch.where(finite, vectors * scale, torch.zeros_like(vectors))


def sum_of_means(data: Contributions, clip_norm: float) -> Tensor:
    """Σ weight·(z/C, 1)/√2 per class, z shortened to norm C: float64 [classes, d + 1].

    The last column counts, so that a mean is the ratio of two released figures, and
    the true size of a class is never used.

    Guarantee: one unit moves it by at most 1 in L2 norm: its rows have norm ≤ 1 each
    and weights of sum ≤ 1.
    """
    d = data.coefficients.shape[1]
    total = torch.zeros(data.classes, d + 1, dtype=torch.float64)
    for part in _portions(data):
        short = shortened(data.coefficients[part], clip_norm)
        rows = torch.cat([short, torch.ones(len(short), 1)], dim=1) / 2**0.5
        total.index_add_(0, data.labels[part], rows * data.weights[part][:, None])
    return total


def sum_of_squares(data: Contributions, means: Tensor, clip_norm: float) -> Tensor:
    """Σ weight·vech(r rᵀ)/C² per class, r = z − mean of its class, shortened to C.

    vech stacks the upper triangle with off-diagonals times √2, so that its norm is the
    Frobenius norm.

    Guarantee: for `means` released before (or public), one unit moves it by at most 1
    in L2 norm: ‖r rᵀ‖ = ‖r‖² ≤ C² for each row, and weights of sum ≤ 1.

    Returns:
        float64 [classes, d·(d+1)/2].
    """
    d = data.coefficients.shape[1]
    squares = torch.zeros(data.classes, d, d, dtype=torch.float64)
    for part in _portions(data):
        labels = data.labels[part]
        rows = shortened(data.coefficients[part] - means[labels], clip_norm)
        rows *= data.weights[part].sqrt()[:, None]
        for label in range(data.classes):
            own = rows[labels == label]
            squares[label] += own.T @ own
    upper = torch.triu_indices(d, d)
    stretch = torch.where(upper[0] == upper[1], 1.0, 2**0.5)
    return squares[:, upper[0], upper[1]] * stretch


def _portions(data: Contributions) -> Iterator[slice]:
    """So many rows at a time that their copies in double precision are small."""
    for first in range(0, len(data.labels), PORTION):
        yield slice(first, first + PORTION)


def unstack(stacked: Tensor, d: int) -> Tensor:
    """The inverse of vech: float [classes, d·(d+1)/2] → symmetric [classes, d, d]."""
    upper = torch.triu_indices(d, d)
    stretch = torch.where(upper[0] == upper[1], 1.0, 2**0.5)
    square = torch.zeros(len(stacked), d, d)
    square[:, upper[0], upper[1]] = stacked / stretch
    square[:, upper[1], upper[0]] = stacked / stretch
    return square
