"""The budget ledger: what was charged against which data set, forever.

It belongs to the data set, not to the run: all runs on one fingerprint add up, aborted
ones too. Append-only, chained by hashes, one row per attempted use, on disk before the
use.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.errors import UserError
from core.privacy.accounting import Charge

GENESIS = "0" * 64

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset TEXT NOT NULL, run TEXT NOT NULL, terms TEXT NOT NULL,
    charge TEXT NOT NULL, count INTEGER NOT NULL CHECK (count > 0),
    utc TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE
);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who is charged.

    Attributes:
        dataset: Fingerprint of the data set.
        run: Identity of the training run.
        terms: Unit and relation under which the charges count ("image, add_or_...").
    """

    dataset: str
    run: str
    terms: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row: `charge.count` attempted uses."""

    id: int
    account: Account
    charge: Charge
    utc: str
    previous: str
    hash: str


class Ledger:
    """An open ledger file.

    Guarantee: when `commit` returns, the row is on disk (write-ahead log, synchronous
    FULL), whatever happens to the process or the power afterwards.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the ledger, and check its chain.

        Raises:
            UserError: when the file is not a ledger, cannot be written, or was edited.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = sqlite3.connect(
                path, isolation_level=None, timeout=30, check_same_thread=False
            )
            os.chmod(path, 0o600)
            self._database.execute("PRAGMA journal_mode = WAL")
            # PRIVACY: rule 3, a committed charge survives a power cut.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from None
        self.check()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def commit(self, account: Account, charge: Charge) -> str:
        """Append a charge; give back the new head of the chain.

        Raises:
            UserError: when it could not be written; then nothing may be read.
        """
        try:
            with self._exclusive():
                previous = self._head()
                row = (
                    account.dataset, account.run, account.terms,
                    _charge_json(charge), charge.count,
                    datetime.now(UTC).isoformat(timespec="seconds"), previous,
                )  # fmt: skip
                head = _digest(row)
                self._database.execute(
                    "INSERT INTO entries (dataset, run, terms, charge, count, utc, "
                    "previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, head),
                )
            return head
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None

    def entries(self, dataset: str | None = None) -> tuple[Entry, ...]:
        """The rows, oldest first; those of one data set, or all."""
        try:
            rows = self._database.execute(
                "SELECT id, dataset, run, terms, charge, count, utc, previous, hash "
                "FROM entries WHERE ? IS NULL OR dataset = ? ORDER BY id",
                (dataset, dataset),
            ).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None
        return tuple(
            Entry(
                id=number,
                account=Account(dataset=of, run=run, terms=terms),
                charge=Charge(count=count, **json.loads(charge)),
                utc=utc,
                previous=previous,
                hash=digest,
            )
            for number, of, run, terms, charge, count, utc, previous, digest in rows
        )

    def charged(
        self, dataset: str, terms: str, run: str | None = None
    ) -> tuple[Charge, ...]:
        """All that was charged on these terms, by one run or all; equal charges added.

        Never the trainer's own count: what is claimed comes from these rows.
        """
        counts: dict[str, int] = {}
        for entry in self.entries(dataset):
            if entry.account.terms == terms and run in (None, entry.account.run):
                key = _charge_json(entry.charge)
                counts[key] = counts.get(key, 0) + entry.charge.count
        return tuple(Charge(count=n, **json.loads(key)) for key, n in counts.items())

    def head(self) -> str:
        """Hash of the newest row; 64 zeros for an empty ledger."""
        return self._head()

    def contains(self, head: str) -> bool:
        """Whether the chain ever ended in `head`: false after a rollback."""
        if head == GENESIS:
            return True
        found = self._database.execute(
            "SELECT 1 FROM entries WHERE hash = ?", (head,)
        ).fetchone()
        return found is not None

    def check(self) -> None:
        """Recompute the chain.

        Raises:
            UserError: naming the first row that does not hold.
        """
        previous = GENESIS
        for entry in self.entries():
            row = (
                entry.account.dataset, entry.account.run, entry.account.terms,
                _charge_json(entry.charge), entry.charge.count,
                entry.utc, entry.previous,
            )  # fmt: skip
            if entry.previous != previous or entry.hash != _digest(row):
                raise UserError(
                    f"The budget ledger {self.path} was edited (row {entry.id} does "
                    "not match its hash): restore it from a backup before you spend "
                    "more."
                )
            previous = entry.hash

    def _head(self) -> str:
        row = self._database.execute(
            "SELECT hash FROM entries ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return str(row[0]) if row else GENESIS

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _charge_json(charge: Charge) -> str:
    fields = asdict(charge)
    del fields["count"]
    return json.dumps(fields, sort_keys=True)


def _digest(row: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"The budget ledger {path} cannot be used ({error}): nothing was spent; check "
        "the disk and the folder's permissions."
    )
