"""Unit gradients layer by layer, from one backward pass over several units.

The pass computes only the gradients of the layers' outputs. Each layer then makes the
gradients of its own weights, apart for each unit, from what went in and what came back:
the rows of a unit are folded into the sum that an ordinary weight gradient takes over
positions, so no gradient of a single row ever exists (book-keeping, Bu et al. 2023,
arXiv 2210.00038, with the multiplicity of De et al. 2022 folded in).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.privacy.gradients.rows import Problem, UnitRows

Rule = Callable[[nn.Module, Tensor, Tensor, int], dict[str, Tensor]]
"""(layer, its input [n, …], its output's gradient [n, …], units b) → name of a weight
→ its gradients [b, …]. The n rows are those of b units, one after the other."""


def _linear(layer: nn.Module, given: Tensor, came: Tensor, b: int) -> dict[str, Tensor]:
    put_in = given.reshape(b, -1, given.shape[-1])
    back = came.reshape(b, -1, came.shape[-1])
    return {"weight": back.transpose(1, 2) @ put_in, "bias": back.sum(dim=1)}


def _convolution(
    layer: nn.Module, given: Tensor, came: Tensor, b: int
) -> dict[str, Tensor]:
    assert isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple)
    if _looks_at_points(layer):
        found = _linear(layer, given.flatten(2).mT, came.flatten(2).mT, b)
        return found | {"weight": found["weight"][..., None, None]}
    weight = layer.weight.to(came.dtype)
    # One call for each unit: unfolding the input would take nine times its memory.
    of_units = [
        torch.ops.aten.convolution_backward(
            back, own, weight, [layer.out_channels], layer.stride, layer.padding,
            layer.dilation, False, [0, 0], layer.groups, (False, True, True),
        )
        for own, back in zip(given.chunk(b), came.chunk(b), strict=True)
    ]  # fmt: skip
    _, weights, biases = zip(*of_units, strict=True)
    return {"weight": torch.stack(weights), "bias": torch.stack(biases)}


def _looks_at_points(layer: nn.Conv2d) -> bool:
    """Whether it is a linear layer at each point: one product does for all units."""
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.groups)
    return shape == ((1, 1), (1, 1), (0, 0), 1)


def _normalisation(
    layer: nn.Module, given: Tensor, came: Tensor, b: int
) -> dict[str, Tensor]:
    assert isinstance(layer, nn.GroupNorm)
    n, groups, channels = len(given), layer.num_groups, layer.num_channels
    # Its statistics are never taken in half precision.
    given, came = given.to(layer.weight.dtype), came.to(layer.weight.dtype)
    positions = given[0, 0].numel()
    _, means, scales = torch.native_group_norm(
        given, None, None, n, channels, positions, groups, layer.eps
    )
    put_in, back, r = given.contiguous(), came.contiguous(), n // b
    found = [
        torch.ops.aten.native_group_norm_backward(
            back[i : i + r], put_in[i : i + r], means[i : i + r], scales[i : i + r],
            layer.weight, r, channels, positions, groups, (False, True, True),
        )
        for i in range(0, n, r)
    ]  # fmt: skip
    _, weights, biases = zip(*found, strict=True)
    return {"weight": torch.stack(weights), "bias": torch.stack(biases)}


def _embedding(
    layer: nn.Module, given: Tensor, came: Tensor, b: int
) -> dict[str, Tensor]:
    assert isinstance(layer, nn.Embedding)
    table = came.new_zeros(b, *layer.weight.shape)
    unit = torch.arange(b, device=given.device).repeat_interleave(given.numel() // b)
    index = (unit, given.reshape(-1))
    table.index_put_(index, came.reshape(-1, came.shape[-1]), accumulate=True)
    return {"weight": table}


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _normalisation,
    nn.Embedding: _embedding,
}


def supports(problem: Problem) -> bool:
    """Whether every trained weight belongs to one layer, for which there is a rule."""
    owners = _owners(problem)
    places = problem.network.named_parameters(remove_duplicate=False)
    wanted = sum(weight.requires_grad for _, weight in places)
    return len(owners) == wanted and all(
        type(layer) in _RULES
        and not (isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str))
        and not (isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros")
        and not (isinstance(layer, nn.Embedding) and layer.padding_idx is not None)
        and not (isinstance(layer, nn.Embedding) and layer.max_norm is not None)
        for layer, _ in owners.values()
    )


def _owners(problem: Problem) -> dict[str, tuple[nn.Module, str]]:
    """For each trained weight, the layer that has it, and its name there."""
    trained = problem.trained()
    return {
        f"{place}.{name}" if place else name: (layer, name)
        for place, layer in problem.network.named_modules()
        for name, _ in layer.named_parameters(recurse=False)
        if (f"{place}.{name}" if place else name) in trained
    }


class _Books:
    """The gradients that one backward pass has made so far."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.found: dict[tuple[nn.Module, str], Tensor] = {}

    def enter(self, layer: nn.Module, gradients: dict[str, Tensor]) -> None:
        """Add to what is there: a layer may be used more than once."""
        for name, gradient in gradients.items():
            key = (layer, name)
            known = self.found.get(key)
            self.found[key] = gradient if known is None else known + gradient


@contextmanager
def layerwise(problem: Problem) -> Iterator[Callable[[UnitRows], list[Tensor]]]:
    """The computation, for the length of the block.

    Meanwhile no weight requires a gradient, so that the backward pass makes none.
    """
    owners = list(_owners(problem).values())
    weights = list(problem.trained().values())
    wanted: dict[nn.Module, set[str]] = {}
    for layer, name in owners:
        wanted.setdefault(layer, set()).add(name)
    # Each thread makes passes of its own through the same layers.
    passes = threading.local()

    def watch(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        books: _Books = passes.books
        if not output.requires_grad:
            output = output.requires_grad_()
        inputs = given[0].detach()
        if inputs.is_floating_point():
            inputs = inputs.to(output.dtype)

        def came_back(gradient: Tensor) -> None:
            with torch.no_grad():
                made = _RULES[type(layer)](layer, inputs, gradient, books.units)
                own = {k: v for k, v in made.items() if k in wanted[layer]}
                books.enter(layer, own)

        output.register_hook(came_back)  # type: ignore[no-untyped-call]
        return output

    def compute(rows: UnitRows) -> list[Tensor]:
        books = passes.books = _Books(len(rows))
        torch.autograd.backward(problem.loss(rows))
        # A missing entry is a weight that the loss does not reach: a bug to hear of.
        return [books.found.pop(owner) for owner in owners]

    handles: list[RemovableHandle] = [
        layer.register_forward_hook(watch) for layer in wanted
    ]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield compute
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        for handle in handles:
            handle.remove()
