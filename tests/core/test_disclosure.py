"""The report states what the recipe chose."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.checkpoints.catalogue import find
from core.disclosure import audit_facts, build_hash
from core.parallel import Workers
from core.plan_words import sampler
from core.privacy.clipping import batched_clipped_sum
from core.release.audit import build_audit
from core.release.recheck import contradictions
from core.release.report import front_page
from core.training.cells import CellRelease
from core.training.forecast import network_calls
from core.training.matching import FeatureRelease
from core.training.recipe_loading import load_recipe
from core.workspace import Project
from tests.core.tiny import make_plan, write_recipe


def stated(plan, project: Project | None = None, **more) -> dict:
    facts = audit_facts(
        plan,
        project or Project(),
        trainable_parameters=1,
        updates=plan.mechanism.steps,
        steps_charged=plan.mechanism.steps,
        epsilon_charged=0.5,
        lifetime_epsilon=0.5,
        **{"lifetime_runs": 1, "sealed_head": "0" * 64} | more,
    )
    return build_audit(facts, {"a.png": "0" * 64})


def test_the_report_leaves_out_nothing_that_a_run_knows(tmp_path):
    for plan in (make_plan(tmp_path), make_plan(tmp_path, moments=True, teacher=True)):
        missing = {entry["field"] for entry in stated(plan)["not_yet_reported"]}
        # No commit and no lock file in an installation, no reports of earlier runs, no
        # self-test, no canaries, nothing that the custodian was asked about deviations.
        assert missing == {3, 4, 5, 65, 67, 68, 69, 83}


def test_the_report_states_the_precision_of_sums(tmp_path):
    pool = Workers(1)
    total = batched_clipped_sum(
        np.arange(2), lambda part: [[torch.ones(len(part), 3)]], clip_norm=1.0, size=3,
        pool=pool,
    )  # fmt: skip
    pool.close()
    said = stated(make_plan(tmp_path))
    assert f"torch.{said['accumulation_dtype']}" == str(total.dtype)


def test_the_report_tells_which_files_made_it(tmp_path, monkeypatch):
    build_hash.cache_clear()
    first = stated(make_plan(tmp_path))["tool"]["build_hash"]
    root = tmp_path / "installed"
    for package in ("core", "resources"):
        shutil.copytree(str(resources.files(package)), root / package)
    monkeypatch.setattr(resources, "files", lambda package: root / package)
    build_hash.cache_clear()
    assert build_hash() == first
    (root / "core" / "notes.txt").write_text("of nobody")
    build_hash.cache_clear()
    assert build_hash() == first
    with open(root / "core" / "privacy" / "noise.py", "a") as file:
        file.write("\n")
    build_hash.cache_clear()
    assert build_hash() != first
    build_hash.cache_clear()


def test_the_report_states_views_guidance_and_churn(tmp_path):
    plain = stated(make_plan(tmp_path))
    assert plain["views"] == (
        "timestep and noise; mirrored left to right with probability 1/2"
    )
    assert plain["sampler"]["guidance"] == plain["sampler"]["churn"] == "none"
    assert plain["public_model"]["trained_as"] == "v"
    chosen = stated(
        make_plan(
            tmp_path, flip=False, crop=2, label_dropout=0.1, guidance=1.5,
            sampler="heun", churn_amount=100.0,
        )
    )  # fmt: skip
    assert chosen["views"] == (
        "timestep and noise; shifted by up to 2 pixels each way; all views of an image "
        "without its class with probability 0.1"
    )
    assert chosen["sampler"]["guidance"] == 1.5
    assert chosen["sampler"]["churn"] == (
        "100 over all steps, from noise level 0.05 to 50, of standard deviation 1"
    )


def test_the_report_states_where_the_network_comes_from_and_whom_it_could_hold(
    tmp_path,
):
    plan = make_plan(tmp_path)
    model = stated(plan)["public_model"]
    assert model["pretraining_licences"] == "none" and "source" not in model
    assert model["overlap_answer"] == "not asked"
    card = replace(
        plan.checkpoint, source="https://example.org", source_sha256="a" * 64,
        conversion="the means only", overlap="no", overlap_reason="it is of 1998",
    )  # fmt: skip
    imported = replace(plan, checkpoint=card)
    model = stated(imported)["public_model"]
    # Whoever imported it was asked about other people.
    assert model["overlap_answer"] == "not asked"
    # Not why: that is about other people, and nobody could change its wording now.
    assert model["overlap_answer_at_import"] == "no"
    assert (model["source"], model["source_sha256"], model["conversion"]) == (
        "https://example.org", "a" * 64, "the means only",
    )  # fmt: skip
    own = Project(overlap_answer="unsure", overlap_reason="nobody could say")
    audit = stated(imported, own)
    model = audit["public_model"]
    assert model["overlap_answer"] == "unsure"
    assert model["overlap_reason"] == "nobody could say"
    assert model["overlap_answer_at_import"] == "no"
    (row,) = [
        words for name, words in front_page(audit).choices if name == "Public network"
    ]
    assert row.endswith("same people? unsure (reason: nobody could say)")


def test_an_answer_about_a_network_from_nothing_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    plan = replace(make_plan(tmp_path), checkpoint=find("scratch-dpdm-grey-edm"))
    model = stated(plan, Project(overlap_answer="unsure"))["public_model"]
    assert (model["overlap_answer"], model["overlap_reason"]) == (
        "no", "no data were used",
    )  # fmt: skip
    assert "overlap_answer_at_import" not in model


def test_the_report_states_the_public_images_that_join_the_steps(tmp_path):
    plain = stated(make_plan(tmp_path))
    assert plain["public_data"] == "none beside the public model's"
    joined = stated(make_plan(tmp_path, outer_images=1200, private_timesteps=(40, 700)))
    assert joined["views"].endswith(
        "private images at timesteps from 40 to below 700 only"
    )
    assert joined["public_data"].startswith("1,200 images drawn by rule")
    others = stated(make_plan(tmp_path, outer_images=2, outer_source="moments"))
    assert "pseudo-images drawn from the noisy moments" in others["public_data"]


def test_the_report_states_the_central_images_as_events_of_their_own(tmp_path):
    plan = make_plan(tmp_path, central=True, moments=True)
    audit = stated(plan)
    events = audit["composition"]["events"]
    assert [event["count"] for event in events] == [3, 1, 1, 3]
    assert events[0]["what"].startswith("central images")
    assert events[0]["sampling_probability"] == 0.5
    assert audit["steps_committed"] == 3
    assert [s["expected_batch"] for s in audit["sampling"]] == [12, 4]
    wrong = [finding.subject for finding in contradictions(audit)]
    assert not {"steps_committed", "original_parameters", "n_public"} & set(wrong)


def test_the_report_states_the_cells_that_there_are(tmp_path):
    """Not those that the recipe would have made of more records."""
    plan = make_plan(tmp_path, moments=True, moment_residual=False, moment_cells=4)
    cells = CellRelease(
        classes=2, per_class=4, size=5, axes=3, rounds=4, mean_norm=4.0, norm=3.0,
        means_noise=90.0, squares_noise=45.0, noise_edge=0.4,
    )  # fmt: skip
    assert sampler(of_moments(plan))["name"].count("the Gaussian") == 1
    plan = replace(plan, moments=replace(plan.moments, cells=cells))
    assert "the mixture" in sampler(of_moments(plan))["name"]
    audit = stated(plan)
    events = audit["composition"]["events"]
    assert [event["count"] for event in events] == [1, 1, 4, 1, 3]
    assert events[2]["what"] == "noisy means of cells within the classes"
    wrong = [finding.subject for finding in contradictions(audit)]
    assert not {"steps_committed", "original_parameters", "n_public"} & set(wrong)


@pytest.mark.parametrize("cells", [1, 5])
def test_the_report_states_the_features_that_there_are(tmp_path, cells):
    plan = make_plan(tmp_path, moments=True)
    assert "wavelet" not in sampler(of_moments(plan))["name"]
    features = FeatureRelease(classes=2, rounds=7, cells=cells, noise_multiplier=80.0)
    plan = replace(plan, moments=replace(plan.moments, features=features))
    drawn = sampler(of_moments(plan))["name"]
    steps = 13 if cells > 1 else 7
    assert f"in {steps} steps, towards the noisy" in drawn
    assert ("its cell within the class" in drawn) == (cells > 1)
    assert "teacher names" not in drawn
    assert "teacher names images" in sampler(of_moments(plan, True))["name"]
    audit = stated(plan)
    events = audit["composition"]["events"]
    own = ["noisy means and squares of the classes' wavelet features"]
    own += (
        ["noisy means and squares of the same in cells of the classes"]
        if cells > 1
        else []
    )
    assert [event["count"] for event in events] == [1, 1, *[1] * len(own), 3]
    assert [event["what"] for event in events[2:-1]] == own
    assert {event["noise_multiplier"] for event in events[2:-1]} == {80.0}
    wrong = [finding.subject for finding in contradictions(audit)]
    assert not {"steps_committed", "original_parameters", "n_public"} & set(wrong)


def of_moments(plan, named=False):
    return replace(
        plan,
        recipe=SimpleNamespace(
            pictures="moments", refine_sigma=0.0, teacher_labels=named
        ),
    )


def test_the_report_states_the_teacher_and_who_named_the_images(tmp_path):
    plan = make_plan(tmp_path, moments=True, teacher=True)
    audit = stated(plan, unnamed=(0, 1200))
    events = audit["composition"]["events"]
    assert [event["count"] for event in events] == [1, 1, 4, 3]
    assert events[2]["kind"] == "gaussian" and events[2]["noise_multiplier"] == 60.0
    assert events[2]["what"].startswith("private teacher")
    assert audit["steps_committed"] == 3
    wrong = [finding.subject for finding in contradictions(audit)]
    assert not {"steps_committed", "original_parameters", "n_public"} & set(wrong)
    rule = audit["sampler"]["post_filtering_rule"]
    assert "the private teacher" in rule and "1,200 images" in rule
    assert "(by class: 0, 1200)" in rule
    plain = stated(plan)["sampler"]["post_filtering_rule"]
    assert plain.startswith("none: every") and "teacher" not in plain


def test_the_report_says_that_a_teacher_was_asked_for_and_was_not_there(tmp_path):
    plan = make_plan(
        tmp_path, moments=True, teacher=True, teacher_share=0.2, teacher_labels=True
    )
    rule = stated(plan)["sampler"]["post_filtering_rule"]
    assert rule.startswith("none: every image")
    assert "asks for a private teacher" in rule and "lost" in rule
    assert (
        "asks for" not in stated(plan, unnamed=(0, 0))["sampler"]["post_filtering_rule"]
    )


@pytest.mark.parametrize(
    ("changes", "calls"),
    [({}, 2), ({"guidance": 1.0}, 4), ({"sampler": "heun"}, 3),
     ({"sampler": "heun", "guidance": 1.0}, 6)],
)  # fmt: skip
def test_the_forecast_counts_what_the_sampler_asks(tmp_path, changes, calls):
    path = str(write_recipe(tmp_path))
    recipe = load_recipe(path, sampler_steps=2, label_dropout=0.1, **changes)
    assert network_calls(recipe) == calls
