"""The plan keeps the budget, and refuses what does not fit before it costs anything."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.bundled import recipe_names
from core.checkpoints import scratch
from core.errors import UserError
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import Relation, times
from core.privacy.second_opinion import second_epsilon
from core.training import plan as planning
from core.training import preview as preview_room
from core.training.matching import FeatureRelease
from core.training.plan import make_plan, plan_facts, plan_from_facts
from core.training.recipe_loading import load_recipe
from core.training.wishes import (
    LARGEST_BATCH,
    changes_to_recipe,
    read_recipe,
    recipe_wishes,
    told_overlap,
)
from core.workspace import Project
from tests.core import tiny
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
        overlap_answer="no",
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


@pytest.fixture
def one_opinion(monkeypatch):
    """The other accountant takes ten seconds, and is tested elsewhere."""
    monkeypatch.setattr(planning, "second_epsilon", lambda *_: 0.0)


@pytest.mark.usefixtures("one_opinion")
@pytest.mark.parametrize("relation", list(Relation))
def test_the_calibration_is_over_everything(project, relation):
    """Both releases of moments and every step that will be made, written out here."""
    plan = bound(project.changed(relation=relation.value))
    moments, mechanism = plan.moments, plan.mechanism
    everything = [
        Charge(noise_multiplier=moments.means_noise, count=1),
        Charge(noise_multiplier=moments.squares_noise, count=1),
        Charge(
            noise_multiplier=mechanism.noise_multiplier,
            count=load_recipe(project.recipe).steps,
            sampling_probability=4 / 80,
            population=80,
            batch_cap=mechanism.batch_cap,
        ),
    ]
    assert 0.99 * 0.5 < epsilon(everything, 1e-3, relation) <= 0.5
    assert list(plan.charges()) == everything


def test_a_claim_is_never_rounded(project):
    """1.2345678 is not 1.23457, which would be more, nor 1.23456."""
    for value in (1.2345678, 9.9999999, 0.1, 3.0):
        sentence = planning.promise(planning.read_budget(
            project.changed(epsilon=value, delta=1.2345678e-7)
        ), 80)  # fmt: skip
        assert f"(ε = {value!r}, δ = 1.2345678e-7," in sentence.replace("3,", "3.0,")


@pytest.mark.usefixtures("one_opinion")
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


@pytest.mark.usefixtures("one_opinion")
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
        ({"overlap_answer": "yes"}, "may have been trained on these people"),
        ({"overlap_answer": "maybe"}, "'maybe'.* is unknown: use no, unsure, yes"),
        ({"overlap_answer": ""}, "Say whether the checkpoint 'tiny' could"),
        ({"checkpoint": "nonesuch"}, "checkpoint"),
        ({"recipe": "nonesuch"}, "recipe"),
    ],
)
def test_wishes_that_do_not_fit_are_refused(project, changes, named):
    with pytest.raises(UserError, match=named):
        bound(project.changed(**changes))


@pytest.mark.parametrize("before", ["no", "unsure", "yes"])
def test_the_answer_given_at_the_import_is_about_other_people(
    project, tmp_path, before
):
    make_checkpoint(tmp_path / "checkpoint", overlap=before, overlap_reason="known")
    with pytest.raises(UserError, match="Say whether the checkpoint 'tiny' could"):
        bound(project.changed(overlap_answer=""))
    own = project.changed(overlap_answer="unsure", overlap_reason="asked")
    assert told_overlap(own, bound(own).checkpoint) == ("unsure", "asked")


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
        recipe = load_recipe(name)
        assert recipe.name == name
        if recipe.pictures == "network":
            assert load_recipe(name, steps=7).steps == 7


def test_the_preview_says_what_the_plan_will(project, monkeypatch):
    for name in ("training_seconds", "sampling_seconds"):
        monkeypatch.setattr(preview_room, name, lambda *_: 1.0)
    found = preview_room.preview(project)
    plan = bound(project)
    assert found.noise_multiplier == plan.mechanism.noise_multiplier
    assert found.sentence == plan.sentence()
    curve = [value for _, value in found.epsilon_curve]
    assert found.epsilon_curve[0][0] == 0 and found.epsilon_curve[-1][0] == 3
    assert curve == sorted(curve) and curve[-1] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("accountant", ["epsilon", "second_epsilon"])
def test_no_plan_is_made_when_one_accountant_finds_more(
    project, monkeypatch, accountant
):
    others = {"epsilon", "second_epsilon"} - {accountant}
    monkeypatch.setattr(planning, others.pop(), lambda *_: 0.0)
    monkeypatch.setattr(planning, accountant, lambda *_: 1.001 * project.epsilon)
    with pytest.raises(RuntimeError, match="accountants"):
        bound(project)


def test_the_plan_states_the_larger_of_two_opinions(project):
    plan = bound(project)
    charges, budget = plan.charges(), plan.budget
    found = second_epsilon(charges, budget.delta, budget.relation)
    assert found == pytest.approx(plan.epsilon, rel=1e-3) and found <= plan.epsilon


@pytest.mark.parametrize("opinions", [(0.4, 0.45), (0.45, 0.4)])
def test_the_plan_states_the_larger_of_two_opinions_whichever_it_is(
    project, monkeypatch, opinions
):
    for name, value in zip(("epsilon", "second_epsilon"), opinions, strict=True):
        monkeypatch.setattr(planning, name, lambda *_, found=value: found)
    assert bound(project).epsilon == 0.45


def test_the_preview_tells_what_patients_get_of_a_bound_on_images(project, monkeypatch):
    for name in ("training_seconds", "sampling_seconds"):
        monkeypatch.setattr(preview_room, name, lambda *_: 1.0)
    others = preview_room.preview(project).others
    assert [whom.count("patient") for whom, _ in others] == [1, 1, 1]
    figures = [value for _, value in others]
    # Never as good as what the chosen unit gets.
    assert figures == sorted(figures) and figures[0] > 1.5 * project.epsilon


def test_a_plan_of_an_older_version_is_still_read(tmp_path):
    """The facts as the first version wrote them, before the newer fields."""
    plan = tiny.make_plan(tmp_path, moments=True)
    facts = json.loads(json.dumps(plan_facts(plan)))
    for later in tiny.LATER_FIELDS:
        del facts["recipe"][later]
    assert plan_from_facts(facts) == plan


def test_a_plan_that_knew_no_cells_of_features_is_still_read(tmp_path):
    plan = tiny.make_plan(tmp_path, moments=True)
    features = FeatureRelease(classes=2, rounds=3, noise_multiplier=70.0)
    plan = replace(plan, moments=replace(plan.moments, features=features))
    facts = json.loads(json.dumps(plan_facts(plan)))
    del facts["moments"]["features"]["cells"]
    assert plan_from_facts(facts) == plan


@pytest.mark.parametrize("damage", ["unknown", "missing", "kind", "list"])
def test_facts_that_are_no_plan_are_refused_in_a_sentence(tmp_path, damage):
    facts = json.loads(json.dumps(plan_facts(tiny.make_plan(tmp_path))))
    match damage:
        case "unknown":
            facts["recipe"]["from_the_future"] = 1
        case "missing":
            del facts["mechanism"]["clip_norm"]
        case "kind":
            facts["budget"]["unit"]["kind"] = "hospital"
        case "list":
            facts["recipe"] = ["steps"]
    with pytest.raises(UserError, match="plan is damaged, or of another version"):
        plan_from_facts(facts)


@pytest.mark.parametrize(
    ("declared", "expected"), [(11, 4), (10, 4), (9, 3), (5, 2), (4, 1), (2, 1)]
)
def test_the_recipes_own_batch_is_fitted_to_a_small_data_set(
    project, declared, expected
):
    few = project.changed(declared_count=declared)
    assert read_recipe(few).batch_size == expected
    assert expected <= max(1, LARGEST_BATCH * declared)
    notes = changes_to_recipe(few)
    assert len(notes) == (expected != 4)
    assert all("of 4 is" in n and f": {expected} is used" in n for n in notes)


def test_the_largest_published_batch_is_bounded_and_accounted_for(project):
    """32,768 (Ghalebikesabi et al. 2023, sec. 4) of 50,000 declared images."""
    large = project.changed(
        declared_count=50_000, delta=1e-5, batch_size=32_768, epsilon=10.0
    )
    plan = bound(large, 50_000)
    assert plan.recipe.batch_size == 32_768
    assert plan.mechanism.sampling_probability == pytest.approx(
        32_768 / 50_000, rel=0.01
    )
    assert plan.mechanism.batch_cap >= 32_768
    assert plan.epsilon <= 10.0


def test_a_default_recipe_fits_a_small_data_set(project):
    few = project.changed(recipe="starter", declared_count=500)
    assert load_recipe("starter").batch_size > 500
    assert read_recipe(few).batch_size == 200
    assert read_recipe(replace(few, declared_count=None)).batch_size == 1024


@pytest.mark.parametrize(
    ("epsilon", "expected"), [(10, 3), (20, 6), (5, 2), (1, 1), (0.1, 1)]
)
def test_steps_grow_and_shrink_with_epsilon(project, tmp_path, epsilon, expected):
    write_recipe(tmp_path, steps_at_epsilon=10)
    wishes = project.changed(epsilon=float(epsilon))
    assert read_recipe(wishes).steps == expected
    told = [note for note in changes_to_recipe(wishes) if "ε = 10" in note]
    assert len(told) == (expected != 3)
    assert all(f": {expected} are used" in note for note in told)
    typed = wishes.changed(steps=7)
    assert read_recipe(typed).steps == 7 and changes_to_recipe(typed) == ()


STRICT = """
[strict]
up_to_epsilon = 3
moment_frequencies = [2, 1]
steps = 2
"""


@pytest.mark.parametrize(
    ("epsilon", "frequencies"), [(0.5, (2, 1)), (3.0, (2, 1)), (3.1, (4, 2))]
)
def test_a_small_epsilon_has_settings_of_its_own(
    project, tmp_path, epsilon, frequencies
):
    path = write_recipe(tmp_path, moment_frequencies=[4, 2])
    path.write_text(path.read_text() + STRICT)
    wishes = project.changed(epsilon=epsilon)
    found = read_recipe(wishes)
    assert found.moment_frequencies == frequencies
    assert found.steps == (2 if epsilon <= 3 else 3)
    told = [note for note in changes_to_recipe(wishes) if "settings of its own" in note]
    assert len(told) == (epsilon <= 3)
    assert read_recipe(wishes.changed(steps=7)).steps == 7
    assert load_recipe(str(path)).moment_frequencies == (4, 2)


@pytest.mark.parametrize(
    "table",
    [
        "strict = 3",
        "[strict]\nsteps = 2",
        "[strict]\nup_to_epsilon = 'three'",
        "[strict]\nup_to_epsilon = true",
        "[strict]\nup_to_epsilon = 3\nstpes = 2",
    ],
)
def test_a_strict_table_that_cannot_be_is_refused_at_any_epsilon(tmp_path, table):
    path = write_recipe(tmp_path)
    path.write_text(path.read_text() + "\n" + table)
    with pytest.raises(UserError, match="the table strict must hold"):
        load_recipe(str(path))


def test_every_bundled_recipe_loads_for_a_small_epsilon():
    changed = [
        name
        for name in recipe_names()
        if load_recipe(name, epsilon=1.0) != load_recipe(name)
    ]
    assert changed == ["useful"]


def test_without_the_wish_steps_stay_what_they_are(project):
    assert read_recipe(project.changed(epsilon=1.0)).steps == 3


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("v", True), ("v-linear-1000", True), ("", True), ("eps", False), ("edm", False),
     ("v-cosine-1000", False)],
)  # fmt: skip
def test_a_recipe_that_contradicts_the_checkpoint_is_refused(
    project, tmp_path, wanted, fits
):
    """The tiny checkpoint's card says v."""
    write_recipe(tmp_path, parameterisation=f'"{wanted}"')
    if fits:
        assert bound(project).recipe.parameterisation == wanted
        return
    with pytest.raises(UserError, match=f"trained as '{wanted}'.*trained as 'v'"):
        bound(project)
    with pytest.raises(UserError, match="trained as"):
        preview_room.preview(project)


