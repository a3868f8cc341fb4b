"""What was spent on a data set and what may still be: the ledger beside a plan."""

from __future__ import annotations

import hmac
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from core.disks import shared_disk
from core.errors import UserError
from core.files import private_folder, read_json, write_json
from core.privacy.accounting import Charge
from core.privacy.ledger import Account, Ledger, added
from core.privacy.lifetime import comparable, lifetime_epsilon
from core.training.plan import Plan
from core.workspace import Workspace, locked, user_folder, witness_folder

HEAD = "ledger-head.json"
SEAL = "ledger-seal.json"
"""Key of `sealed_head`; it stays in the project folder."""


@contextmanager
def open_ledger(workspace: Workspace | None = None) -> Iterator[Ledger]:
    """The user's ledger, checked against the heads that others remember of it.

    Raises:
        UserError: when it cannot be used, was edited, or has forgotten charges, or lies
            on a disk that other computers write to.
    """
    # PRIVACY: what keeps charges apart (SQLite's write-ahead log) works among the
    # programs of one computer only; of two, each could overwrite the other's.
    if kind := shared_disk(user_folder()):
        raise UserError(
            f"The ledger would lie on a shared disk ({kind}), in {user_folder()}, and "
            "two computers could overwrite each other's charges: move that folder to a "
            "disk of this computer, and name it in the variable SFUMATO_HOME."
        )
    witnesses = [witness_folder() / HEAD]
    if workspace is not None:
        witnesses.append(workspace.path / HEAD)
    ledger = Ledger(user_folder() / "ledger.sqlite3", witnesses)
    try:
        yield ledger
    finally:
        ledger.close()


def sealed_head(workspace: Workspace, head: str) -> str:
    """A head of the ledger as a release may show it: 64 hexadecimal digits.

    The custodian can show later to which state of the ledger a release belongs, by the
    key and the ledger. To everybody else it says nothing.

    Guarantee: without the key, which nobody outside the project has, the result tells
    no head from another (HMAC-SHA256 with a key of 256 bits).

    Raises:
        UserError: when the key cannot be read or written.
    """
    path = workspace.path / SEAL
    if not path.is_file():
        write_json(path, {"key": secrets.token_hex(32)})
    key = bytes.fromhex(read_json(path)["key"])
    # PRIVACY: the head is a hash over the fingerprint of the private files and things
    # that a report tells or a clock gives away: it would confirm a guess at one image.
    return hmac.digest(key, head.encode(), "sha256").hex()


