"""One run's account: what is left of it, also when copies of the project spend it."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import pytest

from core.errors import Stopped, UserError
from core.events import Watcher
from core.privacy.accounting import COARSE, epsilon
from core.privacy.ledger import Ledger
from core.training import purse as room
from core.training import trainer
from core.training.purse import LOOKS, Purse
from tests.core.tiny import make_dataset, make_plan


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path, moments=True)


def test_it_counts_what_the_ledger_holds(plan, ledger):
    purse = Purse(plan, "data", ledger)
    assert (purse.steps_left(), purse.sums_charged()) == (3, 0)
    purse.commit(plan.mechanism.charge(1))
    assert (purse.steps_left(), purse.steps_charged()) == (2, 1)
    assert purse.sums_charged() == 0
    purse.commit(plan.charges()[0])
    assert (purse.steps_left(), purse.sums_charged()) == (2, 1)
    other = Purse(replace(plan, run="other"), "data", ledger)
    assert (other.steps_left(), other.sums_charged()) == (3, 0)


def test_it_charges_the_plan_and_no_more(plan, ledger):
    purse = Purse(plan, "data", ledger)
    for charge in plan.charges():
        purse.commit(charge)
    louder = plan.mechanism.charge(1)
    for beyond in (*plan.charges(), louder, replace(louder, noise_multiplier=0.1)):
        with pytest.raises(UserError, match="charged already"):
            purse.commit(beyond)
    assert set(purse.charged()) == set(plan.charges())


def test_two_copies_cannot_both_make_the_one_release(plan, ledger):
    """Each has asked whether it was made before the other made it."""
    second = Ledger(ledger.path)
    copies = [Purse(plan, "data", ledger), Purse(plan, "data", second)]
    assert not any(copy.sums_charged() for copy in copies)
    copies[0].commit(plan.charges()[0])
    with pytest.raises(UserError, match="another copy"):
        copies[1].commit(plan.charges()[0])
    second.close()


@pytest.mark.usefixtures("quick_accountant")
def test_copies_that_run_at_the_same_time_stay_within_the_plan(plan, ledger, tmp_path):
    """The real trainer, in two copies of a folder with some steps done."""
    steps, dataset = 8, make_dataset()
    plan = replace(plan, mechanism=replace(plan.mechanism, steps=steps))

    def tune(folder, own, **watcher) -> int:
        return trainer.fine_tune(
            plan, dataset, folder, own, device="cpu", watcher=Watcher(**watcher)
        ).steps_charged

    begun, stopping = tmp_path / "begun", iter([False] * 3)
    begun.mkdir()
    with pytest.raises(Stopped):
        tune(begun, ledger, stop_requested=lambda: next(stopping, True))
    barrier, ended = threading.Barrier(2), []

    def copy(number: int) -> None:
        folder = shutil.copytree(begun, tmp_path / f"copy {number}")
        own = Ledger(ledger.path)
        barrier.wait()
        try:
            ended.append(tune(folder, own))
        except UserError as error:
            ended.append(str(error))
        own.close()

    threads = [threading.Thread(target=copy, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps in ended and len(ended) == 2
    assert all(end == steps or "another copy" in end for end in ended)
    charged = Purse(plan, dataset.fingerprint, ledger).charged()
    assert set(charged) == set(plan.charges())


def test_the_accountant_is_asked_now_and_then_and_never_shows_too_little(
    plan, ledger, monkeypatch
):
    steps = 8 * LOOKS
    plan = replace(plan, mechanism=replace(plan.mechanism, steps=steps))
    purse, asked = Purse(plan, "data", ledger), []

    def count(charges, *_):
        asked.append(charges)
        return float(sum(charge.count for charge in charges))

    monkeypatch.setattr(room, "epsilon", count)
    for step in range(1, steps + 1):
        purse.commit(plan.mechanism.charge(1))
        shown = purse.epsilon()
        assert step <= shown < step + 8
    assert shown == steps and len(asked) == LOOKS


def test_epsilon_is_that_of_the_charges(plan, ledger):
    purse = Purse(plan, "data", ledger)
    for charge in plan.charges():
        purse.commit(charge)
    uncapped = [charge.uncapped() for charge in plan.charges()]
    exactly = epsilon(uncapped, plan.budget.delta, plan.budget.relation, COARSE)
    assert purse.epsilon() == exactly > 0