def test_from_scratch_no_checkpoint_is_used_whichever_was_chosen(
    project, tmp_path, monkeypatch
):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(scratch.PRESETS, "dpdm-grey", tiny.CONFIG)
    write_recipe(tmp_path, network='"dpdm-grey"', parameterisation='"edm"')
    # The answer is about the checkpoint, which is not used.
    plan = bound(project.changed(overlap_answer="yes"))
    assert plan.checkpoint.name == "scratch-dpdm-grey-edm"
    assert (plan.checkpoint.parameterisation, plan.checkpoint.steps) == ("edm", 0)
    assert any("starts from nothing" in note for note in changes_to_recipe(project))
    with pytest.raises(UserError, match="recipe's network works at 8 pixels"):
        bound(project.changed(resolution=16))


@pytest.mark.parametrize("crop", [7, 8])
def test_a_crop_as_large_as_the_image_is_refused(project, tmp_path, crop):
    write_recipe(tmp_path, crop=crop)
    if crop == 7:
        assert bound(project).recipe.crop == 7
        return
    with pytest.raises(UserError, match="lower its crop"):
        bound(project)


def test_a_batch_that_was_typed_is_never_changed(project):
    few = project.changed(declared_count=12, batch_size=11)
    assert read_recipe(few).batch_size == 11 and changes_to_recipe(few) == ()
    with pytest.raises(UserError, match="batch of 12 must be smaller"):
        bound(few.changed(batch_size=12), 5)


