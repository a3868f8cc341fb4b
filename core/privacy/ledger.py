"""The budget ledger: what was charged against which data set, forever.

It belongs to the data set, not to the run: all runs on one fingerprint add up, aborted
ones too. Append-only, chained by hashes, one row per attempted use, on disk before the
use. The custodian's lifetime caps are rows of the same chain.

The chain shows that no row was changed or taken out. That the newest rows are still
there, it cannot show: for that, files elsewhere remember its head (witnesses).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import overwrite_json, read_json
from core.privacy.accounting import Charge
from core.privacy.lifetime import Cap

GENESIS = "0" * 64
TRIES = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset TEXT NOT NULL, run TEXT NOT NULL, terms TEXT NOT NULL,
    charge TEXT NOT NULL, count INTEGER NOT NULL CHECK (count > 0),
    utc TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS entries_by_run
    ON entries (dataset, run, terms, charge, count);
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
        run: Identity of the training run; empty for an entry of the custodian's own.
        terms: Unit and relation under which the charges count ("image, add_or_...").
    """

    dataset: str
    run: str
    terms: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row: `content.count` attempted uses, or a new cap."""

    id: int
    account: Account
    content: Charge | Cap
    utc: str
    previous: str
    hash: str


class Ledger:
    """An open ledger file.

    Guarantee: when `commit` returns, the row is on disk (write-ahead log, synchronous
    FULL), whatever happens to the process or the power afterwards.
    """

    def __init__(self, path: Path, witnesses: Sequence[Path] = ()) -> None:
        """Open or create the ledger; check its chain, and that it has lost nothing.

        Args:
            witnesses: Small files outside the ledger that remember its head. Each is
                compared now, written with every row and when the ledger is closed.

        Raises:
            UserError: when the file is not a ledger, cannot be written, was edited, or
                is older than a witness.
        """
        self.path, self._witnesses = path, tuple(witnesses)
        self._alone = threading.RLock()
        try:
            self._refuse_if_gone()
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = sqlite3.connect(
                path, isolation_level=None, timeout=30, check_same_thread=False
            )
            os.chmod(path, 0o600)
            _use_write_ahead_log(self._database)
            # PRIVACY: rule 3, a committed charge survives a power cut.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA fullfsync = ON")  # The same, on a Mac.
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from None
        try:
            self.check()
        except UserError:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file; the witnesses remember its last row."""
        # A witness that is a little old does no harm; the work that ends here is done.
        with suppress(UserError), self._exclusive():
            self._remember(self._head())
        self._database.close()

    def commit(
        self,
        account: Account,
        charge: Charge,
        allowed: Iterable[Charge] | None = None,
    ) -> str:
        """Append a charge; give back the new head of the chain.

        Guarantee: with `allowed`, all that the run was ever charged stays within it,
        however many processes charge it at the same time.

        Args:
            allowed: Everything that the run may be charged in its life.

        Raises:
            UserError: when it could not be written, or would go beyond `allowed`; then
                nothing may be read.
        """
        with self._exclusive():
            # PRIVACY: compared and appended in one transaction, so that two copies of
            # a project cannot both take the last step.
            if allowed is not None:
                self._refuse_beyond(account, charge, allowed)
            return self._append(account, _constants(charge), charge.count)

    def set_cap(self, dataset: str, cap: Cap) -> str:
        """Append a new cap, higher or lower; it holds from now on.

        Raises:
            UserError: when it could not be written.
        """
        content = {"cap": cap.epsilon, "delta": cap.delta}
        with self._exclusive():
            own = Account(dataset=dataset, run="", terms=cap.terms)
            return self._append(own, json.dumps(content, sort_keys=True), 1)

    def cap(self, dataset: str) -> Cap | None:
        """The cap of a data set: the newest that was set."""
        contents = (entry.content for entry in reversed(self.entries(dataset)))
        return next((c for c in contents if isinstance(c, Cap)), None)

    def entries(self, dataset: str | None = None) -> tuple[Entry, ...]:
        """The rows, oldest first; those of one data set, or all."""
        return tuple(
            Entry(
                id=number,
                account=Account(dataset=of, run=run, terms=terms),
                content=self._parsed(content, count, terms),
                utc=utc,
                previous=previous,
                hash=digest,
            )
            for number, of, run, terms, content, count, utc, previous, digest
            in self._rows(
                "SELECT * FROM entries WHERE ?1 IS NULL OR dataset = ?1 ORDER BY id",
                dataset,
            )
        )  # fmt: skip

    def accounts(
        self, dataset: str, run: str | None = None
    ) -> dict[Account, tuple[Charge, ...]]:
        """All that was charged on a data set, by account; equal charges added.

        Never the trainer's own count: what is claimed comes from these rows.
        """
        where, values = "dataset = ?", [dataset]
        if run is not None:
            where, values = "dataset = ? AND run = ?", [dataset, run]
        rows = self._rows(
            f"SELECT run, terms, charge, SUM(count) FROM entries WHERE {where} "
            "GROUP BY run, terms, charge ORDER BY MIN(id)",
            *values,
        )
        found: dict[Account, list[Charge]] = {}
        for of, terms, content, count in rows:
            charge = self._parsed(content, count, terms)
            if isinstance(charge, Charge):
                account = Account(dataset=dataset, run=of, terms=terms)
                found.setdefault(account, []).append(charge)
        return {account: added(charges) for account, charges in found.items()}

    def charged(
        self, dataset: str, terms: str | None = None, run: str | None = None
    ) -> tuple[Charge, ...]:
        """All that was charged on these terms, by one run or all; equal ones added."""
        return added(
            charge
            for account, charges in self.accounts(dataset, run).items()
            if terms in (None, account.terms)
            for charge in charges
        )

    def head(self) -> str:
        """Hash of the newest row; 64 zeros for an empty ledger."""
        return self._head()

    def contains(self, head: str) -> bool:
        """Whether the chain ever ended in `head`: false after a rollback."""
        found = self._rows("SELECT 1 FROM entries WHERE hash = ?", head)
        return head == GENESIS or bool(found)

    def check(self) -> None:
        """Recompute the chain, and compare it with the witnesses.

        Guarantee: finds every change and loss but by whoever rewrites those as well.

        Raises:
            UserError: naming the first row that does not hold, or who remembers more.
        """
        with self._exclusive():
            self._check_chain()
            for witness in self._witnesses:
                # PRIVACY: a ledger that was rolled back would forget what was spent.
                if not self.contains(_remembered(witness)):
                    raise _forgotten(self.path, "has forgotten charges", witness)
            self._remember(self._head())

    def _check_chain(self) -> None:
        previous, last = GENESIS, 0
        # As they are stored: a later version may write other fields into a charge.
        for number, *row, digest in self._rows("SELECT * FROM entries ORDER BY id"):
            if row[-1] != previous or digest != _digest(row):
                raise _edited(self.path, f"row {number} does not match its hash")
            previous, last = digest, number
        issued = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'entries'")
        if issued and issued[0][0] != last:
            raise _edited(self.path, f"the rows after row {last} were taken out")

    def _refuse_if_gone(self) -> None:
        """A ledger that is not there is new only if nobody remembers it."""
        for witness in self._witnesses:
            if not self.path.exists() and _remembered(witness) != GENESIS:
                raise _forgotten(self.path, "is gone, with the charges", witness)

    def _refuse_beyond(
        self, account: Account, charge: Charge, allowed: Iterable[Charge]
    ) -> None:
        limits = {replace(kind, count=0): kind.count for kind in added(allowed)}
        before = self.charged(account.dataset, run=account.run)
        for kind in added((*before, charge)):
            if kind.count > limits.get(replace(kind, count=0), 0):
                raise UserError(
                    "All that this run may spend is charged already, perhaps by "
                    "another copy of the project that runs at the same time: close "
                    "that one and start this one again; nothing more was charged."
                )

    def _append(self, account: Account, content: str, count: int) -> str:
        previous = self._head()
        # The row before this one is on disk, whatever becomes of this one.
        self._remember(previous)
        utc = datetime.now(UTC).isoformat(timespec="seconds")
        row = (account.dataset, account.run, account.terms, content, count, utc,
               previous)  # fmt: skip
        head = _digest(row)
        self._database.execute(
            "INSERT INTO entries (dataset, run, terms, charge, count, utc, previous, "
            "hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, head),
        )
        return head

    def _remember(self, head: str) -> None:
        """Tell the witnesses; within a transaction, so that nobody reads half a head.

        Without waiting for the disk: a power cut may leave an older head, which the
        chain still contains.
        """
        for witness in self._witnesses:
            overwrite_json(witness, {"head": head})

    def _head(self) -> str:
        newest = self._rows("SELECT hash FROM entries ORDER BY id DESC LIMIT 1")
        return str(newest[0][0]) if newest else GENESIS

    def _parsed(self, content: str, count: int, terms: str) -> Charge | Cap:
        fields = json.loads(content)
        try:
            if "cap" in fields:
                delta = fields["delta"]
                return Cap(epsilon=fields["cap"], delta=delta, terms=terms)
            return Charge(count=count, **fields)
        except (TypeError, KeyError):
            raise UserError(
                f"The budget ledger {self.path} was written by a newer version of "
                "Sfumato: install that version to go on with it."
            ) from None

    def _rows(self, query: str, *values: str | None) -> list[tuple[Any, ...]]:
        with self._alone:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise _unusable(self.path, error) from None

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One transaction, alone; taken back as a whole when anything goes wrong."""
        with self._alone:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._database.execute("COMMIT")
                except BaseException:
                    # Some errors end the transaction by themselves.
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise _unusable(self.path, error) from None


def added(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The same charges, equal ones as one; in the order of their first appearance."""
    counts: dict[Charge, int] = {}
    for charge in charges:
        kind = replace(charge, count=0)
        counts[kind] = counts.get(kind, 0) + charge.count
    return tuple(replace(kind, count=count) for kind, count in counts.items())


