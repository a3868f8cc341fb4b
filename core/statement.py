"""`sfumato ledger`: what the budget ledger says, and the lifetime caps in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.privacy.accounting import Charge
from core.privacy.ledger import Ledger
from core.privacy.lifetime import Cap, lifetime_epsilon
from core.release.wording import format_epsilon
from core.spending import alone_with, open_ledger
from core.training.plan import terms
from core.training.wishes import read_budget
from core.workspace import Project, Workspace

SHORT = 12
"""Characters of a fingerprint that are printed."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run was charged.

    Attributes:
        run: Its identity.
        terms: Unit and relation.
        begun, ended: Times of its first and last charge, UTC.
        charges: Equal ones added.
    """

    run: str
    terms: str
    begun: str
    ended: str
    charges: tuple[Charge, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetStatement:
    """What the ledger holds of one data set.

    Attributes:
        fingerprint: Of the data set; internal.
        delta: The δ of `epsilons`.
        epsilons: Unit and relation → ε of everything charged, as they count it;
            infinite where other runs bound nothing for that unit.
        delta_said: Whether it was given, or is the cap's or a project's; if not, the
            runs were authorised at others.
        cap: The lifetime cap in force.
        above_cap: Whether more was charged already, as the cap counts it.
        runs: In the order of their beginning.
    """

    fingerprint: str
    delta: float
    delta_said: bool
    epsilons: dict[str, float]
    cap: Cap | None
    above_cap: bool
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A ledger whose chain holds, data set by data set."""

    path: Path
    entries: int
    head: str
    datasets: tuple[DatasetStatement, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON types; an infinite ε is null."""
        content = asdict(self) | {"path": str(self.path), "chain_holds": True}
        for dataset in content["datasets"]:
            for under, epsilon in dataset["epsilons"].items():
                finite = epsilon != float("inf")
                dataset["epsilons"][under] = epsilon if finite else None
        return content

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{self.path}: {self.entries:,} entries; the chain of hashes holds."]
        for dataset in self.datasets:
            lines += ["", f"Data set {dataset.fingerprint[:SHORT]}", *_lines(dataset)]
        return "\n".join(lines)


def _lines(dataset: DatasetStatement) -> Iterable[str]:
    for under, epsilon in dataset.epsilons.items():
        yield (
            f"  charged: ε = {format_epsilon(epsilon)} at δ = {dataset.delta:g} "
            f"({under})"
        )
    if not dataset.delta_said:
        yield (
            f"  (shown at δ = {dataset.delta:g}; `sfumato ledger PROJECT` shows it at "
            "the project's own δ)"
        )
    cap = dataset.cap
    yield (
        f"  lifetime cap: ε = {cap.epsilon:g} at δ = {cap.delta:g} ({cap.terms})"
        if cap
        else "  lifetime cap: none (sfumato ledger --cap sets one)"
    )
    if dataset.above_cap:
        yield ("  Already above this cap: nothing more can be trained on these images.")
    for run in dataset.runs:
        steps = sum(c.count for c in run.charges if c.batch_cap is not None)
        sums = sum(c.count for c in run.charges if c.batch_cap is None)
        yield (
            f"  run {run.run[:SHORT]}: {steps:,} steps and {sums:,} noisy sums, "
            f"{run.begun} to {run.ended} ({run.terms})"
        )


def statement(about: str | None, delta: float | None) -> Statement:
    """Read and check the whole ledger; tell of all data sets, or of one.

    Args:
        about: A project folder, or the first characters of a fingerprint.
        delta: The δ of the ε to print; else that of the cap, else of the project.

    Raises:
        UserError: when δ is out of range, or the ledger was edited or rolled back, or
            holds no such data.
    """
    if delta is not None and not 0 < delta < 1:
        raise UserError(
            f"delta must lie between 0 and 1, not {delta:g}: give a power of ten below "
            "one over the number of records, such as 1e-5, or leave --delta out."
        )
    workspace = _workspace(about)
    with open_ledger(workspace) as ledger:
        chosen = (_named(ledger, workspace, about),) if about else _datasets(ledger)
        return Statement(
            path=ledger.path,
            entries=len(ledger.entries()),
            head=ledger.head(),
            datasets=tuple(
                _dataset(ledger, fingerprint, delta, workspace)
                for fingerprint in chosen
            ),
        )


def set_cap(
    about: str,
    epsilon: float,
    *,
    delta: float | None,
    unit: str | None,
    relation: str | None,
) -> None:
    """Record a lifetime cap; what is not given is as in the project.

    Raises:
        UserError: when a number is out of range, somebody spends on the data just now,
            or the ledger cannot be used.
    """
    workspace = _workspace(about)
    project = _project(workspace)
    if unit not in (None, project.unit):
        project = replace(project, unit=unit, max_images_per_unit=1)
    budget = read_budget(project.changed(delta=delta, relation=relation))
    cap = Cap(epsilon=epsilon, delta=budget.delta, terms=terms(budget))
    with open_ledger(workspace) as ledger:
        fingerprint = _named(ledger, workspace, about)
        with alone_with(fingerprint):
            ledger.set_cap(fingerprint, cap)


def _dataset(
    ledger: Ledger, fingerprint: str, delta: float | None, workspace: Workspace | None
) -> DatasetStatement:
    cap, accounts = ledger.cap(fingerprint), ledger.accounts(fingerprint)
    charged: dict[str, tuple[Charge, ...]] = {}
    for account, charges in accounts.items():
        charged[account.terms] = (*charged.get(account.terms, ()), *charges)
    at = delta if delta is not None else cap.delta if cap else None
    if at is None and workspace is not None:
        at = _project(workspace).delta
    shown = Project().delta if at is None else at
    times = {account: [] for account in accounts}
    for entry in ledger.entries(fingerprint):
        if entry.account in times:
            times[entry.account].append(entry.utc)
    return DatasetStatement(
        fingerprint=fingerprint,
        delta=shown,
        delta_said=at is not None,
        epsilons={under: lifetime_epsilon(charged, under, shown) for under in charged},
        cap=cap,
        above_cap=cap is not None
        and lifetime_epsilon(charged, cap.terms, cap.delta) > cap.epsilon,
        runs=tuple(
            Run(
                run=account.run,
                terms=account.terms,
                begun=times[account][0],
                ended=times[account][-1],
                charges=charges,
            )
            for account, charges in accounts.items()
        ),
    )


def _workspace(about: str | None) -> Workspace | None:
    """The project named, to look at; None when it is not a folder."""
    if about is None or not Path(about).expanduser().is_dir():
        return None
    return Workspace.look(Path(about))


def _project(workspace: Workspace | None) -> Project:
    return (workspace.project if workspace else None) or Project()


def _datasets(ledger: Ledger) -> tuple[str, ...]:
    return tuple(dict.fromkeys(e.account.dataset for e in ledger.entries()))


def _named(ledger: Ledger, workspace: Workspace | None, about: str) -> str:
    """The fingerprint of the data set that is meant."""
    if workspace is not None:
        return _spent_on(ledger, workspace)
    found = [dataset for dataset in _datasets(ledger) if dataset.startswith(about)]
    if len(found) != 1:
        raise UserError(
            f"{about!r} is neither a project folder nor the beginning of the "
            "fingerprint of one data set: sfumato ledger lists them."
        )
    return found[0]


def _spent_on(ledger: Ledger, workspace: Workspace) -> str:
    """The data that a project has spent on, and not those that it read since."""
    if workspace.finished("plan"):
        kept = workspace.result("plan")
        planned = kept["wishes"]["fingerprint"]
        if ledger.charged(planned, run=kept["plan"]["run"]):
            return planned
    return workspace.result("dataset")["fingerprint"]
