"""The ways to compute unit gradients, behind one interface.

with strategy.ready(problem) as gradients_of:
    gradients_of(rows)     # a list: for each trained parameter, [b, …]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from core.privacy.gradients.layerwise import layerwise, supports
from core.privacy.gradients.rows import Problem, UnitRows

Compute = Callable[[UnitRows], list[Tensor]]
"""rows → for each trained parameter, in their order: float [b, …], unit by unit."""


class Strategy(Protocol):
    """One way to compute unit gradients.

    Attributes:
        name: For people and reports.
        joint: Whether it takes several units at a time.
        side_by_side: Whether several threads may use it at once.
        copies: Whether each unit gets weights of its own.
    """

    name: str
    joint: bool
    side_by_side: bool
    copies: bool

    def suits(self, problem: Problem) -> bool:
        """Whether it can train this network."""

    def ready(self, problem: Problem) -> AbstractContextManager[Compute]:
        """The computation, usable within the block. What is trained stays as it is."""


class OneByOne:
    """One backward pass for each unit, over all its rows."""

    name, joint, side_by_side = "one by one", False, True
    copies = False

    def suits(self, problem: Problem) -> bool:
        return True

    @contextmanager
    def ready(self, problem: Problem) -> Iterator[Compute]:
        weights = list(problem.trained().values())

        def compute(rows: UnitRows) -> list[Tensor]:
            found = torch.autograd.grad(problem.loss(rows), weights)
            return [gradient.unsqueeze(0) for gradient in found]

        yield compute


class Vectorised:
    """torch.func: one call for several units, each with weights of its own."""

    # It exchanges the network's weights while it runs.
    name, joint, side_by_side = "vectorised", True, False
    copies = True

    def suits(self, problem: Problem) -> bool:
        return True

    @contextmanager
    def ready(self, problem: Problem) -> Iterator[Compute]:
        weights = {name: it.detach() for name, it in problem.trained().items()}

        def loss(
            own: dict[str, Tensor], inputs: tuple[Tensor, ...], shares: Tensor
        ) -> Tensor:
            def network(*given: Tensor) -> Tensor:
                answer: Tensor = functional_call(problem.network, own, given)
                return answer

            losses = problem.losses(network, inputs)
            return (losses * shares).sum()

        of_each = vmap(grad(loss), in_dims=(None, 0, 0))

        def compute(rows: UnitRows) -> list[Tensor]:
            with warnings.catch_warnings():
                # Said of each layer that it cannot take at once. The timing tells.
                warnings.filterwarnings("ignore", "There is a performance drop")
                found = of_each(weights, rows.inputs, rows.weights)
            return [found[name] for name in weights]

        yield compute


class Layerwise:
    """One backward pass for several units; each layer keeps their gradients apart."""

    name, joint, side_by_side = "layer by layer", True, True
    copies = False

    def suits(self, problem: Problem) -> bool:
        return supports(problem)

    def ready(self, problem: Problem) -> AbstractContextManager[Compute]:
        return layerwise(problem)


STRATEGIES: tuple[Strategy, ...] = (OneByOne(), Layerwise(), Vectorised())
"""In the order in which they are tried."""


def strategy_named(name: str) -> Strategy:
    """One of `STRATEGIES`."""
    return next(strategy for strategy in STRATEGIES if strategy.name == name)