def test_an_edited_recipe_file_is_another_wish(tmp_path):
    def wishes(**changes):
        return recipe_wishes(load_recipe(str(write_recipe(tmp_path, **changes))))

    first = wishes()
    assert json.loads(json.dumps(first)) == first
    edits = {
        "clip_norm": 0.02,
        "timestep_weights": [0.3, 0.7],
        "flip": "false",
        "trained": '["attention"]',
    }
    for name, value in edits.items():
        edited = wishes(**{name: value})
        changed = [key for key in first if first[key] != edited[key]]
        assert changed == [f"recipe's {name.replace('_', ' ')}"]
    assert wishes(title='"Another"', images_per_class=9) == first


def test_a_preview_of_nobody_is_refused(project):
    """Zero is a number that was declared, not one left out."""
    with pytest.raises(UserError, match="declared number of records must be 2"):
        preview_room.preview(project.changed(declared_count=0))


def test_the_preview_says_that_the_batch_was_lowered(project, monkeypatch):
    for name in ("training_seconds", "sampling_seconds"):
        monkeypatch.setattr(preview_room, name, lambda *_: 1.0)
    few = preview_room.preview(project.changed(declared_count=9))
    assert few.expected_batch == 3
    assert any("9 records: 3 is used" in warning for warning in few.warnings)


