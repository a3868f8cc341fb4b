"""The same wishes go on, others are a new run, a rolled-back ledger is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from core import pipeline
from core.diffusion.networks import build_network
from core.diffusion.samplers import Churn
from core.errors import Stopped, UserError
from core.events import Watcher
from core.privacy.ledger import Ledger
from core.privacy.lifetime import Cap
from core.spending import SEAL, open_ledger, sealed_head
from core.synthesis import drawing, sampling
from core.training import purse
from core.training.plan import plan_from_facts
from core.workspace import Project, Workspace
from tests.core.tiny import (
    CONFIG,
    make_checkpoint,
    make_dataset,
    make_network,
    write_recipe,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(purse, "epsilon", lambda *_: 0.0)
    return tmp_path / "home"


@pytest.fixture
def workspace(tmp_path, home):
    with Workspace.open(tmp_path / "project") as opened:
        yield opened


@pytest.fixture
def project(tmp_path) -> Project:
    make_checkpoint(tmp_path / "checkpoint")
    return Project(
        resolution=8,
        declared_count=40,
        checkpoint=str(tmp_path / "checkpoint"),
        epsilon=0.3,
        delta=1e-3,
        recipe=str(write_recipe(tmp_path, moment_share=0)),
        overlap_answer="no",
        classes=("dark", "bright"),
    ).changed(steps=2)


def planned(workspace, project, dataset=None):
    data = dataset or make_dataset()
    return pipeline.make_plan(workspace, project, data, Watcher())


def test_the_same_wishes_are_the_same_run(workspace, project):
    plan = planned(workspace, project)
    assert planned(workspace, project) == plan
    free = project.changed(
        title="Another", images_per_class=9, device="cpu", overlap_reason="known"
    )
    again = planned(workspace, free)
    assert again.run == plan.run and again.recipe.images_per_class == 9


@pytest.mark.parametrize(
    "changes", [{"epsilon": 0.31}, {"steps": 1}, {"declared_count": 41}]
)
def test_other_wishes_are_a_new_run(workspace, project, changes):
    plan = planned(workspace, project)
    assert planned(workspace, project.changed(**changes)).run != plan.run


def test_other_data_are_a_new_run(workspace, project):
    plan = planned(workspace, project)
    assert planned(workspace, project, make_dataset(seed=5)).run != plan.run


def test_the_only_image_of_a_class_does_not_decide_on_the_release(workspace, project):
    """Who knows all the others would see from the plan whether it was there."""
    dataset, plans = make_dataset(), []
    for left in (0, 1):
        labels = dataset.labels.copy()
        labels[np.flatnonzero(labels == 0)[left:]] = 1
        found = planned(workspace, project, replace(dataset, labels=labels))
        plans.append(replace(found, run=""))
    assert plans[0] == plans[1] and plans[0].class_names == dataset.class_names


def test_wishes_that_are_refused_leave_the_plan_as_it_was(workspace, project):
    plan = planned(workspace, project)
    (workspace.folder("training") / "state").write_text("paid for")
    with pytest.raises(UserError):
        planned(workspace, project.changed(delta=0.5))
    assert planned(workspace, project).run == plan.run
    assert (workspace.folder("training") / "state").read_text() == "paid for"


def test_all_runs_on_the_data_add_up(workspace, project, tmp_path):
    dataset = make_dataset()
    plan = planned(workspace, project)
    before = pipeline.spending(workspace, plan, dataset)
    assert (before.before, before.epsilon_charged, before.steps_done) == (0, 0, 0)
    assert before.after == plan.epsilon <= 0.3
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    own = pipeline.spending(workspace, plan, dataset)
    assert own.epsilon_charged == plan.epsilon and own.steps_done == 2
    with Workspace.open(tmp_path / "another project") as other:
        second = planned(other, project.changed(epsilon=0.2))
        both = pipeline.spending(other, second, dataset)
    assert both.before == plan.epsilon
    assert max(plan.epsilon, second.epsilon) < both.after <= 0.5


def test_results_that_were_paid_for_are_not_thrown_away(workspace, project):
    plan = planned(workspace, project)
    tuned = pipeline.fine_tune(workspace, plan, make_dataset(), Watcher())
    with pytest.raises(UserError, match="epsilon"):
        planned(workspace, project.changed(epsilon=0.2))
    assert planned(workspace, project).run == plan.run
    assert (tuned.folder / "card.json").is_file()


def test_other_tables_are_other_data(workspace, project):
    """Noisy sums over one way to group the images bound nothing for another."""
    dataset = replace(make_dataset(), grouping="by patient")
    corrected = replace(dataset, grouping="by patient, corrected")
    plan = planned(workspace, project, dataset)
    assert planned(workspace, project, corrected).run != plan.run
    plan = planned(workspace, project, dataset)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    with pytest.raises(UserError, match="which images belong together or are held out"):
        planned(workspace, project, corrected)
    assert planned(workspace, project, dataset).run == plan.run


@pytest.mark.parametrize("corrected", [False, True])
def test_the_ledger_tells_a_corrected_table_from_the_first(
    workspace, project, tmp_path, corrected
):
    """Its patients may have been several each in the first run, bounded one by one."""
    dataset = replace(
        make_dataset(patients=10), unit_column="patient_id", membership="a" * 64
    )
    other = replace(dataset, membership="b" * 64) if corrected else dataset
    project = project.changed(unit="patient", max_images_per_unit=2)
    first = planned(workspace, project, dataset)
    assert first.terms.startswith("patient (at most 2, grouped by patient_id [aaaa")
    pipeline.fine_tune(workspace, first, dataset, Watcher())
    with Workspace.open(tmp_path / "corrected") as again:
        second = planned(again, project, other)
        found = pipeline.spending(again, second, other)
        audit = released(again, project, other, tmp_path / "release")
    assert (first.terms in found.other_terms) == corrected
    assert (found.before == 0) == corrected
    assert (audit["lifetime_budget"]["epsilon"] == "infinite") == corrected
    assert "a" * 16 not in str(audit) and "b" * 16 not in str(audit)


def released(workspace, project, dataset, folder) -> dict:
    """The audit of a run on these data."""
    plan = planned(workspace, project, dataset)
    workspace.save_project(project)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    pipeline.synthesise(workspace, plan, Watcher())
    return released_again(workspace, folder)


def released_again(workspace, folder) -> dict:
    plan = plan_from_facts(workspace.result("plan")["plan"])
    return pipeline.export(workspace, plan, folder, Watcher()).audit


def test_a_report_is_of_what_was_trained_and_not_of_what_was_tried(
    workspace, project, tmp_path
):
    wishes = project.changed(
        window="0,100", overlap_answer="unsure", unit="patient", max_images_per_unit=2
    )
    dataset = replace(make_dataset(patients=3), unit_column="patient_id")
    before = released(workspace, wishes, dataset, tmp_path / "before")
    tried = wishes.changed(
        window="0,50", overlap_answer="no", missing_unit="leave_out", delta=1e-4,
        title="Tiles",
    )  # fmt: skip
    other = replace(make_dataset(seed=5), unit_column="case")
    workspace.save_project(tried)
    with pytest.raises(UserError, match="under other wishes"):
        planned(workspace, tried, other)
    workspace.finish("dataset", {"fingerprint": other.fingerprint})
    after = released_again(workspace, tmp_path / "after")
    for audit in (before, after):
        assert audit.pop("title") in ("Synthetic images", "Tiles")
        for field in ("created_utc", "report_id", "budget_ledger", "content_hashes"):
            del audit[field]
    assert after == before
    assert "'patient_id'" in after["unit_of_privacy"]["definition"]
    assert after["public_model"]["overlap_answer"] == "unsure"
    assert after["lifetime_budget"]["runs"] == 1 and after["epsilon_spent"] > 0


def test_a_run_that_the_ledger_does_not_know_is_not_released(
    workspace, project, tmp_path, home
):
    released(workspace, project, make_dataset(), tmp_path / "release")
    shutil.rmtree(home)
    (workspace.path / "ledger-head.json").unlink()
    with pytest.raises(UserError, match="ledger holds no charge of this project"):
        released_again(workspace, tmp_path / "another")
    assert not (tmp_path / "another").exists()


def forgetting(workspace, **missing) -> None:
    """The plan as a version would have kept it that did not know these fields yet."""
    kept = workspace.result("plan")
    for wish in missing.get("wishes", ()):
        del kept["wishes"][wish]
    for field in missing.get("recipe", ()):
        del kept["plan"]["recipe"][field]
    workspace.finish("plan", kept)


def test_a_project_of_an_older_version_goes_on(workspace, project, monkeypatch):
    """Wishes that it did not know count as left alone, and its recipe as unchanged."""
    plan = planned(workspace, project)
    pipeline.fine_tune(workspace, plan, make_dataset(), Watcher())
    wishes = workspace.result("plan")["wishes"]
    forgetting(
        workspace,
        wishes=["relation", *(name for name in wishes if name.startswith("recipe's"))],
    )
    assert planned(workspace, project) == plan
    with pytest.raises(UserError, match="relation"):
        planned(workspace, project.changed(relation="replace_one"))
    with pytest.raises(UserError, match="epsilon"):
        planned(workspace, project.changed(epsilon=0.2))


def test_a_recipe_that_was_edited_is_another_wish(workspace, project, tmp_path):
    plan = planned(workspace, project)
    write_recipe(tmp_path, moment_share=0, clip_norm=0.02)
    other = planned(workspace, project)
    assert other.run != plan.run and other.recipe.clip_norm == 0.02
    pipeline.fine_tune(workspace, other, make_dataset(), Watcher())
    write_recipe(tmp_path, moment_share=0, clip_norm=0.03)
    with pytest.raises(UserError, match="clip norm"):
        planned(workspace, project)


def test_a_plan_above_the_cap_is_refused_and_changes_nothing(workspace, project, home):
    dataset, plan = make_dataset(), planned(workspace, project)
    with open_ledger() as ledger:
        cap = Cap(epsilon=0.31, delta=1e-3, terms=plan.terms)
        ledger.set_cap(dataset.fingerprint, cap)
    with pytest.raises(UserError, match="cap"):
        planned(workspace, project.changed(epsilon=0.32))
    assert planned(workspace, project) == plan
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    with open_ledger() as ledger:
        ledger.set_cap(dataset.fingerprint, replace(cap, epsilon=0.1))
    # What is paid for may be used.
    assert planned(workspace, project) == plan


def test_results_of_an_older_version_are_read(workspace, project):
    plan = planned(workspace, project)
    tuned = pipeline.fine_tune(workspace, plan, make_dataset(), Watcher())
    facts = workspace.result("training")
    workspace.finish("training", facts | {"of another version": 1})
    assert pipeline.fine_tune(workspace, plan, make_dataset(), Watcher()) == tuned


def test_an_edited_recipe_is_noticed_in_a_field_that_came_later(
    workspace, project, tmp_path
):
    """A plan of an older version did without it: now it is another run."""
    plan = planned(workspace, project)
    pipeline.fine_tune(workspace, plan, make_dataset(), Watcher())
    forgetting(workspace, wishes=["recipe's crop"], recipe=["crop"])
    assert planned(workspace, project) == plan
    path = Path(project.recipe)
    path.write_text(path.read_text() + "\ncrop = 1\n")
    with pytest.raises(UserError, match="recipe's crop"):
        planned(workspace, project)


def test_images_are_drawn_as_the_recipe_says(workspace, project, monkeypatch):
    path = Path(project.recipe)
    lines = ["label_dropout = 0.5", "guidance = 1.5", "churn_amount = 2.0"]
    text = path.read_text().replace('"ddim"', '"heun"')
    path.write_text("\n".join([text, *lines]))
    plan = planned(workspace, project)
    pipeline.fine_tune(workspace, plan, make_dataset(), Watcher())
    asked, real = [], drawing.sample

    def recording(*arguments, **options):
        asked.append(options)
        return real(*arguments, **options)

    monkeypatch.setattr(drawing, "sample", recording)
    pipeline.synthesise(workspace, plan, Watcher())
    assert {(a["guidance"], a["churn"]) for a in asked} == {(1.5, Churn(amount=2.0))}


def test_a_smaller_set_than_before_can_be_released(
    workspace, project, tmp_path, monkeypatch
):
    dataset, plan = make_dataset(), planned(workspace, project)
    workspace.save_project(project)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    pipeline.synthesise(workspace, plan, Watcher())
    fewer = replace(plan, recipe=replace(plan.recipe, images_per_class=2))

    def crash(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sampling, "synthesise", crash)
        pipeline.synthesise(workspace, fewer, Watcher())
    with pytest.raises(UserError, match=r"'samples'.* is not finished"):
        pipeline.export(workspace, fewer, tmp_path / "release", Watcher())
    assert pipeline.synthesise(workspace, fewer, Watcher()).per_class == 2
    release = pipeline.export(workspace, fewer, tmp_path / "release", Watcher())
    assert len(list(release.folder.rglob("*.png"))) == 2 * 2


def test_other_images_have_no_figures_and_no_release_yet(
    workspace, project, tmp_path, monkeypatch
):
    data = make_dataset(held_out=8)
    plan = planned(workspace, project, data)
    workspace.save_project(project)
    pipeline.fine_tune(workspace, plan, data, Watcher())
    pipeline.synthesise(workspace, plan, Watcher())
    pipeline.evaluate(workspace, plan, data, Watcher())
    pipeline.export(workspace, plan, tmp_path / "release", Watcher())
    assert workspace.finished("utility") and workspace.finished("release")
    fewer = replace(plan, recipe=replace(plan.recipe, images_per_class=2))
    pipeline.synthesise(workspace, fewer, Watcher())
    assert not workspace.finished("utility") and not workspace.finished("release")


def test_more_images_than_the_disk_holds_leave_the_set_as_it_is(
    workspace, project, monkeypatch
):
    plan = planned(workspace, project)
    pipeline.fine_tune(workspace, plan, make_dataset(), Watcher())
    pipeline.synthesise(workspace, plan, Watcher())
    many = replace(plan, recipe=replace(plan.recipe, images_per_class=4))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=9_999))
    with pytest.raises(UserError, match="free some space"):
        pipeline.synthesise(workspace, many, Watcher())
    assert workspace.result("samples")["per_class"] == 3


def test_a_published_classifiers_figures_do_not_replace_our_own(
    workspace, project, monkeypatch
):
    data = make_dataset(held_out=8)
    plan = planned(workspace, project, data)
    pipeline.fine_tune(workspace, plan, data, Watcher())
    pipeline.synthesise(workspace, plan, Watcher())
    ours = pipeline.evaluate(workspace, plan, data, Watcher())
    theirs = replace(ours, tested_on="others")
    published = SimpleNamespace(private=False)
    monkeypatch.setattr(pipeline.report, "evaluate", lambda *_, **__: theirs)
    again = partial(pipeline.evaluate, workspace, plan, data, Watcher())
    assert again(recipe=published) == theirs
    monkeypatch.delattr(pipeline.report, "evaluate")  # What is kept is not measured.
    assert again(recipe=published) == theirs and again() == ours


def test_colour_images_are_not_given_to_a_grey_network(workspace, project, tmp_path):
    grey = replace(CONFIG, image_channels=1)
    make_checkpoint(tmp_path / "grey", make_network(grey))
    with pytest.raises(UserError, match="draws grey images only"):
        planned(workspace, project.changed(checkpoint=str(tmp_path / "grey")))
    assert not workspace.finished("plan")


@pytest.mark.parametrize("wrong", ["safe and anonymised", "one line\nand another"])
def test_words_that_no_release_prints_are_refused_before_spending(
    workspace, project, tmp_path, wrong
):
    """A card cannot be changed once budget was spent on it."""
    make_checkpoint(tmp_path / "other", pretraining_data=wrong)
    changed = project.changed(checkpoint=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"checkpoint\.pretraining data.*wording"):
        planned(workspace, changed)
    with pytest.raises(UserError, match=r"title.*wording"):
        planned(workspace, project.changed(title="ε = 0.1"))
    assert not workspace.finished("plan")


def rolled_back(home, kept):
    shutil.rmtree(home)
    if kept is not None:
        shutil.copytree(kept, home)


@pytest.mark.parametrize("how", ["deleted", "restored with all", "restored alone"])
def test_a_ledger_that_was_rolled_back_is_refused(
    workspace, project, home, tmp_path, how
):
    """From an old backup of its folder, or of its file only; or not at all."""
    dataset, plan = make_dataset(), planned(workspace, project)
    pipeline.spending(workspace, plan, dataset)
    backup = shutil.copytree(home, tmp_path / "backup")
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    if how == "restored alone":
        shutil.copy(backup / "ledger.sqlite3", home)
    else:
        rolled_back(home, None if how == "deleted" else backup)
    wrong = "is gone" if how == "deleted" else "forgotten"
    with pytest.raises(UserError, match=f"{wrong}.*ledger-head.json"):
        pipeline.spending(workspace, plan, dataset)
    with Workspace.open(tmp_path / "another") as other:
        if how == "restored alone":
            with pytest.raises(UserError, match=f"{wrong}.*ledger-head.json"):
                planned(other, project)


def test_a_project_restored_from_a_backup_is_charged_for_what_it_did(
    workspace, project, tmp_path
):
    """It goes back, the ledger does not: a step that was lost is not made again."""
    dataset, plan = make_dataset(), planned(workspace, project)
    stopping = iter([True])
    with pytest.raises(Stopped):
        pipeline.fine_tune(
            workspace,
            plan,
            dataset,
            Watcher(stop_requested=lambda: next(stopping, False)),
        )
    shutil.copytree(workspace.path, tmp_path / "backup")
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    with Workspace.open(tmp_path / "backup") as restored:
        tuned = pipeline.fine_tune(restored, plan, dataset, Watcher())
        assert (tuned.updates, tuned.steps_charged) == (1, 2)
        own = pipeline.spending(restored, plan, dataset)
    assert own.epsilon_charged == plan.epsilon


def test_a_plan_of_an_older_version_gets_the_answer_that_it_lacks(workspace, project):
    """It was made on that of whoever had imported the network, about other people."""
    dataset, silent = make_dataset(), project.changed(overlap_answer="")
    plan = planned(workspace, project)
    kept = workspace.result("plan")
    kept["wishes"]["overlap_answer"] = ""
    workspace.finish("plan", kept)
    with pytest.raises(UserError, match="Say whether the checkpoint"):
        planned(workspace, silent)
    for answer in ("no", "unsure"):
        assert planned(workspace, project.changed(overlap_answer=answer)) == plan
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    # What is paid for goes on, whatever its report can say.
    assert planned(workspace, silent) == planned(workspace, project) == plan
    with pytest.raises(UserError, match=r"other wishes \(overlap_answer"):
        planned(workspace, project.changed(overlap_answer="yes"))
    pipeline.synthesise(workspace, plan, Watcher())
    for asked, said in ((silent, "not asked"), (project, "no")):
        workspace.save_project(asked)
        release = pipeline.export(workspace, plan, workspace.path / said, Watcher())
        audit = json.loads((release.folder / "audit.json").read_text())
        assert audit["public_model"]["overlap_answer"] == said


def test_what_was_said_of_a_network_is_not_said_of_another_in_its_place(
    workspace, project, tmp_path
):
    """It was brought in under the name of the one that was asked about."""
    place, aside = tmp_path / "checkpoint", tmp_path / "aside"
    planned(workspace, project)
    wider = project.changed(epsilon=0.4)
    without = replace(wider, recipe="useful", steps=None)
    place.rename(aside)
    make_checkpoint(place, build_network(CONFIG))
    for _ in range(2):
        with pytest.raises(UserError, match="is another than the one"):
            planned(workspace, wider)
        # A plan without a network in between forgets nothing.
        assert planned(workspace, without).checkpoint is None
    shutil.rmtree(place)
    shutil.copytree(aside, place)
    assert planned(workspace, wider).budget.epsilon == 0.4
    # Another by its own name is asked about by those who name it.
    other = tmp_path / "other"
    make_checkpoint(other, build_network(CONFIG))
    assert planned(workspace, wider.changed(checkpoint=str(other))).checkpoint


def test_a_finished_stage_is_not_repeated(workspace, project, home):
    dataset = make_dataset()
    plan = planned(workspace, project)
    first = pipeline.fine_tune(workspace, plan, dataset, Watcher())
    assert pipeline.fine_tune(workspace, plan, dataset, Watcher()) == first
    ledger = Ledger(home / "ledger.sqlite3")
    assert len(ledger.entries()) == 2
    ledger.close()
    with pytest.raises(UserError, match="samples"):
        pipeline.evaluate(workspace, plan, dataset, Watcher())


def test_a_release_confirms_no_guess_at_the_private_files(workspace, project, tmp_path):
    data = make_dataset()
    workspace.save_project(project.changed(overlap_answer="no"))
    plan = planned(workspace, project, data)
    pipeline.fine_tune(workspace, plan, data, Watcher())
    pipeline.synthesise(workspace, plan, Watcher())
    unconfirmed = project.changed(overlap_answer="no", classes=())
    workspace.save_project(unconfirmed)  # As an older version left it.
    with pytest.raises(UserError, match="Nobody has confirmed the classes"):
        pipeline.export(workspace, plan, tmp_path / "release", Watcher())
    assert not (tmp_path / "release").exists()
    workspace.save_project(project.changed(overlap_answer="no"))
    release = pipeline.export(workspace, plan, tmp_path / "release", Watcher())
    with open_ledger(workspace) as ledger:
        hashes = [entry.hash for entry in ledger.entries()]
    assert len(hashes) == 2
    # Each follows from the private files and from what a report and a clock tell.
    told = b"".join(p.read_bytes() for p in release.folder.rglob("*") if p.is_file())
    assert not [h for h in (*hashes, data.fingerprint) if h.encode() in told]
    # Nor does another hash of a head that anybody could make.
    sealed = release.audit["budget_ledger"]["sealed_head"]
    assert sealed == sealed_head(workspace, hashes[-1]), "the custodian can show it"
    with Workspace.open(tmp_path / "outside") as other:
        assert sealed_head(other, hashes[-1]) != sealed
    assert (workspace.path / SEAL).read_bytes() not in told
