"""A small network with every kind of layer, and rows for it, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.privacy.gradients.rows import Network, Problem, UnitRows

SIDE, CHANNELS, CLASSES = 6, 4, 3


class Small(nn.Module):
    """Strides, dilation, groups, padding, points, a layer used twice, a label table."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = nn.Embedding(CLASSES, CHANNELS)
        self.first = nn.Conv2d(2, CHANNELS, 3, padding=1)
        self.norm = nn.GroupNorm(2, CHANNELS)
        self.strided = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=2, dilation=2, groups=2)
        self.points = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 1, stride=2),
            nn.Conv2d(CHANNELS, CHANNELS, 1, groups=2),
            nn.Conv2d(CHANNELS, CHANNELS, 1, padding=1),
            nn.Conv2d(CHANNELS, CHANNELS, 1),
        )
        self.twice = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.over_positions = nn.Linear(CHANNELS, CHANNELS)
        self.last = nn.Linear(CHANNELS, 2)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        features = self.first(images) + self.labels(labels)[:, :, None, None]
        features = torch.tanh(self.norm(features))
        around = self.points(features)[:, :, 1:-1, 1:-1]
        features = torch.tanh(self.strided(features) + around)
        features = features + self.twice(torch.tanh(self.twice(features)))
        features = torch.tanh(self.grouped(features))
        positions = features.flatten(2).transpose(1, 2)
        return self.last(torch.tanh(self.over_positions(positions)).mean(dim=1))


def squared(network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
    """The loss of each row."""
    images, labels, wanted = inputs
    return (network(images, labels) - wanted).square().mean(dim=1)


def make_problem(dtype: torch.dtype = torch.float64) -> Problem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Small().to(dtype)
    return Problem(network=network.eval(), losses=squared)


def make_rows(
    units: int, rows: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> UnitRows:
    """Random rows; `units` 0 too. Unit i is the same in every batch of these rows."""
    parts = []
    for unit in range(units):
        own = torch.Generator().manual_seed(1000 * seed + unit)
        parts.append(
            (
                torch.randn(rows, 2, SIDE, SIDE, generator=own, dtype=dtype),
                torch.randint(0, CLASSES, (rows,), generator=own),
                torch.randn(rows, 2, generator=own, dtype=dtype),
            )
        )
    if not parts:
        inputs: tuple[Tensor, ...] = (
            torch.zeros(0, rows, 2, SIDE, SIDE, dtype=dtype),
            torch.zeros(0, rows, dtype=torch.int64),
            torch.zeros(0, rows, 2, dtype=dtype),
        )
    else:
        inputs = tuple(torch.stack(column) for column in zip(*parts, strict=True))
    return UnitRows(
        inputs=inputs, weights=torch.full((units, rows), 1 / rows, dtype=dtype)
    )


def reference(problem: Problem, rows: UnitRows) -> Tensor:
    """Each unit's gradient by plain autograd, one row at a time: [b, d]."""
    weights = list(problem.trained().values())
    found = []
    for unit in range(len(rows)):
        total = torch.zeros(sum(w.numel() for w in weights), dtype=torch.float64)
        for row in range(rows.rows):
            inputs = tuple(tensor[unit, row : row + 1] for tensor in rows.inputs)
            loss = problem.losses(problem.network, inputs)[0]
            parts = torch.autograd.grad(loss, weights)
            flat = torch.cat([part.flatten() for part in parts]).double()
            total += rows.weights[unit, row].double() * flat
        found.append(total)
    return torch.stack(found) if found else torch.zeros(0, total_size(problem))


def total_size(problem: Problem) -> int:
    return sum(weight.numel() for weight in problem.trained().values())
