"""However many charge one account at the same time: never more than it may spend."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from core.errors import UserError
from core.privacy.accounting import Charge
from core.privacy.ledger import Account, Ledger, added

STEP = Charge(
    noise_multiplier=2.0, count=1, sampling_probability=0.1, population=500, batch_cap=9
)
RELEASE = Charge(noise_multiplier=9.0, count=1)
ACCOUNT = Account(dataset="data", run="a", terms="image, add_or_remove_one")


def steps(count: int) -> Charge:
    return Charge(**(vars(STEP) | {"count": count}))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(path):
    opened = Ledger(path)
    yield opened
    opened.close()


def test_a_run_is_charged_no_more_than_it_may_spend(ledger):
    allowed = (RELEASE, steps(3))
    for charge in (STEP, RELEASE, steps(2)):
        ledger.commit(ACCOUNT, charge, allowed)
    for beyond in (STEP, RELEASE, Charge(noise_multiplier=8.9, count=1)):
        with pytest.raises(UserError, match="charged already"):
            ledger.commit(ACCOUNT, beyond, allowed)
    assert set(ledger.charged("data")) == set(allowed)
    ledger.check()


def test_equal_releases_are_counted_together(ledger):
    for _ in range(2):
        ledger.commit(ACCOUNT, RELEASE, (RELEASE, RELEASE))
    with pytest.raises(UserError, match="charged already"):
        ledger.commit(ACCOUNT, RELEASE, (RELEASE, RELEASE))


def test_a_block_that_does_not_fit_is_refused_whole(ledger):
    ledger.commit(ACCOUNT, steps(2), (steps(3),))
    with pytest.raises(UserError, match="charged already"):
        ledger.commit(ACCOUNT, steps(2), (steps(3),))
    assert ledger.charged("data") == (steps(2),)


def test_what_other_runs_and_data_were_charged_does_not_count(ledger):
    for other in ({"run": "b"}, {"dataset": "other"}):
        ledger.commit(Account(**(vars(ACCOUNT) | other)), STEP)
    ledger.commit(ACCOUNT, STEP, (STEP,))


def test_what_the_run_was_charged_by_other_words_does_count(ledger):
    """A plan that was edited in between has another unit, or another noise."""
    edited = Account(**(vars(ACCOUNT) | {"terms": "patient, replace_one"}))
    ledger.commit(edited, STEP)
    with pytest.raises(UserError, match="charged already"):
        ledger.commit(ACCOUNT, STEP, (STEP,))
    with pytest.raises(UserError, match="charged already"):
        ledger.commit(ACCOUNT, RELEASE, (RELEASE,))


def test_it_is_compared_within_the_transaction_that_writes(ledger, monkeypatch):
    real, inside = Ledger._refuse_beyond, []

    def watched(self, *arguments):
        inside.append(self._database.in_transaction)
        real(self, *arguments)

    monkeypatch.setattr(Ledger, "_refuse_beyond", watched)
    ledger.commit(ACCOUNT, STEP, (STEP,))
    assert inside == [True]


def _charge_all(path, witness, barrier, wanted, allowed, results):
    """Open the ledger and charge until refused; tell how often it went, and why not."""
    done, why = 0, ""
    barrier.wait()
    try:
        ledger = Ledger(path, [witness])
        for _ in range(wanted):
            ledger.commit(ACCOUNT, STEP, allowed)
            done += 1
    except Exception as error:
        why = str(error)
    results.put((done, why))


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_processes_on_one_account_share_its_limit(path, tmp_path):
    """Copies of a project folder, run at the same time."""
    system = multiprocessing.get_context("fork")
    count, limit = 4, 40
    barrier, results = system.Barrier(count), system.SimpleQueue()
    witness = tmp_path / "witness" / "head.json"
    copies = [
        system.Process(
            target=_charge_all,
            args=(path, witness, barrier, limit, (steps(limit),), results),
        )
        for _ in range(count)
    ]
    for copy in copies:
        copy.start()
    found = [results.get() for _ in copies]
    for copy in copies:
        copy.join()
        assert copy.exitcode == 0
    assert sum(done for done, _ in found) == limit
    assert all("charged already" in error for _, error in found if error)
    ledger = Ledger(path, [witness])
    assert ledger.charged("data") == (steps(limit),)
    ledger.close()


@pytest.mark.parametrize("shared", [False, True])
def test_threads_on_one_account_share_its_limit(path, shared):
    count, limit = 3, 30
    one = Ledger(path)
    ledgers = [one if shared else Ledger(path) for _ in range(count)]
    barrier, refused = threading.Barrier(count), []

    def spend(ledger):
        barrier.wait()
        try:
            for _ in range(limit):
                ledger.commit(ACCOUNT, STEP, (steps(limit),))
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=spend, args=(own,)) for own in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.charged("data") == (steps(limit),)
    assert len(refused) >= count - 1
    assert all("charged already" in error for error in refused)
    one.check()
    for ledger in {id(own): own for own in ledgers}.values():
        ledger.close()


def test_equal_charges_are_added_in_order():
    assert added((STEP, RELEASE, steps(4))) == (steps(5), RELEASE)
    assert added(()) == ()
