"""Pictures from the moments: no network, all of the budget in the releases."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from core import pictures, pipeline
from core.checkpoints.cards import read_card, write_card
from core.checkpoints.store import WEIGHTS, load_checkpoint
from core.errors import Stopped, UserError
from core.events import Watcher
from core.privacy.accounting import Charge, epsilon
from core.release.verify import verify
from core.spending import open_ledger
from core.training import forecast, matching, trainer
from core.training.binding import bind, charges_of
from core.training.matching import Matching
from core.training.plan import plan_facts, plan_from_facts
from core.training.recipe import UNTRAINED
from core.training.recipe_loading import load_recipe
from core.training.teacher import Teacher
from core.training.warmup import MOMENTS_FILE, TEACHER
from core.workspace import Project, Workspace
from tests.core.tiny import (
    CONFIG,
    make_checkpoint,
    make_dataset,
    make_network,
    write_recipe,
)
from tests.core.tiny import make_plan as tiny_plan


def write(folder, **changes):
    """The tiny recipe, its pictures from the moments, without the network's fields."""
    wishes = {
        "pictures": '"moments"', "moment_share": 0.6, "teacher_share": 0.4,
        "teacher_steps": 3, "teacher_labels": "true",
    } | changes  # fmt: skip
    path = write_recipe(folder, **wishes)
    lines = [
        line
        for line in path.read_text().splitlines()
        if line.split(" = ")[0] not in UNTRAINED.keys() - changes.keys()
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    return Project(
        resolution=8, declared_count=40, epsilon=1.0, delta=1e-3, device="cpu",
        recipe=str(write(tmp_path)), checkpoint="there is none of this name",
        classes=("dark", "bright"),
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path, project):
    with Workspace.open(tmp_path / "project") as opened:
        opened.save_project(project)
        yield opened


def planned(workspace, project, dataset):
    workspace.finish("dataset", {"fingerprint": dataset.fingerprint})
    return pipeline.make_plan(workspace, project, dataset, Watcher())


def charged(workspace, dataset) -> tuple[Charge, ...]:
    with open_ledger(workspace) as ledger:
        return ledger.charged(dataset.fingerprint)


# The recipe.


def test_what_a_network_needs_need_not_be_given(tmp_path):
    recipe = load_recipe(str(write(tmp_path)))
    assert (recipe.pictures, recipe.steps, recipe.sampler) == ("moments", 0, "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 3}, "steps must be left out"),
        ({"batch_size": 4}, "batch size must be left out"),
        ({"central_share": 0.1}, "central share must be left out"),
        ({"moment_share": 0.5}, "moment share must be 0.6"),
        (
            {"moment_share": 0, "teacher_share": 0, "teacher_labels": "false"},
            "moment share must be 1",
        ),
        ({"teacher_share": 1.0, "moment_share": 0.0}, "teacher share must be"),
        ({"teacher_steps": 0}, "teacher steps must be above 0"),
        ({"moment_mean_norm": 0.0}, "moment mean norm must be above 0"),
        ({"refine_sigma": 0.01}, "refine sigma must be 0, or 0.04 to 80"),
        ({"refine_sigma": 81.0}, "refine sigma must be 0, or 0.04 to 80"),
        ({"refine_sigma": 1.0, "refine_steps": 1}, "refine steps must be between 2"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        load_recipe(str(write(tmp_path, **changes)))


def test_pictures_from_a_network_are_not_refined(tmp_path):
    with pytest.raises(UserError, match="refine sigma must be 0 for pictures from a"):
        load_recipe(str(write_recipe(tmp_path, refine_sigma=1.0)))


def test_other_pictures_do_not_exist(tmp_path):
    path = write_recipe(tmp_path, pictures='"dreams"')
    with pytest.raises(UserError, match="pictures must be one of network, moments"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", sorted(UNTRAINED))
def test_a_network_still_needs_all_of_its_own(tmp_path, name):
    path = write_recipe(tmp_path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith(
        f"{name} =")]  # fmt: skip
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=name):
        load_recipe(str(path))


# The budget.


@pytest.mark.parametrize("teacher_share", [0.0, 0.4])
def test_the_moments_have_what_the_teacher_leaves(tmp_path, teacher_share):
    wishes = {"moment_share": 1 - teacher_share, "teacher_share": teacher_share}
    labels = "true" if teacher_share else "false"
    recipe = load_recipe(str(write(tmp_path, **wishes, teacher_labels=labels)))
    budget = tiny_plan(tmp_path).budget
    mechanism, moments, central, teacher = bind(budget, 80, recipe, 2)
    assert (
        mechanism is None
        and central is None
        and (teacher is None) == (teacher_share == 0)
    )
    charges = charges_of(None, moments, None, teacher)
    together = epsilon(charges, budget.delta, budget.relation)
    assert 0.99 * budget.epsilon < together <= budget.epsilon
    alone = epsilon(charges[:2], budget.delta, budget.relation)
    # Composition: they have more than their share of ε.
    assert alone > (1 - teacher_share) * 0.99 * budget.epsilon
    if teacher:
        assert alone > 1.2 * (1 - teacher_share) * budget.epsilon


@pytest.mark.parametrize(
    "wish", [{"steps": 5}, {"batch_size": 8}, {"augmentation_multiplicity": 2}]
)
def test_a_wish_that_only_a_network_could_fulfil_is_blamed_itself(project, wish):
    with pytest.raises(UserError, match="trains no network: leave out the"):
        pipeline.preview(replace(project, **wish))


# The run.


def test_a_whole_run_from_the_plan_to_a_release_that_holds(
    workspace, project, tmp_path
):
    dataset = make_dataset(30, held_out=6)
    # Little noise and no clipping, so that the classes can be told apart; not by the
    # teacher, who looks at shapes: there are none.
    recipe = write(
        tmp_path / "clear", moment_mean_norm=16.0, moment_norm=16.0,
        teacher_labels="false",
    )  # fmt: skip
    clear = replace(project, epsilon=500.0, recipe=str(recipe))
    plan = planned(workspace, clear, dataset)
    assert plan.mechanism is None and plan.checkpoint is None and plan.steps == 0
    assert plan_from_facts(json.loads(json.dumps(plan_facts(plan)))) == plan
    tuned = pipeline.fine_tune(workspace, plan, dataset, Watcher())
    assert (tuned.updates, tuned.steps_charged) == (0, 0)
    assert charged(workspace, dataset) == plan.charges()
    assert not (workspace.path / "training" / "model" / "weights").exists()
    synthetic = pipeline.synthesise(workspace, plan, Watcher())
    images, labels = synthetic.read()
    assert images.shape == (6, 8, 8, 3) and labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images[labels == 1].mean() > images[labels == 0].mean() + 20
    release = pipeline.export(workspace, plan, tmp_path / "release", Watcher())
    found = verify(release.folder)
    assert found.holds, found.findings
    audit = json.loads((release.folder / "audit.json").read_text())
    assert audit["steps_committed"] == 0
    assert audit["public_model"]["name"] == "none"
    assert "from noisy statistics, not taken" in audit["synthetic_marking"]
    assert "no network is trained" in audit["clip_norm"]
    assert "DP-SGD" not in json.dumps(audit)
    page = (release.folder / "audit_report.html").read_text(encoding="utf-8")
    assert "no network is used" in page and "hold the same people" not in page
    # A second time nothing is read and nothing charged.
    assert pipeline.fine_tune(workspace, plan, dataset, Watcher()) == tuned
    assert charged(workspace, dataset) == plan.charges()


def test_a_stopped_run_goes_on_and_charges_no_more(workspace, project):
    dataset = make_dataset(30)
    plan = planned(workspace, project, dataset)
    training = workspace.path / "training"
    while True:
        before = len(charged(workspace, dataset))
        begun = (training / TEACHER).is_file()
        try:
            pipeline.fine_tune(
                workspace, plan, dataset, Watcher(stop_requested=lambda: True)
            )
        except Stopped:
            assert begun or len(charged(workspace, dataset)) > before
            continue
        break
    assert charged(workspace, dataset) == plan.charges()


def test_moments_that_were_lost_are_not_made_again(workspace, project, monkeypatch):
    dataset = make_dataset(30)
    plan = planned(workspace, project, dataset)
    with monkeypatch.context() as patch:
        patch.setattr("core.training.moments.sum_of_squares", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pipeline.fine_tune(workspace, plan, dataset, Watcher())
    spent = charged(workspace, dataset)
    assert len(spent) == 2
    with pytest.raises(UserError, match="are incomplete"):
        pipeline.fine_tune(workspace, plan, dataset, Watcher())
    assert charged(workspace, dataset) == spent


def test_no_network_is_looked_at(workspace, project, monkeypatch):
    for name in ("public_network", "warmed_up"):
        monkeypatch.setattr(trainer, name, None)
    monkeypatch.setattr(trainer.gradients, "find_pace", None)
    dataset = make_dataset(30)
    plan = planned(workspace, project, dataset)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    assert (workspace.path / "training" / MOMENTS_FILE).is_file()


def test_pictures_are_moved_to_the_class_that_the_teacher_sees(
    workspace, project, tmp_path, monkeypatch
):
    monkeypatch.setattr(matching, "REFERENCE", 40)
    wishes = {"moment_features_share": 0.2, "moment_features_from": 0}
    project = replace(project, recipe=str(write(tmp_path / "own", **wishes)))
    workspace.save_project(project)
    dataset = make_dataset(30)
    plan = planned(workspace, project, dataset)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    towards = []

    def move(way, images, labels):
        towards.append(labels)
        return images

    monkeypatch.setattr(Matching, "move", move)
    # It sees the second class in every image.
    monkeypatch.setattr(
        Teacher, "name", lambda _, images, hardware: torch.ones(len(images)).long()
    )
    pipeline.synthesise(workspace, plan, Watcher())
    assert len(towards) > 1
    assert all(bool((labels == 1).all()) for labels in towards)


def test_the_preview_says_what_the_plan_will_be(workspace, project):
    found = pipeline.preview(project)
    plan = planned(workspace, project, make_dataset(30))
    assert found.noise_multiplier == plan.moments.squares_noise
    assert found.steps == 0 and "no network" in found.figures()
    assert found.epsilon_curve[-1][1] <= project.epsilon
    assert not any("steps are few" in warning for warning in found.warnings)
    more = pipeline.preview(replace(project, epsilon=2.0))
    assert more.noise_multiplier < found.noise_multiplier


def test_the_preview_counts_the_classes_and_channels_that_are_known(
    workspace, tmp_path, project, monkeypatch
):
    """Assumed are ten classes, in colour: then no cell would have so many records."""
    timed = []

    def images_per_second(*of: object) -> float:
        timed.append(of)
        return 1000.0

    monkeypatch.setattr(forecast, "images_per_second", images_per_second)
    monkeypatch.setattr(forecast, "rows_per_second", lambda *_: 1000.0)
    features = {"moment_features_share": 0.3, "moment_features_from": 20}
    cells = {"moment_cells": 2, "moment_cells_from": 20, "moment_cell_size": 10}
    path = write(tmp_path / "celled", moment_residual="false", **features, **cells)
    wishes = replace(project, recipe=str(path))
    found = pipeline.preview(wishes, channels=1)
    plan = planned(workspace, wishes, make_dataset(30))
    assert plan.moments.cells and plan.moments.features
    assert found.noise_multiplier == plan.moments.squares_noise
    assert {of[:2] for of in timed} == {(8, 1)}
    unknown = pipeline.preview(replace(wishes, classes=()))
    assert timed[-1][:2] == (8, 3)
    assert unknown.noise_multiplier < found.noise_multiplier
    # Twelve thousand pseudo-images find the way to the features.
    assert unknown.forecast_seconds < 60 < found.forecast_seconds


# Refined by a public network.


@pytest.fixture
def refining(tmp_path, project, monkeypatch) -> Project:
    """The same wishes, with a network to clean the pictures."""
    card = make_checkpoint(tmp_path / "tiny", pretraining_data="Balls and sticks")
    monkeypatch.setattr("core.training.wishes.find", lambda _: card)
    recipe = write(tmp_path / "clean", refine_sigma=0.5, refine_steps=2)
    return replace(
        project, recipe=str(recipe), checkpoint="tiny", overlap_answer="no",
        overlap_reason="drawn by rule",
    )  # fmt: skip


def test_refining_reads_no_private_image_and_costs_nothing(workspace, refining):
    dataset = make_dataset(30)
    plan = planned(workspace, refining, dataset)
    budget = plan.budget
    bare = replace(plan.recipe, refine_sigma=0.0)
    assert plan.charges() == charges_of(*bind(budget, 40, bare, 2))
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    spent = charged(workspace, dataset)
    dataset.images[:] = 0
    pipeline.synthesise(workspace, plan, Watcher())
    assert charged(workspace, dataset) == spent == plan.charges()


def test_a_refined_release_names_the_network_and_holds(
    workspace, refining, tmp_path, monkeypatch
):
    seen = []
    real = pictures.refined

    def listen(draw, public, **how):
        seen.append((public.card.folder, how["rows"](), how["sigma"], how["steps"]))
        return real(draw, public, **how)

    monkeypatch.setattr(pictures, "refined", listen)
    workspace.save_project(refining)
    dataset = make_dataset(30, held_out=6)
    plan = planned(workspace, refining, dataset)
    assert plan_from_facts(json.loads(json.dumps(plan_facts(plan)))) == plan
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    pipeline.synthesise(workspace, plan, Watcher())
    ((folder, rows, sigma, steps),) = seen
    assert folder == tmp_path / "tiny" and (sigma, steps) == (0.5, 2)
    assert len(rows) == 2 and set(rows) <= {0, 1, 2}
    release = pipeline.export(workspace, plan, tmp_path / "release", Watcher())
    found = verify(release.folder)
    assert found.holds, found.findings
    audit = json.loads((release.folder / "audit.json").read_text())
    assert audit["public_model"]["pretraining_data"] == "Balls and sticks"
    assert audit["public_model"]["overlap_answer"] == "no"
    assert "noise of standard deviation 0.5" in audit["sampler"]["name"]
    assert audit["sampler"]["steps"] == 2 and audit["steps_committed"] == 0
    assert "and a public network" in audit["synthetic_marking"]
    assert "DP-SGD" not in json.dumps(audit)


def test_refining_asks_whether_the_network_knew_these_people(workspace, refining):
    for answer, words in (("", "Say whether the checkpoint"), ("yes", "no bound")):
        with pytest.raises(UserError, match=words):
            planned(
                workspace, replace(refining, overlap_answer=answer), make_dataset(30)
            )


def test_refining_needs_images_of_the_network_size(workspace, refining):
    with pytest.raises(UserError, match="works at 8 pixels per side"):
        planned(workspace, replace(refining, resolution=16), make_dataset(30))


def test_another_network_or_noise_is_another_run(workspace, refining, tmp_path):
    plan = planned(workspace, refining, make_dataset(30))
    other = write(tmp_path / "other", refine_sigma=0.6, refine_steps=2)
    again = replace(refining, recipe=str(other))
    assert planned(workspace, again, make_dataset(30)).run != plan.run


def test_the_preview_of_refining_counts_the_network(refining, project, monkeypatch):
    from core.training import forecast

    monkeypatch.setattr(forecast, "calls_per_second", lambda *_: 0.5)
    monkeypatch.setattr(forecast, "images_per_second", lambda *_: 1e9)
    monkeypatch.setattr(forecast, "rows_per_second", lambda *_: 1e9)
    more = pipeline.preview(refining).forecast_seconds
    less = pipeline.preview(project).forecast_seconds
    # 3 images of 2 classes, 1.25 draws for each, 2 calls of 2 seconds.
    assert more - less == pytest.approx(3 * 2 * 1.25 * 4)
    assert any("cleans them" in told for told in pipeline.preview(refining).warnings)


def test_a_network_that_was_replaced_draws_nothing(workspace, refining, tmp_path):
    dataset = make_dataset(30)
    plan = planned(workspace, refining, dataset)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    other = make_network()
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    make_checkpoint(tmp_path / "tiny", other)
    with pytest.raises(UserError, match="another than the one that this project"):
        pipeline.synthesise(workspace, plan, Watcher())


def test_a_network_that_cannot_clean_is_refused_before_anything_is_spent(
    workspace, refining, tmp_path
):
    dataset = make_dataset(30)
    plan = planned(workspace, refining, dataset)
    with open(tmp_path / "tiny" / WEIGHTS, "r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError, match="SHA-256"):
        pipeline.fine_tune(workspace, plan, dataset, Watcher())
    assert not charged(workspace, dataset)


@pytest.mark.parametrize("old", [False, True])
def test_another_config_is_another_network_than_was_planned(
    workspace, refining, tmp_path, monkeypatch, old
):
    """Of the same sizes and weights: the card was written anew with it."""
    dataset = make_dataset(30)
    if old:
        card = replace(read_card(tmp_path / "tiny"), config_sha256="")
        monkeypatch.setattr("core.training.wishes.find", lambda _: card)
    plan = planned(workspace, refining, dataset)
    network = make_network(replace(CONFIG, frequency_shift=1))
    weights = load_checkpoint(tmp_path / "tiny").network.state_dict()
    network.load_state_dict(weights)
    card = make_checkpoint(tmp_path / "tiny", network)
    assert card.sha256 == plan.checkpoint.sha256
    if old:  # Of a version that did not say it.
        write_card(replace(card, config_sha256=""))
    with pytest.raises(UserError, match="another than the one that this project"):
        pipeline.fine_tune(workspace, plan, dataset, Watcher())
    assert not charged(workspace, dataset)


def test_a_class_of_which_nothing_is_learnt_is_drawn_all_the_same(
    workspace, project, tmp_path
):
    """Its one image, were it there, would decide whether there is a release."""
    dataset = make_dataset(30)
    dataset = replace(dataset, labels=np.zeros_like(dataset.labels))
    workspace.save_project(project)
    plan = planned(workspace, project, dataset)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    drawn = pipeline.synthesise(workspace, plan, Watcher())
    assert [len(list(folder.iterdir())) for folder in drawn.class_folders] == [3, 3]
    assert verify(pipeline.export(
        workspace, plan, tmp_path / "release", Watcher()
    ).folder).holds  # fmt: skip
