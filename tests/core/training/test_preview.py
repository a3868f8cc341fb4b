"""What is told of a budget before it is spent, and which kinds fit a project."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.checkpoints.catalogue import bundled
from core.privacy.accounting import Charge
from core.privacy.budget import Budget, PrivacyUnit, Relation
from core.release.bounds import bounds
from core.training import preview as room
from core.workspace import Project


def quick(monkeypatch):
    for name in ("teaching_seconds", "moments_seconds", "matching_seconds"):
        monkeypatch.setattr(room, name, lambda *_, **__: 1.0)


@pytest.fixture
def project(monkeypatch) -> Project:
    quick(monkeypatch)
    return Project(declared_count=500, delta=1e-5, classes=("a", "b"))


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
def test_the_chances_of_an_attacker_are_those_of_the_report(noise):
    charge = Charge(noise_multiplier=noise, count=3)
    budget = Budget(
        epsilon=10.0,
        delta=1e-5,
        unit=PrivacyUnit(),
        relation=Relation.ADD_OR_REMOVE_ONE,
    )
    event = {"kind": "gaussian", "noise_multiplier": noise, "count": 3}
    reported = bounds([event], delta=1e-5, relation="add_or_remove_one", count=1000)
    told = room._chances(budget, (charge,))
    rate = reported.true_positive_rates[0.01]
    assert told.accuracy == pytest.approx(reported.best_accuracy, abs=2e-4)
    assert told.accusation == pytest.approx(rate / (rate + 0.01), abs=2e-4)


def test_what_bounds_nothing_leaves_an_attacker_certain():
    budget = Budget(
        epsilon=10.0,
        delta=1e-5,
        unit=PrivacyUnit(),
        relation=Relation.ADD_OR_REMOVE_ONE,
    )
    told = room._chances(budget, (Charge(noise_multiplier=0.0, count=1),))
    assert (told.accuracy, told.accusation) == (1.0, 1.0)


def test_a_delta_above_the_custom_is_warned_of(project):
    assert not any("customary" in text for text in room.preview(project).warnings)
    high = replace(project, delta=1e-3)
    first = room.preview(high).warnings[0]
    assert first.startswith(
        "δ = 1e-3 is above the customary limit of 1/(10 × 500) = 2e-4, and the report "
        "will say so: type 1e-"
    )


def test_a_protected_patient_has_no_weaker_row_for_one_image(project):
    patients = replace(project, unit="patient", max_images_per_unit=4)
    assert room.preview(patients).others == ()
    assert len(room.preview(project).others) == len(room.GROUPS)


def test_the_kind_for_few_is_advised_by_name(project):
    strict = replace(project, epsilon=1.0)
    assert room.preview(strict).better_kind == "few"
    assert room.preview(replace(project, declared_count=60_000)).better_kind == ""


def test_kinds_that_cannot_be_used_say_why(project):
    unfit = room.unfit_recipes(project, bundled())
    assert "28 × 28" in unfit["paper-mnist"]
    assert "not on this computer" in unfit["paper-cifar10"]
    assert not {"useful", "starter", "few", "upright"} & unfit.keys()
    small = room.unfit_recipes(replace(project, resolution=28), bundled())
    assert "paper-mnist" not in small and "starter" in small
    assert "useful" not in small


def test_checkpoints_that_a_kind_cannot_use_say_why(project):
    cards = bundled()
    assert room.unfit_checkpoints(replace(project, recipe="starter"), cards) == {}
    other = room.unfit_checkpoints(replace(project, recipe="paper-cifar10"), cards)
    assert "another sort" in other["starter"]
    small = replace(project, recipe="starter", resolution=28)
    assert "32 × 32" in room.unfit_checkpoints(small, cards)["starter"]
    gone = replace(project, recipe="gone.toml")
    assert room.unfit_checkpoints(gone, cards) == {}
