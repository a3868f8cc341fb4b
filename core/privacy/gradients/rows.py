"""What unit gradients are computed from: rows of a network's input, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Network = Callable[..., Tensor]
"""A network, or a function that computes the same with other weights."""

RowLosses = Callable[[Network, tuple[Tensor, ...]], Tensor]
"""(network, inputs [n, …]) → losses [n]; each depends on its own row only."""


@dataclass(frozen=True, kw_only=True)
class UnitRows:
    """The rows of a few units.

    Attributes:
        inputs: [b, r, …] each, what the losses are computed from; unit by unit.
        weights: float [b, r], a row's share in its unit's mean loss: they add up to 1
            over a unit's rows, and are 0 for rows that only fill up.
    """

    inputs: tuple[Tensor, ...]
    weights: Tensor

    def __len__(self) -> int:
        """How many units."""
        return len(self.weights)

    @property
    def rows(self) -> int:
        """Rows of each unit, the filling included."""
        return self.weights.shape[1]

    def units(self, first: int, last: int) -> UnitRows:
        """Some of the units."""
        part = slice(first, last)
        return UnitRows(
            inputs=tuple(tensor[part] for tensor in self.inputs),
            weights=self.weights[part],
        )

    def filled(self, units: int) -> UnitRows:
        """As many units: behind the last one the first again and again."""
        if len(self) == units:
            return self
        index = torch.arange(units)
        index[len(self) :] = 0
        return UnitRows(
            inputs=tuple(tensor[index] for tensor in self.inputs),
            weights=self.weights[index],
        )

    def split(self, rows: int) -> Iterator[UnitRows]:
        """The same units, at most so many rows of each at a time."""
        parts = zip(
            *(torch.split(tensor, rows, dim=1) for tensor in self.inputs), strict=True
        )
        weights = torch.split(self.weights, rows, dim=1)
        for inputs, part in zip(parts, weights, strict=True):
            yield UnitRows(inputs=inputs, weights=part)

    def flat(self) -> tuple[Tensor, ...]:
        """The inputs as the network takes them: [b·r, …] each."""
        return tuple(tensor.flatten(0, 1) for tensor in self.inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A network to train, and its loss.

    Attributes:
        network: In evaluation mode; what has `requires_grad` is trained.
        losses: The loss of each row.
    """

    network: nn.Module
    losses: RowLosses

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name, in the order of the gradient's parts."""
        named = self.network.named_parameters()
        return {name: weight for name, weight in named if weight.requires_grad}

    def loss(self, rows: UnitRows, network: Network | None = None) -> Tensor:
        """Σ over the units of their mean loss: a scalar."""
        losses = self.losses(network or self.network, rows.flat())
        return (losses * rows.weights.flatten()).sum()
