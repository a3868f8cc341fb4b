"""Where the diffusion objective meets the privacy room: the rows of a unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.diffusion.adapters import choose
from core.diffusion.networks import parameter_count
from core.parallel import Hardware
from core.privacy.gradients.strategies import STRATEGIES
from core.privacy.gradients.sums import Pace
from core.training import gradients, trainer
from core.training.forecast import workload
from core.training.gradients import find_pace, unit_rows
from core.training.units import group_units
from core.training.warmup import public_network
from tests.core.tiny import make_dataset, make_network, make_plan, patients

CPU = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=2)
SLOW = Pace(strategy="one by one", rows_at_once=64, threads=1)


@pytest.fixture
def dataset():
    return make_dataset()


@pytest.fixture
def same_views(monkeypatch):
    """A unit's views depend on nothing but the unit."""
    real = gradients.make_views

    def alike(images, labels, *, multiplicity, generator, **options):
        views = [
            real(
                image[None], label[None], multiplicity=multiplicity,
                generator=generator.manual_seed(int(1e6 * image.abs().sum()) % 2**31),
                **options,
            )
            for image, label in zip(images, labels, strict=True)
        ]  # fmt: skip
        kind = type(views[0])
        return kind(
            **{
                name: torch.cat([getattr(view, name) for view in views])
                for name in ("clean", "labels", "timesteps", "noise")
            }
        )

    monkeypatch.setattr(gradients, "make_views", alike)


class Bench:
    """The sum of clipped gradients of the tiny network."""

    def __init__(self, tmp_path, dataset, **changes) -> None:
        self.plan = make_plan(tmp_path, **changes)
        self.network = make_network()
        self.units = group_units(dataset, self.plan.budget.unit)

    def total(self, units, pace: Pace = SLOW) -> torch.Tensor:
        with trainer.summing(self.plan, self.network, CPU, pace) as total_of:
            return total_of(np.array(units, np.int64), self.units.draw)


@pytest.mark.usefixtures("same_views")
@pytest.mark.parametrize("multiplicity", [1, 6])
@pytest.mark.parametrize("of_patients", [False, True])
def test_pace_changes_nothing(tmp_path, multiplicity, of_patients):
    """Rule of the house: no performance knob changes what is computed."""
    unit = {"unit": patients(3)} if of_patients else {}
    # Patients of three, three, three and one image.
    dataset = make_dataset(10, patients=4 if of_patients else 0)
    bench = Bench(
        tmp_path, dataset, augmentation_multiplicity=multiplicity, clip_norm=0.3, **unit
    )
    drawn = np.arange(4)
    slow = bench.total(drawn)
    assert float(slow.norm()) > 0.3
    for strategy in STRATEGIES:
        for rows_at_once, threads in ((1, 1), (5, 1), (64, 2)):
            if threads > 1 and not strategy.side_by_side:
                continue
            pace = Pace(
                strategy=strategy.name, rows_at_once=rows_at_once, threads=threads
            )
            torch.testing.assert_close(
                bench.total(drawn, pace), slow, rtol=2e-3, atol=2e-5
            )


@pytest.mark.usefixtures("same_views")
@pytest.mark.parametrize(
    ("parts", "rank"), [(("attention",), 0), (("label embedding",), 2), ((), 4)]
)
def test_pace_changes_nothing_for_parts_and_adapters(tmp_path, dataset, parts, rank):
    bench = Bench(tmp_path, dataset, clip_norm=0.3)
    choose(bench.network, parts, rank)
    slow = bench.total(np.arange(4))
    assert len(slow) == parameter_count(bench.network) > 0 < float(slow.norm())
    for strategy in STRATEGIES[1:]:
        pace = Pace(strategy=strategy.name, rows_at_once=5, threads=1)
        torch.testing.assert_close(
            bench.total(np.arange(4), pace), slow, rtol=2e-3, atol=2e-5
        )


@pytest.mark.usefixtures("same_views")
@pytest.mark.parametrize("strategy", [strategy.name for strategy in STRATEGIES])
def test_half_precision_stays_within_the_network(tmp_path, dataset, strategy):
    """The sum is in double precision, of the clip norm, and close to the exact one."""
    bench = Bench(tmp_path, dataset, clip_norm=0.3)
    exact = bench.total([3])
    half = replace(CPU, precision=torch.bfloat16)
    pace = Pace(strategy=strategy, rows_at_once=64, threads=1)
    with trainer.summing(bench.plan, bench.network, half, pace) as total_of:
        found = total_of(np.array([3]), bench.units.draw)
    assert found.dtype is torch.float64 and not torch.equal(found, exact)
    assert float(found.double().norm()) <= 0.3 * (1 + 1e-6)
    assert float((found - exact).norm()) < 0.1 * float(exact.norm())


def test_views_are_fresh_each_time(tmp_path, dataset):
    bench = Bench(tmp_path, dataset)
    assert not torch.equal(bench.total([0]), bench.total([0]))


