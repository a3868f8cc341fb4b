"""A data set's lifetime cap holds for all runs together, before anything is spent."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest
from pytest import approx

from core import pipeline, spending
from core.errors import Stopped, UserError
from core.events import Watcher
from core.privacy.budget import Relation
from core.privacy.ledger import Account, Ledger
from core.privacy.lifetime import Cap, lifetime_epsilon
from core.spending import alone_with, open_ledger, refuse_above_cap
from core.training import purse
from core.workspace import Workspace
from tests.core.tiny import make_dataset, make_plan, patients

DELTA = 1e-3
IMAGE = "image, add_or_remove_one"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(purse, "epsilon", lambda *_: 0.0)
    return tmp_path / "home"


@pytest.fixture
def dataset():
    return make_dataset(6)


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path, noise=3.0, batch_size=2, augmentation_multiplicity=1)


@pytest.fixture
def ledger():
    with open_ledger() as opened:
        yield opened


def own_epsilon(plan) -> float:
    return lifetime_epsilon({plan.terms: plan.charges()}, IMAGE, DELTA)


def cap(ledger, dataset, epsilon, terms=IMAGE) -> None:
    ledger.set_cap(dataset, Cap(epsilon=epsilon, delta=DELTA, terms=terms))


def charge(ledger, plan, run, terms=None) -> None:
    """Another run of the same size, at its end."""
    for spent in plan.charges():
        account = Account(dataset="data", run=run, terms=terms or plan.terms)
        ledger.commit(account, spent)


def test_a_plan_alone_is_held_to_the_cap(ledger, plan):
    refuse_above_cap(ledger, plan, "data")
    for share, fits in ((1.0, True), (0.999, False), (1.001, True)):
        cap(ledger, "data", share * own_epsilon(plan))
        if fits:
            refuse_above_cap(ledger, plan, "data")
        else:
            with pytest.raises(UserError, match=r"cap.*lower epsilon.*--cap"):
                refuse_above_cap(ledger, plan, "data")
        refuse_above_cap(ledger, plan, "other data")


def test_all_runs_are_composed(ledger, plan):
    """Aborted ones too; together they cost less than their sum."""
    charge(ledger, plan, "another")
    together = lifetime_epsilon({IMAGE: plan.charges() * 2}, IMAGE, DELTA)
    assert together < 2 * own_epsilon(plan)
    cap(ledger, "data", together)
    refuse_above_cap(ledger, plan, "data")
    cap(ledger, "data", 0.999 * together)
    with pytest.raises(UserError, match="cap"):
        refuse_above_cap(ledger, plan, "data")


def test_what_the_run_was_charged_is_not_counted_twice(ledger, plan):
    """It is counted to its end, however far it is."""
    ledger.commit(
        Account(dataset="data", run=plan.run, terms=plan.terms),
        plan.mechanism.charge(2),
    )
    cap(ledger, "data", own_epsilon(plan))
    refuse_above_cap(ledger, plan, "data")
    cap(ledger, "data", 0.999 * own_epsilon(plan))
    with pytest.raises(UserError, match="cap"):
        refuse_above_cap(ledger, plan, "data")


def test_a_run_that_spends_nothing_more_may_be_finished(ledger, plan):
    charge(ledger, plan, plan.run)
    cap(ledger, "data", 0.001)
    refuse_above_cap(ledger, plan, "data")


def test_another_unit_is_counted_or_refused_never_left_out(ledger, tmp_path, plan):
    patient = make_plan(tmp_path / "patient", noise=3.0, unit=patients(2))
    charge(ledger, patient, "patients")
    mixed = {IMAGE: plan.charges(), patient.terms: patient.charges()}
    total = lifetime_epsilon(mixed, IMAGE, DELTA)
    # As if the patient's record were exchanged.
    assert total > lifetime_epsilon({IMAGE: plan.charges() * 2}, IMAGE, DELTA)
    cap(ledger, "data", 0.999 * total)
    with pytest.raises(UserError, match="cap"):
        refuse_above_cap(ledger, plan, "data")
    cap(ledger, "data", 1000.0, patient.terms)
    refuse_above_cap(ledger, patient, "data")
    with pytest.raises(UserError, match=r"nothing bounds them.*--unit image"):
        refuse_above_cap(ledger, plan, "data")
    cap(ledger, "data", 1.001 * total)
    refuse_above_cap(ledger, plan, "data")


def test_the_relation_of_the_cap_counts_not_that_of_the_run(ledger, plan):
    cap(ledger, "data", own_epsilon(plan), IMAGE.replace("add_or_remove", "replace"))
    with pytest.raises(UserError, match="replace_one"):
        refuse_above_cap(ledger, plan, "data")
    relation = Relation.REPLACE_ONE
    exchanged = replace(plan, budget=replace(plan.budget, relation=relation))
    cap(ledger, "data", own_epsilon(plan))
    refuse_above_cap(ledger, exchanged, "data")


def test_nothing_is_spent_above_the_cap(tmp_path, plan, dataset):
    with open_ledger() as ledger:
        cap(ledger, dataset.fingerprint, 0.9 * own_epsilon(plan))
    with Workspace.open(tmp_path / "project") as workspace:
        with pytest.raises(UserError, match="cap"):
            pipeline.fine_tune(workspace, plan, dataset, Watcher())
        with open_ledger() as ledger:
            assert ledger.charged(dataset.fingerprint) == ()
            cap(ledger, dataset.fingerprint, 1.1 * own_epsilon(plan))
        pipeline.fine_tune(workspace, plan, dataset, Watcher())


def test_a_cap_lowered_during_a_pause_holds_for_the_rest(tmp_path, plan, dataset):
    stopping = iter([True])
    watcher = Watcher(stop_requested=lambda: next(stopping, False))
    with Workspace.open(tmp_path / "project") as workspace:
        with pytest.raises(Stopped):
            pipeline.fine_tune(workspace, plan, dataset, watcher)
        with open_ledger() as ledger:
            cap(ledger, dataset.fingerprint, 0.9 * own_epsilon(plan))
            before = ledger.charged(dataset.fingerprint)
        with pytest.raises(UserError, match="cap"):
            pipeline.fine_tune(workspace, plan, dataset, watcher)
    with open_ledger() as ledger:
        assert ledger.charged(dataset.fingerprint) == before


def test_one_at_a_time_spends_on_a_data_set(tmp_path, plan, dataset):
    """Two that begin together would each see the cap unspent."""
    with Workspace.open(tmp_path / "project") as workspace:
        with alone_with(dataset.fingerprint):
            with pytest.raises(UserError, match="Another training"):
                pipeline.fine_tune(workspace, plan, dataset, Watcher())
            with alone_with("other data"):
                pass
        pipeline.fine_tune(workspace, plan, dataset, Watcher())


def test_the_data_are_held_as_long_as_they_are_spent_on(
    tmp_path, plan, dataset, monkeypatch
):
    """From before the cap is looked at until the last charge."""
    seen = []

    def held(*arguments, **options):
        with (
            pytest.raises(UserError, match="Another training"),
            alone_with(dataset.fingerprint),
        ):
            raise AssertionError
        seen.append(True)

    real = Ledger.commit
    monkeypatch.setattr(pipeline, "refuse_above_cap", held)
    monkeypatch.setattr(Ledger, "commit", lambda *a, **o: (held(), real(*a, **o)))
    with Workspace.open(tmp_path / "project") as workspace:
        pipeline.fine_tune(workspace, plan, dataset, Watcher())
    assert len(seen) == 1 + plan.mechanism.steps


def test_spending_tells_what_adds_up_and_what_does_not(ledger, tmp_path, plan):
    patient = make_plan(tmp_path / "patient", noise=3.0, unit=patients(2))
    charge(ledger, plan, "images")
    charge(ledger, patient, "patients")
    found = spending.spending_with(ledger, plan, "data")
    mixed = {plan.terms: plan.charges(), patient.terms: patient.charges()}
    assert found.before == lifetime_epsilon(mixed, IMAGE, DELTA)
    mixed[plan.terms] *= 2
    assert found.after == approx(lifetime_epsilon(mixed, IMAGE, DELTA))
    assert found.after > found.before
    assert (found.other_terms, found.steps_done, found.epsilon_charged) == ((), 0, 0.0)
    own = {patient.terms: patient.charges()}
    found = spending.spending_with(ledger, patient, "data")
    assert found.before == lifetime_epsilon(own, patient.terms, DELTA)
    assert found.other_terms == (IMAGE,)


def test_a_report_counts_every_run(ledger, plan):
    half = plan.mechanism.charge(1)
    ledger.commit(Account(dataset="data", run="aborted", terms=IMAGE), half)
    cap(ledger, "data", 100.0)
    charge(ledger, plan, plan.run)
    found = spending.spending_so_far(ledger, plan, "data")
    assert found.of_run == own_epsilon(plan) and found.runs == 2
    together = {IMAGE: (half, *plan.charges())}
    assert found.of_all == approx(lifetime_epsilon(together, IMAGE, DELTA))
    assert found.of_all > found.of_run


def test_a_report_for_patients_counts_what_was_charged_for_images(
    ledger, tmp_path, plan
):
    """Which bounds nothing for a patient, as nobody says how many images one has."""
    patient = make_plan(tmp_path / "patient", noise=3.0, unit=patients(2))
    charge(ledger, plan, "images")
    charge(ledger, patient, patient.run)
    found = spending.spending_so_far(ledger, patient, "data")
    assert found.runs == 2 and found.of_all == math.inf
    own = {patient.terms: patient.charges()}
    assert found.of_run == lifetime_epsilon(own, patient.terms, DELTA)


def test_a_data_sets_name_is_no_path(home):
    """A fingerprint is hexadecimal; the lock lies where it should."""
    with alone_with("ab" * 32):
        assert os.listdir(home / "locks") == ["ab" * 16]
