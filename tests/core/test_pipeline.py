"""The same wishes go on, others are a new run, a rolled-back ledger is refused."""

from __future__ import annotations

import shutil

import pytest

from core import pipeline
from core.errors import UserError
from core.events import Watcher
from core.privacy.ledger import Ledger
from core.training import trainer
from core.workspace import Project, Workspace
from tests.core.tiny import make_checkpoint, make_dataset, write_recipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(trainer, "epsilon", lambda *_: 0.0)
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
    ).changed(steps=2)


def planned(workspace, project, dataset=None):
    data = dataset or make_dataset()
    return pipeline.make_plan(workspace, project, data, Watcher())


def test_the_same_wishes_are_the_same_run(workspace, project):
    plan = planned(workspace, project)
    assert planned(workspace, project) == plan
    free = project.changed(title="Another", images_per_class=9, device="cpu")
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


def test_a_ledger_that_was_rolled_back_is_refused(workspace, project, home):
    dataset = make_dataset()
    plan = planned(workspace, project)
    pipeline.fine_tune(workspace, plan, dataset, Watcher())
    shutil.rmtree(home)
    with pytest.raises(UserError, match="forgotten"):
        pipeline.spending(workspace, plan, dataset)


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
