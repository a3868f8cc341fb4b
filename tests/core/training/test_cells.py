"""Cells within the classes: what they cost, whom they count where, what they draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.data.dataset import ImageDataset
from core.events import Watcher
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import PrivacyUnit
from core.privacy.moments import Contributions, sum_of_means, sum_of_squares
from core.training import cells as room
from core.training import moments
from core.training.binding import bind
from core.training.cells import CellRelease
from core.training.moments import (
    MomentRelease,
    load_moments,
    release_moments,
    save_moments,
)
from core.training.recipe import load_recipe
from core.training.units import group_units
from tests.core.tiny import make_dataset, patients, write_recipe
from tests.core.tiny import make_plan as tiny_plan

CELLS = CellRelease(
    classes=2, cells=4, size=20, axes=6, rounds=3, mean_norm=20.0, norm=10.0,
    means_noise=2e-3, squares_noise=3e-3, noise_edge=0.4,
)  # fmt: skip
RELEASE = MomentRelease(
    classes=2, frequencies=(3, 2), mean_norm=20.0, norm=20.0, means_noise=1e-3,
    squares_noise=1e-3, noise_edge=0.75, residual=False, cells=CELLS,
)  # fmt: skip


def released(units, release=RELEASE, commit=lambda _: None):
    return release_moments(release, units, commit=commit, watcher=Watcher())


def two_kinds(count: int, rare: int = 0) -> ImageDataset:
    """Class 0 is black or white, never grey; class 1 is grey, of `rare` images."""
    dataset = make_dataset(count)
    rng = np.random.default_rng(0)
    labels = (np.arange(count) < rare).astype(np.int64)
    level = np.where(labels == 1, 128, np.where(np.arange(count) % 2, 20, 235))
    noise = rng.normal(0, 4, dataset.images.shape)
    images = np.clip(level[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    return replace(dataset, images=images, labels=labels)


# What they cost.


def test_every_charge_comes_before_the_records_are_read_for_it(monkeypatch):
    order: list[object] = []
    units = group_units(make_dataset(60), PrivacyUnit())
    sorting = room._in_cells

    def noting(*given):
        order.append("read")
        return sorting(*given)

    monkeypatch.setattr(room, "_in_cells", noting)
    released(units, commit=order.append)
    mean, square = (Charge(noise_multiplier=noise, count=1) for noise in (2e-3, 3e-3))
    assert order[2:] == [mean, "read"] * 3 + [square, "read"]
    plain = Charge(noise_multiplier=1e-3, count=1)
    assert order[:2] == [plain, plain]
    assert RELEASE.charges() == (plain, plain, replace(mean, count=3), square)


def test_they_share_what_the_moments_have(tmp_path):
    wishes = {"moment_cells": 3, "moment_cells_share": 0.6, "moment_cell_size": 13}
    recipe = load_recipe(str(write_recipe(tmp_path, moment_cell_rounds=2, **wishes)))
    budget = tiny_plan(tmp_path).budget
    mechanism, moments, *_ = bind(budget, 80, recipe, 2)
    cells = moments.cells
    charges = (
        Charge(noise_multiplier=moments.means_noise, count=1),
        Charge(noise_multiplier=moments.squares_noise, count=1),
        Charge(noise_multiplier=cells.means_noise, count=2),
        Charge(noise_multiplier=cells.squares_noise, count=1),
    )
    share = budget.epsilon * recipe.moment_share
    assert 0.99 * share < epsilon(charges, budget.delta, budget.relation) <= share
    together = (*charges, mechanism.charge(mechanism.steps))
    found = epsilon(together, budget.delta, budget.relation)
    assert 0.99 * budget.epsilon < found <= budget.epsilon
    inverse = [c.count / c.noise_multiplier**2 for c in charges]
    assert sum(inverse[2:]) == pytest.approx(0.6 * sum(inverse))
    assert cells.cells == 3


@pytest.mark.parametrize(("declared", "cells"), [(77, None), (78, 3), (51, None)])
def test_few_declared_records_have_no_cells(tmp_path, declared, cells):
    wishes = {"moment_cells": 3, "moment_cell_size": 13 if declared > 60 else 26}
    recipe = load_recipe(str(write_recipe(tmp_path, **wishes)))
    moments = bind(tiny_plan(tmp_path).budget, declared, recipe, 2)[1]
    if cells is None and declared == 77:
        assert moments.cells.cells == 2
    else:
        assert (moments.cells.cells if moments.cells else None) == cells


# Whom they count where.


def records(count: int = 50) -> tuple[Contributions, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    data = Contributions(
        coefficients=torch.randn(count, 6, generator=generator) * 30,
        labels=torch.randint(2, (count,), generator=generator),
        weights=torch.full((count,), 0.5),
        classes=2,
    )
    centres = torch.randn(2, 4, 6, generator=generator) * 20
    return data, centres, torch.tensor([[True] * 4, [True, True, False, False]])


def test_a_patient_moves_all_cells_together_by_at_most_one():
    """Two images of weight one half each, in whichever cells they lie."""
    data, centres, used = records()

    def of(rows) -> Contributions:
        return replace(
            data, coefficients=data.coefficients[rows], labels=data.labels[rows],
            weights=data.weights[rows],
        )  # fmt: skip

    def sums(part: Contributions) -> tuple[torch.Tensor, torch.Tensor]:
        sorted_in = room._in_cells(part, centres, used)
        return (
            sum_of_means(sorted_in, 8.0),
            sum_of_squares(sorted_in, centres.flatten(0, 1), 8.0),
        )

    everybody = sums(data)
    for first in range(0, 48, 2):
        rest = [k for k in range(50) if k not in (first, first + 1)]
        for all_of_it, without in zip(everybody, sums(of(rest)), strict=True):
            assert (all_of_it - without).norm() <= 1 + 1e-9


def test_a_record_lies_in_the_nearest_cell_that_its_class_has():
    data, centres, used = records()
    found = room._in_cells(data, centres, used)
    assert found.classes == 8 and torch.equal(found.weights, data.weights)
    for row, label, cell in zip(
        data.coefficients, data.labels, found.labels, strict=True
    ):
        distances = (centres[label] - row).norm(dim=1)
        distances[~used[label]] = float("inf")
        assert cell == label * 4 + distances.argmin()


def test_a_record_s_place_and_coefficients_do_not_hang_on_the_others():
    units = group_units(make_dataset(60), PrivacyUnit())
    basis = moments.public_basis(8, 3, (3, 2))
    data = moments._contributions(units, basis, 2, Watcher())
    fewer = replace(units, starts=units.starts[1:])
    again = moments._contributions(fewer, basis, 2, Watcher())
    assert torch.equal(again.coefficients, data.coefficients[1:])
    axes, means = torch.randn(2, 17, 6) / 5, torch.randn(2, 17)
    moved = moments._centred(data, means, axes)
    assert torch.equal(
        moments._centred(again, means, axes).coefficients, moved.coefficients[1:]
    )


# What they draw.


def drawn_levels(release: MomentRelease, dataset: ImageDataset) -> np.ndarray:
    found = released(group_units(dataset, PrivacyUnit()), release)
    images = found.draw(torch.zeros(400, dtype=torch.int64), torch.Generator())
    return images.mean(dim=(1, 2, 3)).numpy()


def test_a_class_of_two_kinds_is_drawn_as_two_kinds():
    """One Gaussian draws what lies in between, which is in no picture."""
    grey = {
        cells: np.mean(np.abs(drawn_levels(release, two_kinds(200, rare=40))) < 0.5)
        for cells, release in ((1, replace(RELEASE, cells=None)), (4, RELEASE))
    }
    assert grey[1] > 0.2
    assert grey[4] < 0.02


def test_a_rare_class_is_one_cell():
    found = released(group_units(two_kinds(200, rare=30), PrivacyUnit()))
    assert (found.shares[1] > 0).tolist() == [True, False, False, False]
    assert (found.shares[0] > 0).sum() >= 2
    grey = found.draw(torch.ones(50, dtype=torch.int64), torch.Generator())
    assert abs(float(grey.mean())) < 0.05


def test_a_cell_that_may_be_empty_is_never_drawn_from():
    """A class told as large by noise, or by a thousand images all alike."""
    dataset = make_dataset(100)
    images = np.full_like(dataset.images, 200)
    found = released(group_units(replace(dataset, images=images), PrivacyUnit()))
    counts = (found.shares > 0).sum(dim=1)
    assert counts.tolist() == [1, 1]


def test_much_noise_leaves_something_to_draw_and_nothing_wild():
    loud = replace(
        RELEASE, means_noise=1e3, squares_noise=1e3,
        cells=replace(CELLS, means_noise=1e4, squares_noise=1e4),
    )  # fmt: skip
    found = released(group_units(make_dataset(40), PrivacyUnit()), loud)
    images = found.draw(torch.arange(40) % 2, torch.Generator())
    assert torch.isfinite(images).all() and images.abs().max() <= 1


def test_patients_have_cells_too():
    units = group_units(make_dataset(80, patients=40), patients(2))
    found = released(units, replace(RELEASE, cells=replace(CELLS, size=5)))
    assert found.means.shape == (2, 4, 17)


def test_they_survive_the_disk_and_an_older_file_is_one_cell(tmp_path):
    found = released(group_units(make_dataset(60), PrivacyUnit()))
    path = tmp_path / "moments.safetensors"
    save_moments(found, path)
    again = load_moments(path)
    for name in ("basis", "shares", "means", "factors", "residuals"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    plain = released(
        group_units(make_dataset(60), PrivacyUnit()), replace(RELEASE, cells=None)
    )
    old = {
        "basis": plain.basis, "means": plain.means[:, 0].contiguous(),
        "factors": plain.factors[:, 0].contiguous(), "residuals": plain.residuals,
        "shape": torch.tensor(plain.shape),
    }  # fmt: skip
    save_file(old, path)
    labels = torch.arange(30) % 2
    was, now = (
        moments.draw(labels, torch.Generator().manual_seed(1))
        for moments in (plain, load_moments(path))
    )
    assert torch.equal(was, now)
