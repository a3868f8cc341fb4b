"""What the wizard knows without a window."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

from app import flow, words
from app.flow import State
from core.errors import UserError
from core.events import Watcher
from tests.app.fake_engine import with_project


def test_examples_in_the_documentation_hold():
    outcome = doctest.testmod(words)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_another_budget_drops_the_plan_that_was_made(engine, tmp_path):
    opened = flow.start_sample(engine, tmp_path / "project", Watcher())
    state = State(engine=engine)
    state.adopt(opened)
    state.plan = object()
    state.change(epsilon=state.project.epsilon)
    assert state.plan is not None
    state.change(title="Another title", images_per_class=5)
    assert state.plan is not None
    state.change(epsilon=1.0)
    assert state.plan is None


def test_a_project_is_not_started_over_another(engine, tmp_path):
    folder = tmp_path / "project"
    with_project(engine, folder)
    with pytest.raises(UserError, match="already holds a project"):
        flow.start_project(engine, folder, tmp_path / "images", Watcher())
    with engine.open_workspace(folder) as workspace:
        assert workspace.project is not None


def test_a_project_among_the_images_leaves_nothing_there(engine, tmp_path):
    with pytest.raises(UserError, match="inside the folder of images"):
        flow.start_project(engine, tmp_path / "project", tmp_path, Watcher())
    assert not list(tmp_path.iterdir())


def test_a_failed_start_lets_go_of_the_folder(engine, tmp_path):
    folder = tmp_path / "project"
    with pytest.raises(UserError, match="no folder"):
        flow.start_project(engine, folder, tmp_path / "nowhere", Watcher())
    flow.start_sample(engine, folder, Watcher())


def test_a_folder_without_a_project_cannot_be_continued(engine, tmp_path):
    with pytest.raises(UserError, match="holds no Sfumato project"):
        flow.continue_project(engine, tmp_path, Watcher())
    with pytest.raises(UserError, match="no project folder"):
        flow.continue_project(engine, tmp_path / "nowhere", Watcher())


def test_a_plan_whose_classes_nobody_confirmed_waits_for_that(engine, tmp_path):
    """As an older version left it: the project opens, so that they can be confirmed."""
    folder = tmp_path / "project"
    opened = flow.start_sample(engine, folder, Watcher())
    engine.make_plan(opened.workspace, opened.project, opened.dataset, Watcher())
    engine.save_project(opened.workspace, replace(opened.project, classes=()))
    engine.close(opened.workspace)
    again = flow.continue_project(engine, folder, Watcher())
    assert again.plan is None
    engine.save_project(again.workspace, opened.project)
    engine.close(again.workspace)
    assert flow.continue_project(engine, folder, Watcher()).plan is not None


@pytest.fixture
def measured(engine, tmp_path):
    """A finished project with a report, closed."""
    folder, watcher = tmp_path / "project", Watcher()
    opened = flow.start_sample(engine, folder, watcher)
    space, dataset = opened.workspace, opened.dataset
    plan = engine.make_plan(space, opened.project, dataset, watcher)
    engine.fine_tune(space, plan, dataset, watcher)
    engine.synthesise(space, plan, watcher)
    engine.evaluate(space, plan, dataset, watcher)
    engine.close(space)
    return folder


def test_wishes_that_are_refused_can_be_mended_in_their_project(engine, tmp_path):
    """Such as a network that has another in its place; nothing was trained yet."""
    folder, watcher = tmp_path / "project", Watcher()
    opened = flow.start_sample(engine, folder, watcher)
    engine.make_plan(opened.workspace, opened.project, opened.dataset, watcher)
    engine.close(opened.workspace)
    engine.fail["make_plan"] = UserError("It is another than the one.")
    again = flow.continue_project(engine, folder, watcher)
    assert again.plan is None and len(again.dataset) == len(opened.dataset)
    engine.close(again.workspace)


def test_a_trained_project_that_is_refused_says_so(engine, measured):
    engine.fail["make_plan"] = UserError("It is another than the one.")
    with pytest.raises(UserError, match="another than"):
        flow.continue_project(engine, measured, Watcher())


def test_a_report_of_other_images_is_not_shown_and_none_is_made(engine, measured):
    engine.fail["evaluate"] = AssertionError("nobody asked for it")
    opened = flow.continue_project(engine, measured, Watcher())
    assert opened.utility is not None
    wishes = replace(opened.project, images_per_class=7)
    plan = engine.make_plan(opened.workspace, wishes, opened.dataset, Watcher())
    engine.synthesise(opened.workspace, plan, Watcher())
    engine.save_project(opened.workspace, wishes)
    engine.close(opened.workspace)
    opened = flow.continue_project(engine, measured, Watcher())
    assert (opened.samples.per_class, opened.utility) == (7, None)


def test_a_wish_for_more_images_draws_none_while_it_opens(engine, measured):
    """Such as one that was saved just before the window was closed."""
    with engine.open_workspace(measured) as workspace:
        wishes = replace(workspace.project, images_per_class=70)
        engine.save_project(workspace, wishes)
    opened = flow.continue_project(engine, measured, Watcher())
    assert (opened.plan.recipe.images_per_class, opened.samples.per_class) == (70, 60)
    assert opened.utility is not None


def test_findings_count_what_training_may_use(engine, tmp_path):
    opened = flow.start_sample(engine, tmp_path / "project", Watcher())
    found, counts = opened.findings, opened.inspection.counts.values()
    assert found.train + found.held_out == 4_128
    assert sum(split["train"] for split in counts) == found.train
    assert sum(split["held_out"] for split in counts) == found.held_out
    assert found.patients is not None and found.largest_patient > 1
