"""Central images: charged draws, a public divisor, made once, learned from for free."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import Stopped
from core.events import Watcher
from core.privacy.accounting import epsilon
from core.privacy.budget import PrivacyUnit
from core.training import central as room
from core.training import warmup
from core.training.binding import bind, charges_of
from core.training.central import draw_central, finished, load_central, save_central
from core.training.purse import Purse
from core.training.recipe_loading import load_recipe
from core.training.units import UnitImages, group_units
from tests.core.tiny import (
    make_central,
    make_dataset,
    make_plan,
    patients,
    write_recipe,
)

QUIET = {"population": 400, "batch_size": 399, "noise_multiplier": 1e-4}


def drawn_from(dataset, unit=None, **changes) -> torch.Tensor:
    units = group_units(dataset, unit or PrivacyUnit())
    return draw_central(make_central(**changes), units, commit=lambda _: None)


def test_the_charge_comes_first_and_is_that_of_a_sampled_step(monkeypatch):
    order, draw = [], UnitImages.draw

    def drawing(self, unit):
        order.append("read")
        return draw(self, unit)

    monkeypatch.setattr(UnitImages, "draw", drawing)
    release = make_central()
    units = group_units(make_dataset(24), PrivacyUnit())
    draw_central(release, units, commit=order.append)
    charge = release.mechanism.charge(1)
    assert order[0] == charge and set(order[1:]) <= {"read"}
    assert (charge.sampling_probability, charge.population) == (0.5, 24)


def test_with_little_noise_they_are_the_means_of_the_classes():
    dataset = make_dataset(400)
    noisy = drawn_from(dataset, **QUIET)
    assert noisy.shape == (2, 3, 4, 4)
    for label in (0, 1):
        real = dataset.images[dataset.labels == label].mean() / 127.5 - 1
        assert abs(float(noisy[label].mean()) - real) < 0.02


def test_what_it_is_divided_by_is_public():
    """Half of the declared units are there: half as strong, whatever was drawn."""
    declared = {"population": 400, "batch_size": 399, "noise_multiplier": 1e-4}
    dataset = make_dataset(200)
    noisy = drawn_from(dataset, **declared)
    real = dataset.images[dataset.labels == 0].mean() / 127.5 - 1
    assert abs(float(noisy[0].mean()) - real / 2) < 0.02
    assert make_central(**declared).mechanism.divisor == 399 / 2


def test_the_noise_is_that_of_a_vector_of_length_one():
    """σ·√d / (B / classes), with d = 3·4·4 numbers in a reduced image."""
    loud = drawn_from(make_dataset(2), **(QUIET | {"noise_multiplier": 1e3}))
    expected = 1e3 * 48**0.5 / (399 / 2)
    assert float(loud.std()) == pytest.approx(expected, rel=0.3)


def test_a_patient_counts_once(monkeypatch):
    seen, real = [], room.sum_of_images

    def recording(data):
        seen.append(data)
        return real(data)

    monkeypatch.setattr(room, "sum_of_images", recording)
    dataset = make_dataset(20, patients=3)
    drawn_from(dataset, patients(4), population=4, batch_size=3)
    assert np.allclose(seen[0].weights.numpy(), 0.25)
    assert (
        len(seen[0].weights) % 4 == 0
        and float(seen[0].coefficients.norm(dim=1).max()) <= 1 + 1e-6
    )


def test_finished_images_are_within_range_and_without_single_noisy_pixels():
    noisy = torch.full((2, 3, 1, 4, 4), 0.25)
    noisy[1, 2, 0, 1, 1] = 90.0
    images = finished(noisy, 16)
    assert images.shape == (2, 3, 1, 16, 16) and float(images.max()) <= 1
    assert torch.equal(images[0], torch.full_like(images[0], 0.25))
    assert float(finished(-noisy, 16).min()) >= -1
    lone = torch.zeros(1, 1, 1, 8, 8)
    lone[..., 3, 3] = 1.0
    assert torch.equal(finished(lone, 8), torch.zeros(1, 1, 1, 8, 8))


def test_central_images_survive_the_disk(tmp_path):
    noisy = torch.randn(2, 2, 1, 3, 3)
    save_central(noisy, tmp_path / "central.safetensors")
    assert torch.equal(load_central(tmp_path / "central.safetensors"), noisy)


def test_everything_together_keeps_the_budget(tmp_path):
    recipe = load_recipe(
        str(write_recipe(tmp_path)), central_share=0.2, central_batch=20, moment_share=0
    )
    plan = make_plan(tmp_path)
    mechanism, moments, central, teacher = bind(plan.budget, 80, recipe, 2)
    assert moments is teacher is None and central.mechanism.steps == 5
    assert central.mechanism.sampling_probability == 20 / 80
    charges, budget = charges_of(mechanism, moments, central, None), plan.budget
    together = epsilon(charges, budget.delta, budget.relation)
    alone = epsilon(charges[:1], budget.delta, budget.relation)
    steps = epsilon(charges[1:], budget.delta, budget.relation)
    assert 0.99 * budget.epsilon < together <= budget.epsilon
    assert 0.95 * 0.2 * budget.epsilon < alone <= 0.2 * budget.epsilon
    # Composed, not added up.
    assert steps > together - alone


def test_the_purse_tells_draws_from_steps(tmp_path, ledger):
    plan = make_plan(tmp_path, central=True, moments=True)
    purse = Purse(plan, "data", ledger)
    assert (purse.central_left(), purse.steps_left()) == (3, 3)
    purse.commit(plan.central.mechanism.charge(1))
    purse.commit(plan.central.mechanism.charge(1))
    assert (purse.central_left(), purse.steps_left()) == (1, 3)
    assert (purse.steps_charged(), purse.sums_charged()) == (0, 0)
    purse.commit(plan.mechanism.charge(1))
    assert (purse.central_left(), purse.steps_left()) == (1, 2)
    assert Purse(make_plan(tmp_path), "data", ledger).central_left() == 0


def charged(plan, ledger) -> dict[str, int]:
    kinds = {
        plan.central.mechanism.charge(1): "draws",
        plan.mechanism.charge(1): "steps",
    }
    found = {"draws": 0, "steps": 0}
    for charge in ledger.charged(make_dataset().fingerprint, run=plan.run):
        found[kinds[replace(charge, count=1)]] += charge.count
    return found


def test_a_run_draws_learns_and_charges_each_once(tune, tmp_path, ledger, folder):
    plan = make_plan(tmp_path, central=True, central_images=128)
    heard = []
    tuned = tune(plan, watcher=Watcher(report=lambda p: heard.append(p.activity)))
    assert charged(plan, ledger) == {"draws": 3, "steps": 3}
    assert (tuned.updates, tuned.steps_charged) == (3, 3)
    assert len(load_central(folder / "central.safetensors")) == 3
    assert "Learning from the central images" in heard
    tune(plan)
    assert charged(plan, ledger) == {"draws": 3, "steps": 3}


@pytest.mark.parametrize("fatal", [1, 2, 3])
def test_a_crash_loses_a_draw_and_no_more(
    tune, tmp_path, ledger, folder, monkeypatch, fatal
):
    plan = make_plan(tmp_path, central=True, central_images=64)
    performed, real = [], room.sum_of_images

    def killed(data):
        performed.append(1)
        if len(performed) == fatal:
            raise KeyboardInterrupt
        return real(data)

    monkeypatch.setattr(room, "sum_of_images", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(plan)
    assert charged(plan, ledger) == {"draws": fatal, "steps": 0}
    tune(plan)
    assert charged(plan, ledger) == {"draws": 3, "steps": 3} and len(performed) == 3
    assert len(load_central(folder / "central.safetensors")) == 2


def test_a_stop_between_two_draws_goes_on_with_the_next(tune, tmp_path, ledger):
    plan = make_plan(tmp_path, central=True, central_images=64)
    with pytest.raises(Stopped):
        tune(plan, watcher=Watcher(stop_requested=lambda: True))
    assert charged(plan, ledger) == {"draws": 1, "steps": 0}
    tune(plan)
    assert charged(plan, ledger) == {"draws": 3, "steps": 3}


def test_what_is_learned_are_the_images_of_the_class(tune, tmp_path, monkeypatch):
    lessons = []
    monkeypatch.setattr(warmup, "_learn", lambda *of: lessons.append(of[2]))
    plan = make_plan(tmp_path, central=True, moments=True)
    tune(plan)
    assert [lesson.state for lesson in lessons] == [
        "central-warm-up.safetensors", "warm-up.safetensors",
    ]  # fmt: skip
    labels = torch.tensor([1, 0, 1, 1])
    drawn = lessons[0].draw(labels, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 3, 8, 8)
