"""Cells and axes of points whose cells and axes are known."""

from __future__ import annotations

import pytest
import torch

from core.training.points import k_means, principal_axes


def test_centres_are_the_means_of_their_cells():
    corners = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    noise = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    points = corners.repeat(100, 1) + noise
    expected = torch.stack([points[cell::3].mean(dim=0) for cell in range(3)])
    torch.testing.assert_close(k_means(points, 3, iterations=5), expected)


def test_more_cells_than_points():
    points = torch.tensor([[0.0], [5.0]])
    assert k_means(points, 3, iterations=2).flatten().tolist() == [0.0, 5.0, 0.0]


@pytest.mark.parametrize("number", [3, 100])
def test_axes_are_those_of_the_longest_spread(number):
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(80, 80, generator=generator))[0]
    spread = 0.8 ** torch.arange(80)
    points = torch.randn(500, 80, generator=generator) * spread @ turned
    points -= points.mean(dim=0)
    axes, lengths = principal_axes(points, number, generator)
    _, expected, exactly = torch.linalg.svd(points, full_matrices=False)
    kept = min(number, 80)
    assert axes.shape == (kept, 80) and lengths.shape == (kept,)
    torch.testing.assert_close(lengths[:3], expected[:3], rtol=1e-4, atol=0)
    alike = (axes[:3] * exactly[:3]).sum(dim=1).abs()
    torch.testing.assert_close(alike, torch.ones(3), rtol=0, atol=1e-4)
