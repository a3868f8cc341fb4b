"""Is a network fit for gradients of single units? Looked at on random rows only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.privacy.gradients.rows import Problem, UnitRows

_COUPLING = (nn.modules.batchnorm._BatchNorm, nn.LocalResponseNorm)

SAME = 1e-3
"""Relative difference of a loss that rounding explains, in bfloat16 too."""


def check_fitness(problem: Problem, rows: UnitRows) -> None:
    """Refuse a network for which no bound on one unit would hold, or that cannot learn.

    Guarantee: of what comes through, no layer is known to couple units, and on random
    rows neither a unit's loss nor its gradient depended on another unit.

    Args:
        rows: Random, of at least two units; never private.

    Raises:
        UserError: when the network couples the images of a batch, draws random numbers
            of its own, answers with what is no number, or has a trained weight that
            the loss does not depend on.
    """
    for name, layer in problem.network.named_modules():
        # PRIVACY: a layer that mixes the images of a batch lets one unit push the
        # gradients of others, beyond any clip norm.
        if isinstance(layer, _COUPLING):
            raise _refused(
                f"its layer {name} ({type(layer).__name__}) mixes the images of a batch"
            )
    with torch.no_grad():
        together, again = _losses(problem, rows), _losses(problem, rows)
        alone = torch.cat(
            [_losses(problem, rows.units(unit, unit + 1)) for unit in range(len(rows))]
        )
    if not torch.isfinite(together).all():
        raise _refused("it answers with values that are not numbers")
    if not torch.equal(together, again):
        raise _refused("it draws random numbers of its own, such as dropout")
    # PRIVACY: the same, for a coupling that has no name.
    close = torch.allclose(together, alone, rtol=SAME, atol=SAME)
    if not close or _reaches_others(problem, rows):
        raise _refused("it mixes the images of a batch")
    _check_reached(problem, rows)


def _losses(problem: Problem, rows: UnitRows) -> Tensor:
    return problem.losses(problem.network, rows.flat())


def _reaches_others(problem: Problem, rows: UnitRows) -> bool:
    """Whether the first row's loss depends, however little, on another row."""
    inputs = tuple(
        tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor
        for tensor in rows.flat()
    )
    loss = problem.losses(problem.network, inputs)[0]
    read = [tensor for tensor in inputs if tensor.requires_grad]
    found = torch.autograd.grad(loss, read, allow_unused=True)
    return any(part is not None and bool((part[1:] != 0).any()) for part in found)


def _check_reached(problem: Problem, rows: UnitRows) -> None:
    trained = problem.trained()
    if not trained:
        raise UserError(
            "Nothing of the network is trained: choose a recipe that trains a part."
        )
    found = torch.autograd.grad(
        problem.loss(rows), list(trained.values()), allow_unused=True
    )
    for name, gradient in zip(trained, found, strict=True):
        if gradient is None:
            raise _refused(f"its weight {name} has no effect on the loss")


def _refused(why: str) -> UserError:
    return UserError(
        f"The checkpoint's network cannot be trained with privacy, as {why}: choose "
        "another checkpoint."
    )
