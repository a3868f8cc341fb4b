"""A ledger that was edited, rolled back or deleted is refused, however it was done."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest

from core.errors import UserError
from core.privacy.accounting import Charge
from core.privacy.ledger import GENESIS, Account, Ledger, _digest

ACCOUNT = Account(dataset="data", run="a", terms="image, add_or_remove_one")
CHARGE = Charge(noise_multiplier=2.0, count=2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "ledger.sqlite3"


@pytest.fixture
def witness(tmp_path):
    return tmp_path / "elsewhere" / "head.json"


def charge(path, *witnesses, times=1) -> str:
    """Open, charge, close; gives back the head."""
    ledger = Ledger(path, witnesses)
    for _ in range(times):
        head = ledger.commit(ACCOUNT, CHARGE)
    ledger.close()
    return head


def edit(path, script) -> None:
    """As somebody with a database tool would."""
    database = sqlite3.connect(path)
    database.executescript(f"DROP TRIGGER no_update; DROP TRIGGER no_delete; {script}")
    database.close()


LAST = "DELETE FROM entries WHERE id = 3;"


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE entries SET count = 1 WHERE id = 1",
        "UPDATE entries SET dataset = 'x' WHERE id = 2",
        "UPDATE entries SET charge = replace(charge, '2.0', '8.0') WHERE id = 3",
        "UPDATE entries SET charge = 'not JSON' WHERE id = 3",
        "UPDATE entries SET charge = x'00ff' WHERE id = 3",
        "UPDATE entries SET utc = '' WHERE id = 2",
        f"UPDATE entries SET previous = '{GENESIS}' WHERE id = 2",
        "UPDATE entries SET hash = upper(hash) WHERE id = 3",
        "DELETE FROM entries WHERE id = 1",
        "DELETE FROM entries WHERE id = 2",
        LAST,
        "DELETE FROM entries",
    ],
)
def test_an_edited_ledger_is_refused_without_any_witness(path, script):
    charge(path, times=3)
    edit(path, script)
    with pytest.raises(UserError, match=r"ledger\.sqlite3 was edited .*restore"):
        Ledger(path)


def test_one_that_was_edited_is_refused_each_time(path, witness):
    charge(path, witness, times=3)
    edit(path, "UPDATE entries SET count = 1 WHERE id = 1")
    for _ in range(2):
        with pytest.raises(UserError, match="edited"):
            Ledger(path, [witness])


def rehash(path) -> None:
    """Make an edited chain hold again, as somebody who knows how it is made could."""
    database = sqlite3.connect(path)
    previous = GENESIS
    for number, *row, _ in database.execute("SELECT * FROM entries").fetchall():
        row[-1] = previous
        head = _digest(row)
        database.execute(
            "UPDATE entries SET previous = ?, hash = ? WHERE id = ?",
            (previous, head, number),
        )
        previous = head
    database.commit()
    database.close()


@pytest.mark.parametrize(
    "script",
    [
        f"{LAST} UPDATE sqlite_sequence SET seq = 2",
        f"{LAST} DELETE FROM sqlite_sequence",
        "DELETE FROM entries; DELETE FROM sqlite_sequence",
        "UPDATE entries SET count = 1 WHERE id = 1",
    ],
)
def test_a_chain_made_whole_again_is_found_by_the_witness(path, witness, script):
    charge(path, witness, times=3)
    edit(path, script)
    rehash(path)
    Ledger(path).close()  # By itself it shows nothing.
    with pytest.raises(UserError, match=r"forgotten.*head\.json.*newest copy"):
        Ledger(path, [witness])


@pytest.mark.parametrize("killed", [False, True])
def test_an_old_backup_is_refused_and_the_newest_copy_taken(
    path, witness, tmp_path, killed
):
    """Also when the process that charged never came to close the ledger."""
    charge(path, witness)
    shutil.copytree(path.parent, tmp_path / "old")
    ledger = Ledger(path, [witness])
    for _ in range(3):
        ledger.commit(ACCOUNT, CHARGE)
    if killed:
        shutil.copytree(path.parent, tmp_path / "new")
        remembered = witness.read_bytes()
        ledger.close()
        witness.write_bytes(remembered)
    else:
        ledger.close()
        shutil.copytree(path.parent, tmp_path / "new")

    def restore(copy):
        shutil.rmtree(path.parent)
        shutil.copytree(tmp_path / copy, path.parent)

    restore("old")
    for _ in range(2):
        with pytest.raises(UserError, match=r"forgotten.*head\.json"):
            Ledger(path, [witness])
    restore("new")
    ledger = Ledger(path, [witness])
    assert len(ledger.entries()) == 4
    ledger.close()


def test_a_deleted_ledger_is_refused_and_not_made_anew(path, witness):
    charge(path, witness)
    shutil.rmtree(path.parent)
    with pytest.raises(UserError, match=r"gone.*head\.json.*newest copy"):
        Ledger(path, [witness])
    assert not path.exists()
    witness.unlink()
    charge(path, witness)


def test_each_of_several_witnesses_is_asked(path, tmp_path):
    """One is the user's, one lies in each project."""
    mine, project = tmp_path / "mine.json", tmp_path / "project.json"
    charge(path, mine, project)
    shutil.copytree(path.parent, tmp_path / "old")
    charge(path, project)
    shutil.rmtree(path.parent)
    shutil.copytree(tmp_path / "old", path.parent)
    Ledger(path, [mine]).close()
    for asked in ([project], [mine, project], [project, mine]):
        with pytest.raises(UserError, match=r"project\.json"):
            Ledger(path, asked)


def test_what_a_witness_remembers_is_never_too_new(path, witness):
    """Within the transaction of a row it knows the row before, which is on disk."""
    ledger = Ledger(path, [witness])
    heads = [GENESIS]
    for _ in range(3):
        heads.append(ledger.commit(ACCOUNT, CHARGE))
        assert json.loads(witness.read_text()) == {"head": heads[-2]}
    ledger.close()
    assert json.loads(witness.read_text()) == {"head": heads[-1]}


@pytest.mark.parametrize(
    "left", [None, b"", b"\0" * 40, b'{"head": "12', b'{"head": 3}']
)
def test_a_witness_lost_in_a_power_cut_begins_again(path, witness, left):
    head = charge(path, witness)
    if left is None:
        witness.unlink()
    else:
        witness.write_bytes(left)
    Ledger(path, [witness]).close()
    assert json.loads(witness.read_text()) == {"head": head}


def test_a_witness_that_cannot_be_written_stops_before_the_charge(path, tmp_path):
    ledger = Ledger(path, [tmp_path / "head.json"])
    (tmp_path / "head.json").unlink()
    (tmp_path / "head.json").mkdir()
    with pytest.raises(UserError, match=r"head\.json"):
        ledger.commit(ACCOUNT, CHARGE)
    assert ledger.entries() == ()
    ledger.close()