def _use_write_ahead_log(database: sqlite3.Connection) -> None:
    """Once in a ledger's life this changes the file; SQLite does not queue for it."""
    for attempt in range(TRIES):
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == TRIES - 1:
                raise
        time.sleep(0.01)


def _constants(charge: Charge) -> str:
    fields = asdict(charge)
    del fields["count"]
    return json.dumps(fields, sort_keys=True)


def _digest(row: Sequence[object]) -> str:
    text = json.dumps(row, default=repr)  # An edited row may hold any kind of value.
    return hashlib.sha256(text.encode()).hexdigest()


def _remembered(witness: Path) -> str:
    """The head in a witness. One that is not there, or was cut by a power cut, saw
    nothing: whoever can remove it could as well remove the ledger."""
    try:
        head = read_json(witness)["head"]
    except (UserError, KeyError):
        return GENESIS
    return head if isinstance(head, str) else GENESIS


def _edited(path: Path, how: str) -> UserError:
    return UserError(
        f"The budget ledger {path} was edited ({how}): restore it from a backup before "
        "you spend more."
    )


def _forgotten(path: Path, what: str, witness: Path) -> UserError:
    return UserError(
        f"The budget ledger {path} {what} that {witness} remembers: bring back its "
        "newest copy, from a backup or from the computer where the project was made; "
        f"only when none is left, count what was lost as spent and delete {witness}."
    )


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"The budget ledger {path} cannot be used ({error}): nothing was spent; check "
        "the disk and the folder's permissions, or restore it from a backup."
    )
