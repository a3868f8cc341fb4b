"""What was charged stays charged, whatever happens to the process or the file."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from core.errors import UserError
from core.privacy import ledger as room
from core.privacy.accounting import Charge
from core.privacy.ledger import Account, Ledger

STEP = Charge(
    noise_multiplier=2.0,
    count=1,
    sampling_probability=0.1,
    population=500,
    batch_cap=91,
)
RELEASE = Charge(noise_multiplier=9.0, count=1)
TERMS = "image, add_or_remove_one"


def account(run: str = "a", dataset: str = "data", terms: str = TERMS) -> Account:
    return Account(dataset=dataset, run=run, terms=terms)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.sqlite3"


@pytest.fixture
def ledger(path):
    opened = Ledger(path)
    yield opened
    opened.close()


def test_equal_charges_add_up_over_all_runs(ledger):
    for run in ("a", "a", "b"):
        ledger.commit(account(run), STEP)
    ledger.commit(account("a"), RELEASE)
    ledger.commit(account("a", dataset="other"), STEP)
    ledger.commit(account("a", terms="patient, add_or_remove_one"), STEP)
    found = {c.noise_multiplier: c.count for c in ledger.charged("data", TERMS)}
    assert found == {2.0: 3, 9.0: 1}
    own = {c.noise_multiplier: c.count for c in ledger.charged("data", TERMS, "a")}
    assert own == {2.0: 2, 9.0: 1}
    assert ledger.charged("data", TERMS, "b") == (STEP,)
    runs = {(of.run, of.terms): added for of, added in ledger.accounts("data").items()}
    assert runs[("b", TERMS)] == (STEP,) and len(runs) == 3


def test_it_survives_being_reopened(ledger, path):
    head = ledger.commit(account(), STEP)
    ledger.close()
    again = Ledger(path)
    assert again.charged("data", TERMS) == (STEP,)
    assert again.head() == head
    again.close()


def test_only_its_owner_can_read_it(ledger, path):
    ledger.commit(account(), STEP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    for side in path.parent.iterdir():
        assert stat.S_IMODE(side.stat().st_mode) & 0o077 == 0, side


def test_every_commit_waits_for_the_disk(ledger):
    """synchronous = FULL (2): a committed charge survives a power cut."""
    (level,) = ledger._database.execute("PRAGMA synchronous").fetchone()
    assert level == 2


@pytest.mark.parametrize("sql", ["UPDATE entries SET count = 1", "DELETE FROM entries"])
def test_rows_can_neither_be_changed_nor_deleted(ledger, path, sql):
    ledger.commit(account(), STEP)
    refused = pytest.raises(sqlite3.IntegrityError, match="append-only")
    with closing(sqlite3.connect(path)) as other, refused:
        other.execute(sql)


def test_charges_of_an_older_version_count_with_todays_defaults(ledger):
    with ledger._exclusive():
        ledger._append(account(), '{"noise_multiplier": 9.0}', 1)
    ledger.commit(account(), RELEASE)
    assert ledger.charged("data") == (replace(RELEASE, count=2),)
    ledger.check()


def test_charges_of_a_newer_version_are_refused_as_such(ledger):
    with ledger._exclusive():
        ledger._append(account(), '{"noise_multiplier": 9.0, "tomorrow": 1}', 1)
    for read in (ledger.entries, lambda: ledger.charged("data")):
        with pytest.raises(UserError, match="newer version"):
            read()


OLD_SCHEMA = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset TEXT NOT NULL, run TEXT NOT NULL, terms TEXT NOT NULL,
    charge TEXT NOT NULL, count INTEGER NOT NULL CHECK (count > 0),
    utc TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE
);
INSERT INTO entries VALUES (1, 'data', 'a', 'image, add_or_remove_one',
    '{"batch_cap": null, "noise_multiplier": 9.0, "population": 0, '
    || '"sampling_probability": 1.0}', 1, '2026-01-01T00:00:00+00:00',
    '0000000000000000000000000000000000000000000000000000000000000000',
    '9b1108a39a67f253252a54f3654af76bce9a453e77950c17ee008895e488c851');
"""


