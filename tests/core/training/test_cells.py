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
from core.training import cells as cells_room
from core.training import moments
from core.training.binding import bind
from core.training.cells import CellRelease
from core.training.moments import (
    MomentRelease,
    load_moments,
    release_moments,
    save_moments,
)
from core.training.recipe_loading import load_recipe
from core.training.sums import NoisySums
from core.training.units import group_units
from tests.core.tiny import make_dataset, patients, write_recipe
from tests.core.tiny import make_plan as tiny_plan

CELLS = CellRelease(
    classes=2, per_class=4, size=20, axes=6, rounds=3, mean_norm=20.0, norm=10.0,
    means_noise=2e-3, squares_noise=3e-3, noise_edge=0.4,
)  # fmt: skip
RELEASE = MomentRelease(
    classes=2, frequencies=(3, 2), mean_norm=20.0, norm=20.0, means_noise=1e-3,
    squares_noise=1e-3, noise_edge=0.75, residual=False, cells=CELLS,
)  # fmt: skip


SMALL = {"moment_residual": "false", "moment_cells_from": 0}


def released(units, release=RELEASE, commit=lambda _: None):
    return release_moments(release, units, sums=NoisySums(commit), watcher=Watcher())


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
    sorting = cells_room._sorted

    def noting(*given):
        order.append("read")
        return sorting(*given)

    monkeypatch.setattr(cells_room, "_sorted", noting)
    released(units, commit=order.append)
    rounds = Charge(noise_multiplier=2e-3, count=3)
    square = Charge(noise_multiplier=3e-3, count=1)
    assert order[2:] == [rounds, *["read"] * 3, square, "read"]
    plain = Charge(noise_multiplier=1e-3, count=1)
    assert order[:2] == [plain, plain]
    assert RELEASE.charges() == (plain, plain, rounds, square)


def test_they_share_what_the_moments_have(tmp_path):
    wishes = {"moment_cells": 3, "moment_cells_share": 0.6, "moment_cell_size": 13}
    recipe = load_recipe(
        str(write_recipe(tmp_path, moment_cell_rounds=2, **SMALL, **wishes))
    )
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
    assert cells.per_class == 3


@pytest.mark.parametrize(
    ("declared", "size", "cells"), [(77, 13, 2), (78, 13, 3), (800, 13, 3)]
)
def test_as_many_cells_as_the_declared_records_can_fill(
    tmp_path, declared, size, cells
):
    wishes = SMALL | {"moment_cells": 3, "moment_cell_size": size}
    recipe = load_recipe(str(write_recipe(tmp_path, **wishes)))
    moments = bind(tiny_plan(tmp_path).budget, declared, recipe, 2)[1]
    assert moments.cells.per_class == cells


def test_few_declared_records_have_no_cells(tmp_path):
    """And the class's moments then have all the precision."""
    wishes = SMALL | {"moment_cells": 3, "moment_cell_size": 13}
    budget = tiny_plan(tmp_path).budget
    few, none = (
        bind(budget, 80, load_recipe(str(write_recipe(tmp_path, **chosen))), 2)[1]
        for chosen in (
            wishes | {"moment_cell_size": 41},
            SMALL,
        )
    )
    assert few == none and few.cells is None
    recipe = load_recipe(
        str(write_recipe(tmp_path, **wishes | {"moment_cells_from": 41}))
    )
    assert bind(budget, 80, recipe, 2)[1] == none
    assert bind(budget, 82, recipe, 2)[1].cells


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
        sorted_in = cells_room._sorted(part, centres, used)
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
    found = cells_room._sorted(data, centres, used)
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


def test_a_tie_is_a_tie_in_whatever_order_it_is_added_up():
    """A rounded product decides it by the order of the terms."""
    generator = torch.Generator().manual_seed(3)
    half = torch.randn(400, 40, generator=generator) * 10
    data = Contributions(
        coefficients=torch.cat([half, half.flip(1)], dim=1),
        labels=torch.zeros(400, dtype=torch.int64), weights=torch.ones(400), classes=1,
    )  # fmt: skip
    centre = torch.randn(80, generator=generator)
    centres = torch.stack([centre, centre.flip(0)])[None]
    found = cells_room._sorted(data, centres, torch.ones(1, 2, dtype=torch.bool))
    assert not found.labels.any()


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


def test_a_class_without_a_full_cell_stays_one_gaussian():
    units = group_units(two_kinds(200, rare=40), PrivacyUnit())
    lost = replace(RELEASE, cells=replace(CELLS, means_noise=1e4, squares_noise=1e4))
    found, plain = released(units, lost), released(units, replace(RELEASE, cells=None))
    assert found.shares.tolist() == [[1.0, 0, 0, 0]] * 2
    torch.testing.assert_close(found.means[:, 0], plain.means[:, 0], atol=0.1, rtol=0)
    kept = [
        moments.factors[0, 0] @ moments.factors[0, 0].T for moments in (found, plain)
    ]
    torch.testing.assert_close(*kept, atol=0.5, rtol=0)


def test_a_cell_s_records_and_their_number_are_of_the_same_borders():
    """Of a lopsided class in one round: the covariance is neither more nor less."""
    rng = np.random.default_rng(0)
    level = np.clip(255 * rng.random(400) ** 3, 0, 255)[:, None, None, None]
    dataset = make_dataset(400)
    images = np.broadcast_to(level, dataset.images.shape).astype(np.uint8)
    dataset = replace(dataset, images=images, labels=np.zeros(400, np.int64))
    once = replace(RELEASE, cells=replace(CELLS, rounds=1))
    found = released(group_units(dataset, PrivacyUnit()), once)
    drawn = found.draw(torch.zeros(4000, dtype=torch.int64), torch.Generator())
    spread = (found.means[0] @ found.basis.T).mean(dim=1)
    own = images[:, 0, 0, 0] / 127.5 - 1
    assert len(spread) == 4
    assert abs(float(drawn.mean(dim=(1, 2, 3)).std()) - own.std()) < 0.03


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
