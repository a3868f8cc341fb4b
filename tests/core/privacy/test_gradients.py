"""Every strategy gives the same unit gradients, and nothing of one unit to another."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import UserError
from core.parallel import Hardware
from core.privacy import mechanism
from core.privacy.gradients import sums as sums_module
from core.privacy.gradients import tuner
from core.privacy.gradients.fitness import check_fitness
from core.privacy.gradients.layerwise import supports
from core.privacy.gradients.rows import Problem, UnitRows
from core.privacy.gradients.strategies import STRATEGIES
from core.privacy.gradients.sums import Pace, clipped_sums
from core.privacy.gradients.tuner import candidates, choose_pace
from core.privacy.mechanism import Mechanism, private_step
from tests.core.privacy.unit_network import (
    Small,
    make_problem,
    make_rows,
    reference,
    total_size,
)

CPU = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=2)
NAMES = [strategy.name for strategy in STRATEGIES]
MANY = 10_000
"""Units of a sum, on average: so many that they decide nothing."""


@pytest.fixture
def problem() -> Problem:
    return make_problem()


def gradients(
    problem: Problem, name: str, rows: UnitRows, at_once: int = 64
) -> torch.Tensor:
    """[b, d], through the portions of a training."""
    strategy = next(it for it in STRATEGIES if it.name == name)
    with strategy.ready(problem) as compute:
        batcher = sums_module._Batcher(strategy, compute, at_once)
        found = [
            torch.cat([part.flatten(1) for part in portion], dim=1)
            for portion in batcher.gradients(rows)
        ]
    return torch.cat(found) if found else torch.zeros(0, total_size(problem))


def summed(
    problem: Problem,
    rows: UnitRows,
    *,
    name: str = NAMES[0],
    clip_norm: float = 0.5,
    at_once: int = 64,
    threads: int = 1,
    units: np.ndarray | None = None,
) -> torch.Tensor:
    pace = Pace(strategy=name, rows_at_once=at_once, threads=threads)
    drawn = np.arange(len(rows)) if units is None else units
    with clipped_sums(
        problem, pace, CPU, rows=rows.rows, units=MANY, clip_norm=clip_norm
    ) as total_of:
        return total_of(drawn, lambda part: picked(rows, part))


def picked(rows: UnitRows, units: np.ndarray) -> UnitRows:
    index = torch.as_tensor(units)
    return UnitRows(
        inputs=tuple(tensor[index] for tensor in rows.inputs),
        weights=rows.weights[index],
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("units", "rows"), [(1, 1), (1, 5), (3, 1), (4, 3)])
def test_gradient_is_that_of_the_mean_over_the_rows(problem, name, units, rows):
    batch = make_rows(units, rows)
    torch.testing.assert_close(
        gradients(problem, name, batch), reference(problem, batch), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_only_fill_up_count_nothing(problem, name):
    batch = make_rows(3, 4)
    weights = batch.weights.clone()
    weights[1] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    found = gradients(problem, name, replace(batch, weights=weights))
    short = UnitRows(
        inputs=tuple(tensor[1:2, :2] for tensor in batch.inputs),
        weights=torch.full((1, 2), 0.5, dtype=torch.float64),
    )
    torch.testing.assert_close(
        found[1:2], reference(problem, short), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 100])
def test_portions_change_nothing(problem, name, at_once):
    batch = make_rows(3, 5)
    found = gradients(problem, name, batch, at_once)
    torch.testing.assert_close(found, reference(problem, batch), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frozen", [["first.bias"], ["labels.weight", "norm.weight"]])
def test_only_what_is_trained_has_a_gradient(problem, name, frozen):
    for weight in frozen:
        problem.network.get_parameter(weight).requires_grad_(False)
    batch = make_rows(2, 2)
    found = gradients(problem, name, batch)
    assert found.shape == (2, total_size(problem))
    torch.testing.assert_close(found, reference(problem, batch), rtol=0, atol=1e-10)
    trained = {n for n, w in problem.network.named_parameters() if w.requires_grad}
    assert trained == {n for n, _ in problem.network.named_parameters()} - set(frozen)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_a_unit_that_is_not_finite_spoils_no_other(problem, name, bad):
    batch = make_rows(3, 2)
    images = batch.inputs[0].clone()
    images[1, 0, 0, 0, 0] = bad
    spoilt = replace(batch, inputs=(images, *batch.inputs[1:]))
    found, whole = gradients(problem, name, spoilt), gradients(problem, name, batch)
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], rtol=0, atol=1e-10)
    if not np.isfinite(bad):
        total = summed(problem, spoilt, name=name)
        others = summed(problem, picked(batch, np.array([0, 2])), name=name)
        torch.testing.assert_close(total, others, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "threads"),
    [(it.name, n) for it in STRATEGIES for n in (1, 2) if n == 1 or it.side_by_side],
)
def test_the_sum_is_that_of_the_clipped_gradients(problem, name, threads):
    batch, bound = make_rows(7, 3), 1.0
    each = reference(problem, batch)
    lengths = each.norm(dim=1, keepdim=True)
    assert 0 < (lengths > bound).sum() < 7, "some are to be clipped, some not"
    expected = (each * (bound / lengths).clamp(max=1)).sum(dim=0)
    for order in (np.arange(7), np.array([3, 6, 0, 5, 1, 4, 2])):
        total = summed(
            problem, batch, name=name, clip_norm=bound, threads=threads, units=order
        )
        torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_sum_is_additive_over_disjoint_units(problem, name):
    """No batch statistic, no mean over the batch, nothing of another unit."""
    batch = make_rows(6, 2)
    first, second = np.array([0, 4]), np.array([1, 2, 3, 5])
    together = summed(problem, batch, name=name)
    apart = summed(problem, batch, name=name, units=first)
    apart = apart + summed(problem, batch, name=name, units=second)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_no_unit_gives_zero(problem, name):
    total = summed(problem, make_rows(2, 3), name=name, units=np.array([], np.int64))
    assert torch.equal(total, torch.zeros(total_size(problem)))


@pytest.mark.parametrize("name", NAMES)
def test_clipping_follows_the_mean_over_the_rows(problem, name):
    """Rows clipped one by one would give another vector, and another guarantee."""
    batch, bound = make_rows(1, 6), 0.05
    rows = torch.cat(
        [
            reference(problem, UnitRows(inputs=part.inputs, weights=6 * part.weights))
            for part in batch.split(1)
        ]
    )
    lengths = rows.norm(dim=1, keepdim=True)
    row_by_row = (rows * (bound / lengths).clamp(max=1)).mean(dim=0)
    mean = rows.mean(dim=0)
    once = summed(problem, batch, name=name, clip_norm=bound).double()
    torch.testing.assert_close(once, mean * bound / mean.norm(), rtol=1e-5, atol=1e-8)
    assert float((once - row_by_row).norm()) > 0.05 * bound


@pytest.mark.parametrize("name", NAMES)
def test_without_clipping_it_is_the_plain_gradient(problem, name):
    batch = make_rows(4, 3)
    total = summed(problem, batch, name=name, clip_norm=1e6) / 4
    weights = list(problem.trained().values())
    plain = torch.autograd.grad(problem.loss(batch) / 4, weights)
    flat = torch.cat([part.flatten() for part in plain])
    torch.testing.assert_close(total.double(), flat, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_once_all_are_clipped_the_loss_has_no_scale_and_the_norm_is_linear(
    problem, name
):
    batch = make_rows(4, 2)
    louder = replace(
        problem, losses=lambda network, inputs: 100 * problem.losses(network, inputs)
    )
    small, large = 1e-3, 2e-3
    total = summed(problem, batch, name=name, clip_norm=small)
    torch.testing.assert_close(
        summed(louder, batch, name=name, clip_norm=small), total, rtol=1e-4, atol=1e-9
    )
    torch.testing.assert_close(
        summed(problem, batch, name=name, clip_norm=large), 2 * total, rtol=1e-4,
        atol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_noise_is_added_once_whatever_the_portions(problem, monkeypatch, name, at_once):
    """Once per logical step, of the strength promised, and to the same sum."""
    batch, drawn = make_rows(6, 3), np.array([4, 0, 5, 2])
    made = Mechanism.poisson(
        population=12, batch_size=4, clip_norm=0.5, noise_multiplier=3.0, steps=1
    )
    asked = []

    def gaussian(size, standard_deviation):
        asked.append((size, standard_deviation))
        return torch.full((size,), standard_deviation)

    monkeypatch.setattr(mechanism, "gaussian", gaussian)
    monkeypatch.setattr(mechanism, "draw_units", lambda *_: drawn)
    noisy = private_step(
        made,
        present=6,
        clipped_sum=lambda units: summed(
            problem, batch, name=name, at_once=at_once, units=units
        ),
        commit=lambda charge: None,
    )
    assert asked == [(total_size(problem), 1.5)]
    exact = summed(problem, batch, units=drawn)
    torch.testing.assert_close(noisy, ((exact + 1.5) / 4).float(), rtol=1e-5, atol=1e-6)


class OnePassPerUnit(nn.Module):
    """Fails, as when memory runs out, on more rows than it can hold."""

    def __init__(self, most: int, message: str) -> None:
        super().__init__()
        self.network, self.most, self.message = Small().double().eval(), most, message
        self.sizes: list[int] = []

    def forward(self, images, labels):
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise RuntimeError(self.message)
        return self.network(images, labels)


@pytest.mark.parametrize("name", NAMES[:2])
def test_when_memory_runs_out_the_same_units_are_done_in_smaller_portions(
    problem, name
):
    batch = make_rows(4, 4)
    tight = OnePassPerUnit(3, "DefaultCPUAllocator: can't allocate memory")
    tight.network.load_state_dict(problem.network.state_dict())
    asked = []
    pace = Pace(strategy=name, rows_at_once=16, threads=1)
    with clipped_sums(
        replace(problem, network=tight), pace, CPU, rows=4, units=MANY, clip_norm=0.5
    ) as total_of:

        def rows_of(part):
            asked.extend(part.tolist())
            return picked(batch, part)

        total = total_of(np.arange(4), rows_of)
    assert sorted(asked) == [0, 1, 2, 3], "each unit is read once"
    torch.testing.assert_close(total, summed(problem, batch), rtol=1e-5, atol=1e-7)
    assert max(tight.sizes[-4:]) <= 3


@pytest.mark.parametrize(("at_once", "most"), [(16, 100), (9, 100), (16, 7)])
def test_no_unit_changes_the_shape_of_the_batch_that_others_are_in(
    problem, at_once, most
):
    """A processor may round otherwise in a batch of another shape."""
    network = OnePassPerUnit(most, "DefaultCPUAllocator: can't allocate memory")
    network.network.load_state_dict(problem.network.state_dict())
    watched = replace(problem, network=network)
    pace = Pace(strategy="layer by layer", rows_at_once=at_once, threads=1)
    shapes = set()
    for units in (1, 4, 5, 9):
        batch = make_rows(units, 3)
        with clipped_sums(
            watched, pace, CPU, rows=3, units=MANY, clip_norm=0.5
        ) as total_of:
            total = total_of(np.arange(units), lambda part, of=batch: picked(of, part))
        expected = summed(problem, batch)
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-7)
        shapes |= {size for size in network.sizes if size <= most}
    assert len(shapes) == 1 and shapes != {3}


def test_small_sums_are_made_in_smaller_portions(problem):
    """The last one costs as much as a full one."""
    network = OnePassPerUnit(100, "")
    pace = Pace(strategy="layer by layer", rows_at_once=64, threads=1)
    with clipped_sums(
        replace(problem, network=network), pace, CPU, rows=3, units=17, clip_norm=0.5
    ) as total_of:
        total_of(np.arange(7), lambda part: make_rows(len(part), 3))
    assert network.sizes == [6] * 4


def test_units_of_several_sizes_go_through_the_network_alone(problem, monkeypatch):
    tried: set[str] = set()
    monkeypatch.setattr(
        tuner, "measured", lambda pace, *_: tried.add(pace.strategy) or 1.0
    )
    monkeypatch.setattr(tuner, "SECONDS", math.inf)
    joint = {strategy.name for strategy in STRATEGIES if strategy.joint}
    for alike in (True, False):
        tried.clear()
        choose_pace(problem, lambda units: make_rows(units, 4), CPU, alike=alike)
        assert bool(tried & joint) == alike and tried


@pytest.mark.parametrize("large", [False, True])
def test_a_large_network_is_not_copied_for_each_unit(problem, monkeypatch, large):
    """Copies of 80 million weights for 16 units are 5 GB, and as much of gradients."""
    monkeypatch.setattr(tuner, "LARGE", 0 if large else math.inf)
    found = {pace.strategy for pace in candidates(problem, 1, CPU)}
    assert ("vectorised" in found) == (not large)
    assert "layer by layer" in found


def test_an_error_that_is_not_about_memory_is_raised(problem):
    broken = OnePassPerUnit(0, "a shape is wrong")
    with pytest.raises(RuntimeError, match="shape"):
        summed(replace(problem, network=broken), make_rows(2, 2))


def test_memory_that_does_not_suffice_for_one_row_is_raised(problem):
    broken = OnePassPerUnit(0, "can't allocate memory")
    with pytest.raises(RuntimeError, match="allocate"):
        summed(replace(problem, network=broken), make_rows(2, 2))


class Coupled(Small):
    """Adds a trace of the batch's mean to every image."""

    def forward(self, images, labels):
        return super().forward(images + 1e-6 * images.mean(dim=0), labels)


