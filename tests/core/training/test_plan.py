"""The plan keeps the budget, and refuses what does not fit before it costs anything."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.errors import UserError
from core.privacy.accounting import epsilon
from core.training import preview as preview_room
from core.training.plan import make_plan, plan_facts, plan_from_facts
from core.training.recipe import load_recipe, recipe_names
from core.workspace import Project
from tests.core.tiny import make_checkpoint, write_recipe


@pytest.fixture
def project(tmp_path) -> Project:
    make_checkpoint(tmp_path / "checkpoint")
    return Project(
        source="images",
        resolution=8,
        declared_count=80,
        checkpoint=str(tmp_path / "checkpoint"),
        epsilon=0.5,
        delta=1e-3,
        recipe=str(write_recipe(tmp_path)),
    )


def bound(project: Project, units_present: int = 60):
    return make_plan(
        project,
        run="run",
        class_names=("dark", "bright"),
        image_channels=3,
        units_present=units_present,
    )


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_everything_together_keeps_the_budget(project, unit):
    plan = bound(project.changed(unit=unit))
    found = epsilon(plan.charges(), 1e-3, plan.budget.relation)
    assert plan.epsilon == found
    assert 0.99 * 0.5 < found <= 0.5
    assert len(plan.charges()) == 3 and plan.charges()[-1].count == 3
    assert repr(project.epsilon) in plan.sentence() and unit in plan.sentence()


def test_its_numbers_are_the_declared_ones(project):
    """Two folders of different size behind one declaration give one mechanism."""
    few, many = bound(project, 10), bound(project, 80)
    assert few.mechanism == many.mechanism and few.moments == many.moments
    assert few.mechanism.population == 80
    assert few.mechanism.sampling_probability == 4 / 80
    assert few.mechanism.divisor == 4


def test_a_plan_survives_json(project):
    plan = bound(project)
    assert plan_from_facts(json.loads(json.dumps(plan_facts(plan)))) == plan


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -3.0}, "epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1 / 80}, "delta"),
        ({"unit": "hospital"}, "unit"),
        ({"relation": "sideways"}, "relation"),
        ({"max_images_per_unit": 3}, "image"),
        ({"batch_size": 80}, "batch"),
        ({"batch_size": 500}, "batch"),
        ({"batch_size": 0}, "batch"),
        ({"steps": 0}, "steps"),
        ({"augmentation_multiplicity": 0}, "multiplicity"),
        ({"declared_count": 59}, "declare"),
        ({"declared_count": 1}, "declare"),
        ({"resolution": 16}, "resolution"),
        ({"overlap_answer": "yes"}, "checkpoint"),
        ({"checkpoint": "nonesuch"}, "checkpoint"),
        ({"recipe": "nonesuch"}, "recipe"),
    ],
)
def test_wishes_that_do_not_fit_are_refused(project, changes, named):
    with pytest.raises(UserError, match=named):
        bound(project.changed(**changes))


def test_a_number_must_be_declared(project):
    with pytest.raises(UserError, match="declared"):
        bound(replace(project, declared_count=None))


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"clip_norm": 0.0},
        {"learning_rate": -1.0},
        {"moment_share": 1.0},
        {"sampler": '"fast"'},
        {"sampler_steps": 0},
        {"timestep_weights": [0.5, 0.6]},
        {"clip_nrom": 1.0},
    ],
)
def test_a_recipe_that_cannot_run_names_the_field(tmp_path, changes):
    path = write_recipe(tmp_path, **changes)
    with pytest.raises(UserError):
        load_recipe(str(path))


def test_a_recipe_with_a_field_left_out_names_it(tmp_path):
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace("ema_decay = 0.99", ""))
    with pytest.raises(UserError, match="ema_decay"):
        load_recipe(str(path))


def test_every_bundled_recipe_loads():
    assert {"demo", "starter"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).name == name
        assert load_recipe(name, steps=7).steps == 7


def test_the_preview_says_what_the_plan_will(project, monkeypatch):
    for name in ("forecast_seconds", "sampling_seconds"):
        monkeypatch.setattr(preview_room, name, lambda *_: 1.0)
    found = preview_room.preview(project)
    plan = bound(project)
    assert found.noise_multiplier == plan.mechanism.noise_multiplier
    assert found.sentence == plan.sentence()
    curve = [value for _, value in found.epsilon_curve]
    assert found.epsilon_curve[0][0] == 0 and found.epsilon_curve[-1][0] == 3
    assert curve == sorted(curve) and curve[-1] == pytest.approx(0.5, rel=0.02)
