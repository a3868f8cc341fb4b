"""The door to the engine: what it finds in a project that was worked on before."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.engine import PipelineEngine
from core.evaluation.recipe import load_classifier
from core.evaluation.report import UtilityReport, stamp
from core.events import Watcher
from core.workspace import Workspace
from tests.core.tiny import make_plan

REPORT = UtilityReport(tested_on="9 real held-out images", figures=())
THESE = {"per_class": 60, "run": "a"}


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (stamp(**THESE), REPORT),
        (stamp(**THESE | {"per_class": 61}), None),
        (stamp(**THESE | {"run": "b"}), None),
        (stamp(**THESE, recipe=load_classifier("paper-mnist")), None),
    ],
    ids=["these images", "more images", "another run", "another classifier"],
)
def test_a_report_is_found_where_it_is_of_these_images(tmp_path, of, found):
    samples = SimpleNamespace(per_class=60)
    with Workspace.open(tmp_path / "project") as workspace:
        plan = SimpleNamespace(run="a")
        assert PipelineEngine().measured(workspace, plan, samples) is None
        workspace.finish("utility", {"report": REPORT.to_json(), "of": of})
        assert PipelineEngine().measured(workspace, plan, samples) == found


def test_opening_draws_no_more_images_than_there_are(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "core.pipeline.synthesise", lambda space, plan, watcher: asked.append(plan)
    )
    plan = make_plan(tmp_path)
    assert plan.recipe.images_per_class != 60
    with Workspace.open(tmp_path / "project") as workspace:
        workspace.finish("samples", {"per_class": 60})
        PipelineEngine().drawn(workspace, plan, Watcher())
    assert [plan.recipe.images_per_class for plan in asked] == [60]