class Normalised(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)


class Random(Small):
    def forward(self, images, labels):
        return super().forward(images + 0.1 * torch.randn_like(images), labels)


class Idle(Small):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(3))


class Overflowing(Small):
    def forward(self, images, labels):
        return super().forward(images, labels) * math.inf


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Coupled, "mixes the images of a batch"),
        (Normalised, r"norm \(BatchNorm2d\) mixes"),
        (Random, "random numbers"),
        (Idle, "its weight idle has no effect"),
        (Overflowing, "values that are not numbers"),
    ],
)
def test_a_network_that_is_not_fit_is_refused(problem, network, words):
    check_fitness(problem, make_rows(3, 2))
    unfit = replace(problem, network=network().double().eval())
    with pytest.raises(UserError, match=words):
        check_fitness(unfit, make_rows(3, 2))


def test_a_network_of_which_nothing_is_trained_is_refused(problem):
    problem.network.requires_grad_(False)
    with pytest.raises(UserError, match="Nothing"):
        check_fitness(problem, make_rows(2, 2))


def test_layers_without_a_rule_are_left_to_the_other_strategies(problem):
    assert supports(problem)
    problem.network.extra = nn.LayerNorm(2)
    assert not supports(problem)
    names = {pace.strategy for pace in candidates(problem, 4, CPU)}
    assert names == set(NAMES) - {"layer by layer"}
    problem.network.extra.requires_grad_(False)
    assert supports(problem)


