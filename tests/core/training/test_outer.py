"""Public images at the outer timesteps: nothing private chooses or pays for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.checkpoints import public_images
from core.checkpoints.public_images import PROCEDURAL
from core.diffusion.views import to_network
from core.errors import Stopped
from core.events import Watcher
from core.parallel import Hardware
from core.privacy.gradients.sums import Pace
from core.training import forecast, gradients, outer, trainer
from core.training.forecast import training_seconds, workload
from core.training.outer import outer_timesteps, outer_weight
from core.training.recipe_loading import load_recipe
from core.training.state import TrainingState, load_newest
from core.training.warmup import public_network
from tests.core.tiny import make_dataset, make_plan, write_recipe

pytestmark = pytest.mark.usefixtures("quick_accountant")

CPU = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=1)
JOINED = {"outer_images": 3, "private_timesteps": (400, 700)}


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(outer, "PICTURES_OF_A_KIND", 2)


@pytest.fixture
def shown(monkeypatch):
    """(image as bytes, its timesteps) of all that the steps were shown."""
    found, real = [], gradients.make_views

    def recording(images, labels, *, multiplicity, **options):
        views = real(images, labels, multiplicity=multiplicity, **options)
        for image, times in zip(
            images, views.timesteps.view(-1, multiplicity), strict=True
        ):
            found.append((image.numpy().tobytes(), times.tolist()))
        return views

    monkeypatch.setattr(gradients, "make_views", recording)
    return found


def pictures() -> set[bytes]:
    drawn, _ = public_images.draw_public_images(
        2 * len(PROCEDURAL), 8, seed=0, watcher=Watcher(), kinds=PROCEDURAL
    )
    return {image.numpy().tobytes() for image in to_network(torch.from_numpy(drawn))}


def test_private_images_are_shown_in_the_middle_and_public_ones_elsewhere(
    tune, tmp_path, shown
):
    dataset = make_dataset()
    own = to_network(torch.from_numpy(np.array(dataset.images)))
    private, public = {image.numpy().tobytes() for image in own}, pictures()
    tune(make_plan(tmp_path, **JOINED, steps=12), dataset)
    inner = [t for image, times in shown if image in private for t in times]
    others = [t for image, times in shown if image in public for t in times]
    assert len(inner) + len(others) == sum(len(times) for _, times in shown)
    assert inner and all(400 <= t < 700 for t in inner)
    assert len(others) == 12 * 3 * 2 and not any(400 <= t < 700 for t in others)


def test_it_costs_nothing(tune, tmp_path, ledger):
    dataset, plan = make_dataset(), make_plan(tmp_path, **JOINED)
    tune(plan, dataset)
    assert set(ledger.charged(dataset.fingerprint, plan.terms)) == set(plan.charges())
    assert plan.charges() == make_plan(tmp_path).charges()


@pytest.mark.parametrize("strategy", ["one by one", "layer by layer"])
def test_its_gradient_is_the_clipped_mean_as_the_mixture_weighs_it(tmp_path, strategy):
    """Every image of three is clipped: the sum of three vectors of length C."""
    plan = make_plan(tmp_path, **JOINED, clip_norm=1e-5)
    network, seen = public_network(plan), []
    joined = outer_timesteps(plan, None, tmp_path, Watcher())
    pace = Pace(strategy=strategy, rows_at_once=64, threads=1)
    with trainer.summing(plan, network, CPU, pace) as total_of:

        def watched(units, draw, *, outer):
            seen.extend(total_of(units[n : n + 1], draw, outer=outer) for n in units)
            return torch.stack(seen).sum(dim=0)

        found = joined.gradient(watched, 0)
    assert [float(one.double().norm()) for one in seen] == pytest.approx([1e-5] * 3)
    # The tiny mixture: 0.2 below 500, 0.8 above; [400, 700) has 0.04 + 0.32 of it.
    assert joined.weight == outer_weight(plan.recipe) == pytest.approx(0.64 / 0.36)
    expected = (torch.stack(seen).mean(dim=0) * 0.64 / 0.36).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-10)


def test_it_is_added_after_the_noise(tune, tmp_path, folder, monkeypatch):
    plan = make_plan(tmp_path, **JOINED, steps=1)
    updates, real = [], trainer.update

    def seen(plan, state, optimiser, noisy):
        updates.append(noisy.clone())
        real(plan, state, optimiser, noisy)

    monkeypatch.setattr(trainer, "update", seen)
    size = sum(p.numel() for p in public_network(plan).parameters())

    def step(mechanism, *, commit, **_):
        commit(mechanism.charge(1))
        return torch.full((size,), 2.0)

    monkeypatch.setattr(trainer, "private_step", step)
    joined = outer.OuterTimesteps.gradient
    monkeypatch.setattr(
        outer.OuterTimesteps, "gradient",
        lambda *of: torch.full_like(joined(*of), 0.5),
    )  # fmt: skip
    tune(plan)
    assert [set(noisy.tolist()) for noisy in updates] == [{2.5}]


def test_it_is_chosen_by_the_number_of_updates_alone(tmp_path):
    """Neither by the data nor by what was drawn before: a resume changes nothing."""
    plan = make_plan(tmp_path, **JOINED)

    def chosen(updates):
        seen = []

        def total_of(units, draw, *, outer):
            assert outer
            seen.extend(draw(int(unit)) for unit in units)
            return torch.zeros(1)

        outer_timesteps(plan, None, tmp_path, Watcher()).gradient(total_of, updates)
        pixels, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return pixels.tolist(), labels.tolist()

    assert chosen(5) == chosen(5) != chosen(6)
    assert np.shape(chosen(5)[0]) == (3, 8, 8, 3)


def test_a_stopped_run_goes_on_with_it(tune, tmp_path, monkeypatch):
    asked, real = [], outer.OuterTimesteps.gradient

    def recording(self, total_of, updates):
        asked.append(updates)
        return real(self, total_of, updates)

    monkeypatch.setattr(outer.OuterTimesteps, "gradient", recording)
    plan = make_plan(tmp_path, **JOINED)
    with pytest.raises(Stopped):
        tune(plan, watcher=Watcher(stop_requested=lambda: len(asked) == 2))
    assert asked == [0, 1]
    tune(plan)
    assert asked == [0, 1, 2]


def test_moments_are_the_other_source_and_procedural_images_stand_in(
    tune, tmp_path, folder, shown
):
    plan = make_plan(
        tmp_path, **JOINED, moments=True, outer_source="moments", moment_images=64
    )
    quiet = replace(plan.moments, means_noise=1e-3, squares_noise=1e-3)
    plan = replace(plan, moments=quiet)
    tune(plan)
    assert shown and not {image for image, _ in shown} & pictures()
    moments = outer_timesteps(plan, None, folder, Watcher())
    pixels, labels = moments.images(50, torch.Generator().manual_seed(0))
    assert pixels.dtype == torch.uint8 and pixels.shape == (50, 8, 8, 3)
    dark, bright = (pixels[labels == n].float().mean() for n in (0, 1))
    assert set(labels.tolist()) == {0, 1} and dark < bright
    (folder / "moments.safetensors").unlink()
    stand_in = outer_timesteps(plan, None, folder, Watcher())
    pixels, _ = stand_in.images(9, torch.Generator().manual_seed(0))
    assert {image.numpy().tobytes() for image in to_network(pixels)} <= pictures()


def test_grey_data_get_grey_images_of_no_class(tmp_path):
    plan = replace(make_plan(tmp_path, **JOINED), image_channels=1)
    joined = outer_timesteps(plan, 2, tmp_path, Watcher())
    pixels, labels = joined.images(9, torch.Generator().manual_seed(0))
    assert pixels.shape == (9, 8, 8, 1) and len(pixels.unique()) > 9
    assert labels.tolist() == [2] * 9
    _, labels = outer_timesteps(plan, None, tmp_path, Watcher()).images(
        50, torch.Generator().manual_seed(0)
    )
    assert set(labels.tolist()) == {0, 1}


def test_procedural_images_need_no_photographs(monkeypatch, tmp_path):
    def never():
        raise AssertionError("scikit-image may not be there")

    monkeypatch.setattr(public_images, "_photographs", never)
    assert outer_timesteps(make_plan(tmp_path, **JOINED), None, tmp_path, Watcher())
    assert outer_timesteps(make_plan(tmp_path), None, tmp_path, Watcher()) is None


def test_the_forecast_counts_them(tmp_path, monkeypatch):
    pace = Pace(strategy="one by one", rows_at_once=1, threads=1, rows_per_second=2.0)
    monkeypatch.setattr(forecast, "find_pace", lambda work: pace)
    path, card = str(write_recipe(tmp_path)), make_plan(tmp_path).checkpoint
    seconds = [
        training_seconds(workload(card, recipe, 3, "cpu"), recipe)
        for recipe in (load_recipe(path), load_recipe(path, outer_images=5))
    ]
    # 3 steps, 5 images of 2 views each, at 2 a second.
    assert seconds[1] - seconds[0] == pytest.approx(3 * 5 * 2 / 2)


def test_the_weights_move_without_any_private_image(tune, tmp_path, folder):
    """An empty data set leaves noise; without noise only public images are left."""
    plan = make_plan(tmp_path, **JOINED, noise=1e-12, steps=2)
    before = [p.detach().clone() for p in public_network(plan).parameters()]
    dataset = make_dataset(2)
    nothing = replace(
        dataset, splits=np.full_like(dataset.splits, 2), fingerprint="0" * 64
    )
    tune(plan, nothing)
    state = TrainingState.start([torch.zeros_like(p) for p in before])
    assert load_newest(state, folder)
    moved = [
        float((a - b).abs().max()) for a, b in zip(state.weights, before, strict=True)
    ]
    assert max(moved) > 1e-4