@pytest.mark.parametrize("strategy", [strategy.name for strategy in STRATEGIES])
def test_a_unit_whose_gradient_is_not_finite_adds_nothing(
    tmp_path, dataset, monkeypatch, strategy
):
    bench = Bench(tmp_path, dataset)
    real = gradients.to_network

    def broken(pixels):
        images = real(pixels)
        images[:, :, 0, 0] = float("nan")
        return images

    monkeypatch.setattr(gradients, "to_network", broken)
    total = bench.total([0, 1], Pace(strategy=strategy, rows_at_once=64, threads=1))
    assert torch.equal(total, torch.zeros_like(total))


def test_a_patient_counts_once_however_many_images(tmp_path):
    dataset = make_dataset(20, patients=4)
    bench = Bench(tmp_path, dataset, unit=patients(3), clip_norm=1e-4)
    total = bench.total([2])
    assert float(total.double().norm()) == pytest.approx(1e-4, rel=1e-5)


def test_the_rows_of_a_unit_are_the_views_of_its_images(tmp_path):
    """Units of one, three and two images are filled up, and weighed accordingly."""
    recipe = make_plan(tmp_path, augmentation_multiplicity=2).recipe
    pixels = [np.full((n, 8, 8, 3), 20 * n, np.uint8) for n in (1, 3, 2)]
    labels = [np.full(n, n % 2, np.int64) for n in (1, 3, 2)]
    rows = unit_rows(
        list(zip(pixels, labels, strict=True)),
        recipe,
        make_network(),
        torch.device("cpu"),
        recipe.timesteps,
    )
    assert rows.weights.shape == (3, 6)
    torch.testing.assert_close(rows.weights.sum(dim=1), torch.ones(3))
    assert (rows.weights > 0).sum(dim=1).tolist() == [2, 6, 4]
    clean, own_labels, timesteps, noise = rows.inputs
    for unit, n in enumerate((1, 3, 2)):
        assert (clean[unit] == clean[unit, 0]).all()
        assert float(clean[unit, 0, 0, 0, 0]) == pytest.approx(20 * n / 127.5 - 1)
        assert (own_labels[unit] == n % 2).all()
        used = rows.weights[unit] > 0
        assert len(set(timesteps[unit][used].tolist())) == int(used.sum())
        assert torch.isfinite(noise[unit]).all()


def test_pace_is_found_on_random_images_and_remembered(tmp_path, monkeypatch):
    plan = make_plan(tmp_path)

    def never(*_, **__):
        raise AssertionError("a record was read")

    monkeypatch.setattr("core.training.units.UnitImages.draw", never)
    work = workload(plan.checkpoint, plan.recipe, 1, "cpu")
    pace = find_pace(work)
    assert pace.rows_per_second > 0
    monkeypatch.setattr(gradients, "choose_pace", never)
    assert find_pace(work) is pace


@pytest.mark.parametrize("images", [1, 2])
def test_only_units_of_one_image_go_through_the_network_together(
    tmp_path, monkeypatch, images
):
    """Patients have different numbers of them, and would shape each other's batch."""
    plan, said = make_plan(tmp_path), []
    monkeypatch.setattr(
        gradients, "choose_pace", lambda *_, alike: said.append(alike) or SLOW
    )
    find_pace.cache_clear()
    find_pace(workload(plan.checkpoint, plan.recipe, images, "cpu"))
    find_pace.cache_clear()
    assert said == [images == 1]


def test_views_are_made_as_the_recipe_says(tmp_path, dataset, monkeypatch):
    asked, real = [], gradients.make_views

    def recording(*arguments, **options):
        asked.append(options)
        return real(*arguments, **options)

    monkeypatch.setattr(gradients, "make_views", recording)
    bench = Bench(tmp_path, dataset, crop=2, label_dropout=0.5)
    bench.network = public_network(bench.plan)
    bench.total([0])
    assert {k: asked[0][k] for k in ("crop", "label_dropout", "null_label")} == {
        "crop": 2,
        "label_dropout": 0.5,
        "null_label": 2,
    }


def test_the_timesteps_of_a_recipe_are_those_of_the_linear_chain(
    tmp_path, dataset, monkeypatch
):
    """σ at 500 of 1,000 is there 3.5, which a cosine chain reaches at 823."""
    asked, real = [], gradients.make_views

    def recording(*arguments, **options):
        asked.append(options["timesteps"].bounds)
        return real(*arguments, **options)

    monkeypatch.setattr(gradients, "make_views", recording)
    bench = Bench(tmp_path, dataset)
    bench.total([0])
    cosine = replace(bench.plan.checkpoint, parameterisation="eps-cosine-1000")
    bench.plan = replace(bench.plan, checkpoint=cosine)
    bench.total([0])
    assert asked == [(0, 500, 1000), (0, pytest.approx(823, abs=5), 1000)]