@pytest.mark.parametrize(
    ("declared", "epsilon", "recipe", "told"),
    [
        (4_500, 1.0, "useful", True),
        (29_990, 1.0, "useful", True),
        (30_000, 1.0, "useful", False),
        (4_500, 10.0, "useful", False),
        (4_500, 1.0, "few", False),
        (4_500, 1.0, "upright", False),
    ],
)
def test_few_records_under_a_strict_bound_are_better_cleaned(
    project, declared, epsilon, recipe, told
):
    wishes = project.changed(
        declared_count=declared, epsilon=epsilon, recipe=recipe,
        classes=tuple("0123456789"),
    )  # fmt: skip
    notes = [note for note in changes_to_recipe(wishes) if "recipe few" in note]
    assert len(notes) == told
    assert all(f"about {declared // 10:,} records a class" in note for note in notes)
    # How many a class has is not known before its names are.
    unnamed = wishes.changed(classes=())
    assert not any("recipe few" in note for note in changes_to_recipe(unnamed))


@pytest.mark.parametrize(
    ("epsilon", "factor"),
    [(10.0, "22,030"), (1.0, "2.719"), (0.5, "1.649"), (50.0, "10^22")],
)
def test_the_factor_is_rounded_up(epsilon, factor):
    assert times(epsilon) == factor