def test_the_fastest_candidate_is_taken(problem, monkeypatch):
    rates = {
        (pace.strategy, pace.threads): float(rate)
        for rate, pace in enumerate(candidates(problem, 4, CPU), start=1)
    }
    monkeypatch.setattr(tuner, "SECONDS", 60.0)
    monkeypatch.setattr(
        tuner, "measured", lambda pace, *_: rates[pace.strategy, pace.threads]
    )
    best = choose_pace(problem, lambda units: make_rows(units, 4), CPU, alike=True)
    assert best.rows_per_second == max(rates.values()) == len(rates)
    assert ("vectorised", 2) not in rates, "it exchanges the weights while it runs"


def test_a_candidate_for_which_memory_does_not_suffice_is_passed_over(
    problem, monkeypatch
):
    monkeypatch.setattr(tuner, "SECONDS", 60.0)

    def measured(pace, *_):
        if pace.strategy != NAMES[0] or pace.threads == 1:
            raise RuntimeError("can't allocate memory")
        return 1.0

    monkeypatch.setattr(tuner, "measured", measured)
    best = choose_pace(problem, lambda units: make_rows(units, 4), CPU, alike=True)
    assert (best.strategy, best.threads) == (NAMES[0], 2)

    def never(*_):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(tuner, "measured", never)
    with pytest.raises(UserError, match="Memory does not suffice"):
        choose_pace(problem, lambda units: make_rows(units, 4), CPU, alike=True)