@contextmanager
def alone_with(dataset: str) -> Iterator[None]:
    """Keep all others from spending on a data set, or capping it, for a while.

    Raises:
        UserError: when somebody else is at it.
    """
    # PRIVACY: two trainings that begin together would each see the cap unspent.
    lock = locked(
        private_folder(user_folder() / "locks") / dataset[:32],
        "Another training is spending on these images: wait for its end, or pause it.",
    )
    try:
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What the ledger holds of a data set, under the plan's unit and relation.

    Attributes:
        before: ε charged by all other runs on it.
        after: ε charged once this plan has run to its end.
        steps_done: Steps of this plan already charged; above 0 it was interrupted.
        epsilon_charged: ε charged to this plan so far.
        other_terms: Other units that were charged, or patients of another grouping;
            they do not add up with these.
    """

    before: float
    after: float
    steps_done: int
    epsilon_charged: float
    other_terms: tuple[str, ...]


def spending_with(ledger: Ledger, plan: Plan, dataset: str) -> Spending:
    """What was spent on a data set, and what it will be after this plan."""
    accounts = ledger.accounts(dataset)
    others, own = _by_terms(accounts, but=plan.run), _own(accounts, plan)
    known = _comparable(others, plan)
    return Spending(
        before=_epsilon(plan, known),
        after=_epsilon(plan, _with_plan(known, plan)),
        steps_done=plan.steps_among(own),
        epsilon_charged=_epsilon(plan, {plan.terms: own}),
        other_terms=tuple(sorted(set(others) - set(known))),
    )


@dataclass(frozen=True, kw_only=True)
class SoFar:
    """What was charged on a data set up to now, under a plan's unit and relation.

    Attributes:
        of_run: ε charged to the plan.
        of_all: ε charged to all runs, the plan too; infinite when one of them bounds
            nothing for the plan's unit.
        runs: How many runs those are.
    """

    of_run: float
    of_all: float
    runs: int


def spending_so_far(ledger: Ledger, plan: Plan, dataset: str) -> SoFar:
    """What was spent on a data set, for a report."""
    accounts = ledger.accounts(dataset)
    return SoFar(
        of_run=_epsilon(plan, {plan.terms: _own(accounts, plan)}),
        # PRIVACY: a run that bounds nothing for this unit is not left out.
        of_all=_epsilon(plan, _by_terms(accounts)),
        runs=len({account.run for account in accounts}),
    )


def refuse_above_cap(ledger: Ledger, plan: Plan, dataset: str) -> None:
    """Refuse a plan that would take a data set above its lifetime cap.

    Guarantee: with `alone_with` held until the plan's end, everything ever charged on
    the data set stays within its cap, composed by the accountant, at the cap's δ and
    under its unit and relation.

    Raises:
        UserError: when it would; nothing was spent.
    """
    cap = ledger.cap(dataset)
    accounts = ledger.accounts(dataset)
    # A run that is charged in full spends nothing more: it only has to be finished.
    if cap is None or set(_own(accounts, plan)) == set(added(plan.charges())):
        return
    others = _by_terms(accounts, but=plan.run)
    total = lifetime_epsilon(_with_plan(others, plan), cap.terms, cap.delta)
    # PRIVACY: the cap is a promise about everything together.
    if total <= cap.epsilon:
        return
    if math.isinf(total):
        raise UserError(
            "Earlier runs on these images protected other units, or patients of "
            "another grouping: nothing bounds them under the terms of the cap "
            f"({cap.terms}), so it allows no more. Set one that counts them all, for "
            "single images (sfumato ledger --cap N --unit image)."
        )
    before = lifetime_epsilon(others, cap.terms, cap.delta)
    raise UserError(
        f"With this training, ε = {total:.3f} would be spent on these images; their "
        f"cap is {cap.epsilon:g} (δ = {cap.delta:g}, {cap.terms}; other runs spent "
        f"{before:.3f}): lower epsilon, or raise the cap with sfumato ledger --cap."
    )


def _comparable(
    charged: Mapping[str, tuple[Charge, ...]], plan: Plan
) -> dict[str, tuple[Charge, ...]]:
    return {t: charges for t, charges in charged.items() if comparable(t, plan.terms)}


def _with_plan(
    others: Mapping[str, tuple[Charge, ...]], plan: Plan
) -> dict[str, tuple[Charge, ...]]:
    before = others.get(plan.terms, ())
    return {**others, plan.terms: added((*before, *plan.charges()))}


def _own(
    accounts: Mapping[Account, tuple[Charge, ...]], plan: Plan
) -> tuple[Charge, ...]:
    return added(
        charge
        for account, charges in accounts.items()
        if account.run == plan.run
        for charge in charges
    )


def _by_terms(
    accounts: Mapping[Account, tuple[Charge, ...]], *, but: str | None = None
) -> dict[str, tuple[Charge, ...]]:
    """Terms → what was charged under them, by all runs but one."""
    found: dict[str, tuple[Charge, ...]] = {}
    for account, charges in accounts.items():
        if account.run != but:
            found[account.terms] = added((*found.get(account.terms, ()), *charges))
    return found


def _epsilon(plan: Plan, charged: Mapping[str, tuple[Charge, ...]]) -> float:
    return lifetime_epsilon(charged, plan.terms, plan.budget.delta)
