"""The private teacher: charged release by release, made once, and it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.diffusion.views import to_network
from core.errors import Stopped, UserError
from core.events import Watcher
from core.parallel import choose_hardware
from core.privacy import teacher as privacy
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import PrivacyUnit
from core.training import moments as moments_room
from core.training import teacher as room
from core.training import warmup
from core.training.binding import bind, charges_of
from core.training.moments import release_moments
from core.training.plan import make_plan, plan_facts, plan_from_facts
from core.training.purse import Purse
from core.training.recipe_loading import load_recipe
from core.training.sums import NoisySums
from core.training.teacher import (
    load_teacher,
    new_teacher,
    read_lessons,
    save_teacher,
    teach,
)
from core.training.units import group_units
from core.workspace import Project
from tests.core import tiny
from tests.core.tiny import make_dataset, make_teacher, patients, write_recipe

HARDWARE = choose_hardware("cpu")


@pytest.fixture(autouse=True)
def few_pseudo_images(monkeypatch):
    monkeypatch.setattr(room, "PSEUDO_IMAGES", 60)


def moments_of(dataset, noise: float = 1e-3):
    release = replace(
        tiny_moments(), means_noise=noise, squares_noise=noise, residual=True
    )
    return release_moments(
        release,
        group_units(dataset, PrivacyUnit()),
        sums=NoisySums(lambda _: None),
        watcher=Watcher(),
    )


def tiny_moments() -> moments_room.MomentRelease:
    return moments_room.MomentRelease(
        classes=2, frequencies=(8, 1), mean_norm=14.0, norm=14.0, means_noise=1.0,
        squares_noise=1.0, noise_edge=0.75, residual=True,
    )  # fmt: skip


def taught(dataset, release, unit=None):
    units = group_units(dataset, unit or PrivacyUnit())
    teacher = new_teacher(release, moments_of(dataset), HARDWARE)
    shown = read_lessons(units, teacher, 2, HARDWARE, Watcher())
    for step in range(release.steps):
        teacher = teach(
            release, teacher, lambda: shown, step=step, commit=lambda _: None
        )
    return teacher


def textured(count: int = 60):
    """Two classes that differ in their stripes; scattering takes no level."""
    dataset = make_dataset(count)
    images = dataset.images // 4
    images[dataset.labels == 0, :, ::2] += 60
    images[dataset.labels == 1, ::2] += 60
    return replace(dataset, images=images)


def test_with_little_noise_it_names_the_classes():
    dataset = textured()
    release = make_teacher(noise_multiplier=0.01, steps=30, declared_count=60)
    teacher = taught(dataset, release)
    seen = to_network(torch.from_numpy(dataset.images))
    named = teacher.name(seen, HARDWARE).numpy()
    assert (named == dataset.labels).mean() > 0.9
    assert int(teacher.settled) == 30 - 18


def test_what_it_names_by_is_the_average_of_the_settled_models():
    release = make_teacher(steps=10)
    teacher = new_teacher(release, moments_of(textured()), HARDWARE)
    shown = read_lessons(
        group_units(textured(), PrivacyUnit()), teacher, 2, HARDWARE, Watcher()
    )
    models = []
    for step in range(10):
        teacher = teach(
            release, teacher, lambda: shown, step=step, commit=lambda _: None
        )
        models.append(teacher.model)
    torch.testing.assert_close(teacher.summed, torch.stack(models[6:]).sum(dim=0))


def test_its_components_are_those_of_the_pseudo_images_and_no_more_than_there_are():
    moments = moments_of(textured())
    few = new_teacher(make_teacher(components=3), moments, HARDWARE)
    many = new_teacher(make_teacher(components=4000), moments, HARDWARE)
    assert few.components.shape == (460, 3) and few.model.shape == (2, 4)
    assert many.components.shape[1] == 60
    images = moments.draw(torch.arange(60) % 2, torch.Generator().manual_seed(0))
    features = room.in_chunks(room.scattering(8, 3), images, HARDWARE)
    _, spread, axes = torch.linalg.svd(features - features.mean(dim=0))
    axis = few.components[:, 0] / few.components[:, 0].norm()
    assert abs(float(axis @ axes[0])) > 0.99
    expected = float((spread[0] / 60**0.5 * 1.02) ** -0.5)
    assert float(few.components[:, 0].norm()) == pytest.approx(expected, rel=0.01)


def test_the_features_of_an_image_have_a_bounded_length():
    dataset = textured()
    teacher = new_teacher(make_teacher(), moments_of(dataset), HARDWARE)
    seen = teacher.see(to_network(torch.from_numpy(dataset.images)), HARDWARE)
    assert seen.shape == (60, 7)
    assert torch.allclose(seen.norm(dim=1), torch.tensor(1.09**0.5))


def test_a_patients_images_share_a_weight_and_a_number():
    dataset = make_dataset(20, patients=3)
    teacher = new_teacher(make_teacher(), moments_of(dataset), HARDWARE)
    units = group_units(dataset, patients(4))
    shown = read_lessons(units, teacher, 2, HARDWARE, Watcher())
    assert torch.bincount(shown.units).tolist() == [4, 4, 4]
    assert shown.weights.tolist() == [0.25] * 12


def test_a_unit_s_lesson_does_not_hang_on_the_others(monkeypatch):
    """Bit for bit, on a machine that rounds by how many it looks at together."""
    dataset = make_dataset(20)
    teacher = new_teacher(make_teacher(), moments_of(dataset), HARDWARE)
    look = room.scattering(8, 3)

    def rounding(images):
        return look(images) * (1 + 2.0**-20 * len(images))

    monkeypatch.setattr(room, "scattering", lambda *_: rounding)
    units = group_units(dataset, PrivacyUnit())
    whole = read_lessons(units, teacher, 2, HARDWARE, Watcher())
    two = replace(units, rows=units.rows[9:11], starts=units.starts[:3])
    few = read_lessons(two, teacher, 2, HARDWARE, Watcher())
    assert torch.equal(few.coefficients, whole.coefficients[9:11])
    assert torch.equal(few.labels, whole.labels[9:11])


def test_a_teacher_survives_the_disk(tmp_path):
    teacher = taught(textured(), make_teacher())
    save_teacher(teacher, tmp_path / "teacher.safetensors")
    kept = load_teacher(tmp_path / "teacher.safetensors")
    for name, tensor in vars(teacher).items():
        assert torch.equal(getattr(kept, name), tensor), name


# What is planned and charged.


def test_everything_together_keeps_the_budget(tmp_path):
    recipe = load_recipe(
        str(write_recipe(tmp_path)), teacher_share=0.3, central_share=0.1,
        central_batch=20, teacher_steps=7, moment_share=0.4,
    )  # fmt: skip
    budget = tiny.make_plan(tmp_path).budget
    mechanism, moments, central, teacher = bind(budget, 80, recipe, 2)
    assert (teacher.steps, teacher.declared_count, teacher.classes) == (7, 80, 2)
    charges = charges_of(mechanism, moments, central, teacher)
    assert charges[-2] == Charge(noise_multiplier=teacher.noise_multiplier, count=7)
    together = epsilon(charges, budget.delta, budget.relation)
    alone = epsilon(charges[-2:-1], budget.delta, budget.relation)
    assert 0.99 * budget.epsilon < together <= budget.epsilon
    assert 0.95 * 0.3 * budget.epsilon < alone <= 0.3 * budget.epsilon


def test_a_plan_holds_it_and_survives_being_kept(tmp_path):
    tiny.make_checkpoint(tmp_path / "checkpoint")
    path = write_recipe(tmp_path, teacher_share=0.3, teacher_labels="true")
    project = Project(
        source="images", resolution=8, declared_count=80, epsilon=0.5, delta=1e-3,
        checkpoint=str(tmp_path / "checkpoint"), recipe=str(path), overlap_answer="no",
    )  # fmt: skip

    def bound(present: int):
        return make_plan(
            project, run="run", class_names=("dark", "bright"), image_channels=3,
            units_present=present,
        )  # fmt: skip

    plan = bound(60)
    assert plan.teacher == bound(7).teacher and plan.teacher.declared_count == 80
    assert plan_from_facts(plan_facts(plan)) == plan


def test_a_resolution_that_it_cannot_see_is_refused(monkeypatch, tmp_path):
    from core.training import plan as planning

    recipe = load_recipe(str(write_recipe(tmp_path)), teacher_share=0.3)
    monkeypatch.setattr(planning, "starting_card", lambda *_: None)
    monkeypatch.setattr(planning, "read_recipe", lambda _: recipe)
    with pytest.raises(UserError, match="divisible by 4"):
        make_plan(
            Project(source="images", resolution=30, declared_count=80, delta=1e-3),
            run="run", class_names=("a", "b"), image_channels=3, units_present=60,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher_share": 1}, "teacher share must be at least 0 and below 1"),
        ({"teacher_share": 0.5}, "teacher share must be below 1 with the other"),
        ({"teacher_share": 0.2, "moment_share": 0}, "0 without noisy moments"),
        ({"teacher_share": 0.2, "teacher_steps": 0}, "teacher steps must be above 0"),
        ({"teacher_share": 0.2, "teacher_components": 0}, "components must be above"),
        ({"teacher_share": 0.2, "teacher_learning_rate": 0}, "rate must be above 0"),
        ({"teacher_labels": "true"}, "teacher labels must be false without"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        load_recipe(str(write_recipe(tmp_path, **changes)))


def test_the_purse_tells_its_releases_from_the_moments(tmp_path, ledger):
    plan = tiny.make_plan(tmp_path, moments=True, teacher=True, central=True)
    purse = Purse(plan, "data", ledger)
    assert (purse.teacher_left(), purse.sums_charged()) == (4, 0)
    purse.commit(plan.teacher.charge(1))
    purse.commit(plan.teacher.charge(1))
    assert (purse.teacher_left(), purse.sums_charged()) == (2, 0)
    purse.commit(plan.charges()[1])
    assert (purse.teacher_left(), purse.sums_charged()) == (2, 1)
    assert (purse.steps_left(), purse.central_left()) == (3, 3)
    for _ in range(2):
        purse.commit(plan.teacher.charge(1))
    with pytest.raises(UserError, match="charged already"):
        purse.commit(plan.teacher.charge(1))
    assert Purse(tiny.make_plan(tmp_path), "data", ledger).teacher_left() == 0


# Within a run.


def charged(plan, ledger) -> tuple[int, int]:
    """(releases of the teacher, DP-SGD steps)"""
    found = ledger.charged(make_dataset().fingerprint, run=plan.run)
    one = plan.teacher.charge(1)
    releases = sum(c.count for c in found if replace(c, count=1) == one)
    return releases, plan.steps_among(found)


@pytest.fixture
def performed(monkeypatch):
    """Sums of gradients that were really made; the run dies in the `fatal` one."""
    made, real, fatal = [], privacy.sum_of_gradients, []

    def summing(data, model):
        made.append(model)
        if len(made) in fatal:
            raise KeyboardInterrupt
        return real(data, model)

    monkeypatch.setattr(privacy, "sum_of_gradients", summing)
    made_and_fatal = (made, fatal)
    return made_and_fatal


def test_a_run_teaches_and_charges_each_release_once(
    tune, tmp_path, ledger, folder, performed
):
    plan = tiny.make_plan(tmp_path, moments=True, teacher=True)
    heard = []
    tuned = tune(plan, watcher=Watcher(report=lambda p: heard.append(p.activity)))
    assert charged(plan, ledger) == (4, 3) and len(performed[0]) == 4
    assert set(ledger.charged(make_dataset().fingerprint)) == set(plan.charges())
    assert (tuned.updates, tuned.steps_charged) == (3, 3)
    assert load_teacher(folder / warmup.TEACHER).model.abs().max() > 0
    assert "Teaching the private teacher" in heard
    # Each release looks with what the ones before have taught.
    assert len({model.numpy().tobytes() for model in performed[0]}) == 4
    tune(plan)
    assert charged(plan, ledger) == (4, 3) and len(performed[0]) == 4


@pytest.mark.parametrize("fatal", [1, 3, 4])
def test_a_crash_loses_a_release_and_no_more(
    tune, tmp_path, ledger, folder, performed, fatal
):
    plan = tiny.make_plan(tmp_path, moments=True, teacher=True)
    performed[1].append(fatal)
    with pytest.raises(KeyboardInterrupt):
        tune(plan)
    assert charged(plan, ledger) == (fatal, 0)
    kept = folder / warmup.TEACHER
    before = load_teacher(kept).model if kept.is_file() else torch.zeros(2, 7)
    tune(plan)
    assert charged(plan, ledger) == (4, 3) and len(performed[0]) == 4
    if fatal < 4:
        assert torch.equal(performed[0][fatal], before)


def test_a_crash_while_it_is_kept_does_not_release_again(
    tune, tmp_path, ledger, monkeypatch, performed
):
    plan = tiny.make_plan(tmp_path, moments=True, teacher=True)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(warmup, "save_teacher", crash)
        with pytest.raises(KeyboardInterrupt):
            tune(plan)
    assert charged(plan, ledger) == (1, 0)
    tune(plan)
    assert charged(plan, ledger) == (4, 3) and len(performed[0]) == 4


def test_a_stop_goes_on_with_the_next_release(tune, tmp_path, ledger, performed):
    plan = tiny.make_plan(tmp_path, moments=True, teacher=True)
    with pytest.raises(Stopped):
        tune(plan, watcher=Watcher(stop_requested=lambda: bool(performed[0])))
    assert charged(plan, ledger) == (1, 0)
    tune(plan)
    assert charged(plan, ledger) == (4, 3) and len(performed[0]) == 4


def test_without_moments_there_is_nothing_to_look_with(
    tune, tmp_path, ledger, folder, monkeypatch, performed
):
    """The moments were lost in a crash: no release of the teacher is made."""
    plan = tiny.make_plan(tmp_path, moments=True, teacher=True)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(moments_room, "sum_of_squares", crash)
        with pytest.raises(KeyboardInterrupt):
            tune(plan)
    tune(plan)
    assert charged(plan, ledger) == (0, 3) and not performed[0]
    assert not (folder / warmup.TEACHER).exists()


def test_nothing_is_read_when_the_charge_fails(tmp_path, monkeypatch):
    plan = tiny.make_plan(tmp_path, moments=True, teacher=True)
    teacher = new_teacher(plan.teacher, moments_of(make_dataset()), HARDWARE)

    def refuse(_):
        raise UserError("The ledger is full: make room.")

    def never():
        raise AssertionError("read")

    with pytest.raises(UserError, match="ledger"):
        teach(plan.teacher, teacher, never, step=0, commit=refuse)