def test_a_ledger_of_the_first_version_still_holds(path):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.executescript(OLD_SCHEMA)
    other.close()
    ledger = Ledger(path)
    assert ledger.charged("data", TERMS) == (RELEASE,)
    ledger.commit(account(), RELEASE)
    ledger.check()
    ledger.close()


def test_a_file_that_is_no_ledger_is_the_users_to_put_right(path, tmp_path):
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"ledger.*cannot be used"):
        Ledger(path)
    with pytest.raises(UserError, match=r"ledger.*cannot be used"):
        Ledger(path / "below" / "a file")
    assert path.read_bytes() == b"not a database" * 100


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
def test_an_error_at_any_statement_adds_nothing_and_the_next_charge_goes(
    ledger, statement, monkeypatch
):
    """A full disk is often met by COMMIT only."""

    class Failing:
        def __init__(self, database):
            self._database = database

        def execute(self, query, *values):
            if query.startswith(statement):
                raise sqlite3.OperationalError("database or disk is full")
            return self._database.execute(query, *values)

        def __getattr__(self, name):
            return getattr(self._database, name)

    ledger.commit(account(), STEP)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_database", Failing(ledger._database))
        with pytest.raises(UserError, match="disk is full"):
            ledger.commit(account(), STEP)
    assert len(ledger.entries()) == 1
    ledger.commit(account(), STEP)
    ledger.check()


def test_a_disk_that_cannot_be_written_raises_and_adds_nothing(ledger):
    ledger.commit(account(), STEP)
    ledger._database.execute("PRAGMA query_only = ON")
    with pytest.raises(UserError, match="nothing was spent"):
        ledger.commit(account(), STEP)
    ledger._database.execute("PRAGMA query_only = OFF")
    assert len(ledger.entries()) == 1
    ledger.commit(account(), STEP)
    ledger.check()


def test_a_full_disk_raises_and_adds_nothing(ledger):
    (pages,) = ledger._database.execute("PRAGMA page_count").fetchone()
    ledger._database.execute(f"PRAGMA max_page_count = {pages}")
    long = account(run="r" * 20_000)
    with pytest.raises(UserError, match="full"):
        ledger.commit(long, STEP)
    assert ledger.entries() == ()


def test_two_that_make_the_ledger_at_once_wait_for_one_another(monkeypatch):
    """SQLite does not queue for the first use of its log, it refuses."""

    class Busy:
        answers: ClassVar = ["locked", "locked", None]

        def execute(self, query):
            if answer := self.answers.pop(0):
                raise sqlite3.OperationalError(f"database is {answer}")

    monkeypatch.setattr(room.time, "sleep", lambda _: None)
    busy = Busy()
    room._use_write_ahead_log(busy)
    assert busy.answers == []
    Busy.answers = ["broken", None]
    with pytest.raises(sqlite3.OperationalError, match="broken"):
        room._use_write_ahead_log(Busy())
    Busy.answers = ["locked"] * room.TRIES
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        room._use_write_ahead_log(Busy())


def test_a_charge_must_be_of_one_use_or_more(ledger):
    with pytest.raises(UserError):
        ledger.commit(account(), Charge(noise_multiplier=2.0, count=0))
    assert ledger.entries() == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from core.privacy.accounting import Charge
from core.privacy.ledger import Account, Ledger
ledger = Ledger(Path(sys.argv[1]))
account = Account(dataset="data", run="a", terms="t")
for _ in range(3):
    ledger.commit(account, Charge(noise_multiplier=2.0, count=1))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process by signal")
def test_a_kill_right_after_the_commit_keeps_the_row(path):
    root = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=root)
    assert ended.returncode == -signal.SIGKILL
    ledger = Ledger(path)
    assert [charge.count for charge in ledger.charged("data", "t")] == [3]
    ledger.close()
