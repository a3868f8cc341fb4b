"""Centres and axes of many points: of public ones, or of what was released."""

from __future__ import annotations

import torch
from torch import Tensor

OVERSAMPLED = 60
"""Directions beyond those wanted, that the wanted ones are found among."""


def k_means(points: Tensor, number: int, iterations: int) -> Tensor:
    """Centres of cells (Lloyd 1982), begun with the first points: float32 [number, w].

    Args:
        points: float32 [n, w], n ≥ 1; when there are too few, some begin twice.
    """
    centres = points[torch.arange(number) % len(points)].clone()
    for _ in range(iterations):
        cells = torch.cdist(points, centres).argmin(dim=1)
        for cell in cells.unique().tolist():
            centres[cell] = points[cells == cell].mean(dim=0)
    return centres


def principal_axes(
    centred: Tensor, number: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The directions in which points differ most, the longest first.

    Randomised singular vectors after one power iteration (Halko et al. 2011, sec. 4).

    Args:
        centred: float32 [n, d], of mean 0.
        number: Directions wanted; there are no more than n or d.

    Returns:
        (float32 [k, d], singular values float32 [k]), k ≤ number.
    """
    width = min(number + OVERSAMPLED, *centred.shape)
    guess = torch.randn(centred.shape[1], width, generator=generator)
    basis = torch.linalg.qr(centred @ (centred.T @ (centred @ guess)))[0]
    _, lengths, axes = torch.linalg.svd(basis.T @ centred, full_matrices=False)
    return axes[:number], lengths[:number]
