"""Killed, out of disk, without power: what was done is charged, and it goes on."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from core.checkpoints.store import load_checkpoint
from core.errors import UserError
from core.files import read_json
from core.privacy.accounting import Charge
from core.privacy.ledger import Account, Ledger
from core.training.moments import load_moments
from tests.core.crashing import Kills, make_bench
from tests.core.faults import (
    FailingDisk,
    PowerCut,
    everything,
    only_what_is_sure,
    restore,
)

LONG = os.environ.get("SFUMATO_LONG") == "1"
"""Whether to repeat more often than a test of every day may take."""

posix = pytest.mark.skipif(os.name != "posix", reason="forks and kills")
linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A plan of two releases, a teacher and two steps, and its data."""
    return make_bench(tmp_path_factory.mktemp("bench"), steps=2, lessons=3)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The same with one step and one lesson."""
    return make_bench(tmp_path_factory.mktemp("short"), steps=1, lessons=1)


@pytest.fixture(scope="module")
def celled(tmp_path_factory):
    """The same with three rounds of cells within the classes, and with features."""
    return make_bench(tmp_path_factory.mktemp("celled"), steps=1, lessons=1, rounds=3)


@pytest.fixture(scope="module")
def kills():
    return Kills()


@posix
def test_killed_anywhere_it_goes_on_with_fresh_noise(bench, kills, tmp_path):
    """Some points are any call, some lie beside a call that touches disk or data."""
    rounds = 100 if LONG else 6
    chance = random.Random(None if LONG else 0)
    calls, beside = kills.count(bench.moved(tmp_path / "count"))
    noises, killed = [], 0
    for number in range(rounds):
        own = bench.moved(tmp_path / f"round {number}")
        for again in range(2):
            share = (
                (number + chance.random()) / rounds if not again else chance.random()
            )
            at = {"call": None, "disk": None}
            at |= (
                {"call": int(share * calls)}
                if number % 2
                else {"disk": int(share * beside)}
            )
            killed += kills.at_call(own, **at)
            own.check()
        own.finish()
        noises += [line for line in own.log() if line.startswith("noise")]
        shutil.rmtree(own.folder)
    assert killed >= rounds
    # However often a run begins again, and from whichever process it was forked.
    assert len(noises) == len(set(noises)) > rounds


@posix
def test_killed_from_outside_it_goes_on(bench, kills, tmp_path):
    """At whatever it does just then; a whole run reports eleven times."""
    killed = []
    for number in range(60 if LONG else 3):
        own = bench.moved(tmp_path / str(number))
        killed.append(kills.at_report(own, 1 + 3 * number % 11))
        own.check()
        own.finish()
    assert sum(killed) > len(killed) / 2


@posix
@pytest.mark.parametrize(
    ("name", "number"),
    [("new_teacher", 1), ("new_teacher", 2), ("read_lessons", 1), ("read_lessons", 2),
     ("sum_of_gradients", 1), ("sum_of_gradients", 2), ("sum_of_gradients", 5),
     ("save_teacher", 1), ("save_teacher", 2), ("save_teacher", 5)],
)  # fmt: skip
def test_a_teacher_that_is_killed_goes_on_and_repeats_no_release(
    bench, kills, tmp_path, name, number
):
    """Odd numbers are a beginning, even ones an end, 5 that of the last release."""
    own = bench.moved(tmp_path / "own")
    assert kills.at_named(own, name, number)
    own.check()
    releases = (number + 1) // 2 - (name == "new_teacher")
    assert own.charged() == (2, releases, 0)
    own.finish()
    # What was paid for and lost is lost, and nothing is done twice.
    assert own.log().count("lesson") == 3 - (name == "read_lessons")
    noises = [line for line in own.log() if line.startswith("noise")]
    assert len(noises) == len(set(noises))


@posix
@pytest.mark.parametrize(
    ("name", "number", "sums", "kept"),
    [("release_cells", 1, 2, 2), ("_release_means", 1, 2, 2),
     ("_release_means", 3, 5, 3), ("_release_squares", 1, 5, 5),
     ("_sorted", 7, 6, 5), ("_release_squares", 2, 6, 6), ("_way", 1, 7, 7),
     ("_ways", 1, 8, 8), ("save_moments", 2, 8, 8)],
)  # fmt: skip
def test_sums_that_are_killed_are_paid_for_and_not_made_again(
    celled, kills, tmp_path, name, number, sums, kept
):
    """Odd numbers are a beginning, even ones an end; all rounds are paid for ahead.

    Only what was paid for and is not on disk is lost: all else is gone on from.
    """
    own = celled.moved(tmp_path / "own")
    assert kills.at_named(own, name, number)
    own.check()
    assert own.charged() == (sums, 0, 0) and own.sums == kept
    read = own.log().count("sum")
    own.finish()
    again = 0 if sums != kept else 8 - kept
    assert own.log().count("sum") == read + again
    noises = [line for line in own.log() if line.startswith("noise")]
    assert len(noises) == len(set(noises))


def outcome(own, disk) -> str:
    """What a run on a failing disk ended with: its one sentence, or nothing."""
    with disk.attached():
        try:
            own.tune()
        except UserError as error:
            return str(error)
    return ""


SITES = {"open", "fsync", "replace", "mkdir", "mkstemp", "write_text", "tensors",
         "unlink", "BEGIN", "INSERT", "COMMIT"}  # fmt: skip


def test_a_disk_that_fails_at_any_call_loses_nothing(short, tmp_path):
    """Every call of a whole run that makes, writes, syncs, renames or commits."""
    whole = FailingDisk(errno.EIO)
    assert outcome(short.moved(tmp_path / "whole"), whole) == ""
    assert set(whole.sites) == SITES and len(whole.sites) > 100
    numbers, unheard = (errno.ENOSPC, errno.EIO), set()
    for failing, site in enumerate(whole.sites):
        for number in numbers if LONG else (numbers[failing % 2],):
            own = short.moved(tmp_path / f"{failing} {number}")
            disk = FailingDisk(number, failing)
            said = outcome(own, disk)
            assert disk.sites[failing] == site
            own.check()
            assert "disk" in said or not said
            unheard |= set() if said else {failing}
            if LONG or failing % 3 == 0:
                own.finish()
            shutil.rmtree(own.folder)
    # Only when the ledger is closed may it fail unheard, when all its rows are on disk,
    # and when the sums are deleted that the moments are made of.
    closing = [whole.sites[failing] for failing in sorted(unheard)]
    assert closing == ["unlink", "BEGIN", "open", "open", "COMMIT"]


@linux
def test_a_power_cut_at_any_moment_leaves_what_was_paid_for(short, tmp_path):
    """Of what was not synced, the disk keeps all, nothing or some."""
    own = short.moved(tmp_path / "cut")
    power = PowerCut(own.project)
    with power.recording():
        own.tune()
    assert len(power.charges(len(power.events))) == 4
    chance = random.Random(0)
    some = chance.randint
    seen, resumed = set(), 0
    for moment in range(len(power.events) + 1):
        for reach in (everything, only_what_is_sure, *[some] * (20 if LONG else 2)):
            left = power.left(moment, reach, chance.random)
            charges = power.charges(moment)
            key = (len(charges), tuple(sorted(left.items())))
            if key in seen:
                continue
            seen.add(key)
            after = short.moved(tmp_path / str(len(seen)))
            restore(left, after.project)
            for account, charge in charges:
                pay(after.ledger, account, charge)
            after.check()
            for path in after.project.rglob("*.json"):
                read_json(path)
            if (after.project / "training" / "finished.json").exists():
                load_checkpoint(after.project / "training" / "model")
            if (after.project / "training" / "moments.safetensors").exists():
                load_moments(after.project / "training" / "moments.safetensors")
            if LONG or len(seen) % 6 == 0:
                after.finish()
                resumed += 1
            shutil.rmtree(after.folder)
    assert len(seen) > 40 and resumed > 5


def pay(path, account, charge) -> None:
    ledger = Ledger(path)
    ledger.commit(account, charge)
    ledger.close()


def test_a_ledger_whose_log_was_cut_keeps_all_rows_before_the_cut(tmp_path):
    """Copies of database and log as they are after each row; the log cut anywhere."""
    chance = random.Random(0)
    account = Account(dataset="data", run="a", terms="image, add_or_remove_one")
    path, copy = tmp_path / "ledger.sqlite3", tmp_path / "copy" / "ledger.sqlite3"
    witness = tmp_path / "head.json"
    ledger = Ledger(path, [witness])

    def copied(log: bytes, *witnesses) -> int:
        """Rows of a copy with this log; its chain is checked."""
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        shutil.copy(path, copy)
        copy.with_name(copy.name + "-wal").write_bytes(log)
        opened = Ledger(copy, witnesses)
        counts = [charge.count for charge in opened.charged("data")]
        opened.close()
        return sum(counts)

    found = set()
    for rows in range(1, 60 if LONG else 25):
        ledger.commit(account, Charge(noise_multiplier=1.0, count=1))
        log = path.with_name(path.name + "-wal").read_bytes()
        assert copied(log, witness) == rows
        for _ in range(40 if LONG else 4):
            cut = chance.randrange(len(log))
            kept = copied(log[:cut])
            rubbish = log[:cut] + chance.randbytes(len(log) - cut)
            assert kept == copied(rubbish) <= rows
            found.add(rows - kept)
    assert len(found) > 5
    ledger.close()