class Tied(Small):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(4, 4, 1, bias=False)
        self.again.weight = self.twice.weight

    def forward(self, images, labels):
        return (
            super().forward(images, labels)
            + self.again(self.first(images)).mean(dim=(2, 3))[:, :2]
        )


class Bypassed(Small):
    """Uses a layer's weight without calling the layer."""

    def forward(self, images, labels):
        found = nn.functional.conv2d(self.first(images), self.twice.weight)
        return super().forward(images, labels) + found.mean(dim=(2, 3))[:, :2]


@pytest.mark.parametrize("network", [Tied, Bypassed])
def test_a_strategy_that_would_find_other_gradients_is_not_taken(
    problem, monkeypatch, network
):
    monkeypatch.setattr(tuner, "SECONDS", 60.0)
    odd = replace(problem, network=network().double().eval())
    tried = []
    monkeypatch.setattr(
        tuner, "measured", lambda pace, *_: tried.append(pace.strategy) or len(tried)
    )
    choose_pace(odd, lambda units: make_rows(units, 4), CPU, alike=True)
    assert set(tried) == {"one by one", "vectorised"}


def test_timing_really_computes(problem):
    best = choose_pace(problem, lambda units: make_rows(units, 4), CPU, alike=True)
    assert best.rows_per_second > 0 and best.strategy in NAMES
    assert all(weight.requires_grad for weight in problem.network.parameters())
