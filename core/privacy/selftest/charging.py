"""Is everything charged first, and does ε follow from what was charged?"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import torch
from dp_accounting import NeighboringRelation
from dp_accounting.pld import PLDAccountant
from torch import Tensor

from core.errors import UserError
from core.privacy.accounting import Charge
from core.privacy.budget import Relation
from core.privacy.canaries import INTERVAL, gaussian_epsilon
from core.privacy.gaussian import gaussian_delta
from core.privacy.ledger import Account, Ledger
from core.privacy.mechanism import Mechanism
from core.privacy.selftest.engine import Engine, made_up
from core.privacy.selftest.findings import Conditions, Finding, Measurement

DELTA = 1e-5
_ACCOUNT = Account(dataset="self-test", run="self-test", terms="image, made up")


class _Watched(int):
    """The private number of units; tells when anything is made of it."""

    _touched: Callable[[], None]

    def __new__(cls, value: int, touched: Callable[[], None]) -> _Watched:
        made = super().__new__(cls, value)
        made._touched = touched
        return made

    def __lt__(self, other: int) -> bool:
        self._touched()
        return int(self) < other

    def __gt__(self, other: int) -> bool:
        self._touched()
        return int(self) > other

    def __index__(self) -> int:
        self._touched()
        return int(self)


def order(engine: Engine, conditions: Conditions) -> Finding:
    """What is on disk when units are looked at, and what ε follows from it."""
    made, relation = made_up(), Relation.ADD_OR_REMOVE_ONE
    lead, charged = _with_a_ledger(engine, made, conditions)
    recorded = sum(charge.count for charge in charged)
    planned = engine.epsilon([made.charge(made.steps)], DELTA, relation)
    return Finding(
        check="charge first",
        question="Is every step paid for before anyone's record is looked at?",
        measurements=(
            Measurement(
                name="steps paid ahead when units are looked at",
                value=min(lead, default=-math.inf),
                low=0.0,
            ),
            Measurement(
                name="looks after a charge that failed",
                value=float(_looks_unpaid(engine, made)),
                high=0.0,
            ),
            Measurement(
                name="steps in the ledger ÷ steps made",
                value=recorded / made.steps,
                low=1.0,
            ),
            Measurement(
                name="epsilon of the ledger ÷ epsilon of the plan",
                value=engine.epsilon(charged, DELTA, relation) / planned,
                low=1 - 1e-9,
            ),
        ),
        smallest_fault=f"one charge of {made.steps} late or lost",
    )


def _with_a_ledger(
    engine: Engine, made: Mechanism, conditions: Conditions
) -> tuple[list[float], tuple[Charge, ...]]:
    """Steps charged to a ledger of their own.

    Returns:
        Steps on disk less steps begun, each time that units are looked at or counted;
        and what the ledger holds in the end.
    """
    lead: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="sfumato-self-test-") as folder,
        closing(Ledger(Path(folder) / "ledger.sqlite3")) as ledger,
        # A second connection sees only what was committed.
        closing(Ledger(Path(folder) / "ledger.sqlite3")) as reader,
    ):

        def charged() -> tuple[Charge, ...]:
            return tuple(reader.charged(_ACCOUNT.dataset, _ACCOUNT.terms))

        def touched() -> None:
            lead.append(sum(charge.count for charge in charged()) - begun)

        def look(units: np.ndarray) -> Tensor:
            touched()
            return torch.zeros(1)

        for begun in range(1, made.steps + 1):
            conditions.reached((begun - 1) / made.steps)
            engine.step(
                made,
                present=_Watched(made.population, touched),
                clipped_sum=look,
                commit=lambda charge: ledger.commit(_ACCOUNT, charge),
            )
        return lead, charged()


def _looks_unpaid(engine: Engine, made: Mechanism) -> int:
    """How often units were looked at or counted although the charge failed."""
    looks: list[None] = []

    def refuse(charge: Charge) -> None:
        raise UserError("There is no room for this charge.")

    def look(units: np.ndarray) -> Tensor:
        looks.append(None)
        return torch.zeros(1)

    with suppress(UserError):
        engine.step(
            made,
            present=_Watched(made.population, lambda: looks.append(None)),
            clipped_sum=look,
            commit=refuse,
        )
    return len(looks)


def accountant(engine: Engine, conditions: Conditions) -> Finding:
    """ε against closed forms, and against dp-accounting where there is none."""
    removed, exchanged = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE
    full = Charge(noise_multiplier=9.0, count=64)  # one release of √64 / 9
    once = Charge(noise_multiplier=0.8, count=1, sampling_probability=0.1)
    often = made_up().charge(20)
    return Finding(
        check="accountant",
        question="Is the epsilon that is shown large enough for what is done?",
        measurements=(
            Measurement(
                name="epsilon ÷ exact value, 64 steps with everybody",
                value=engine.epsilon([full], DELTA, removed)
                / gaussian_epsilon(8 / 9, DELTA),
                low=1 - 1e-6,
            ),
            Measurement(
                name="the same for one record exchanged",
                value=engine.epsilon([full], DELTA, exchanged)
                / gaussian_epsilon(16 / 9, DELTA),
                low=1 - 1e-6,
            ),
            Measurement(
                name="delta ÷ its exact value, one sampled step",
                value=DELTA
                / _sampled_delta(engine.epsilon([once], DELTA, removed), once),
                low=1 - 1e-6,
            ),
            Measurement(
                name="epsilon ÷ that of a second accountant, 20 sampled steps",
                value=engine.epsilon([often], DELTA, removed) / _second_epsilon(often),
                # The second one rounds up, too, on a coarser grid.
                low=0.99,
            ),
        ),
        smallest_fault="epsilon 1 % too small",
    )


def _sampled_delta(epsilon: float, charge: Charge) -> float:
    """δ(ε) of one Poisson-sampled Gaussian step, for removing a unit; exact."""
    rate, noise = charge.sampling_probability, charge.noise_multiplier
    # One draw with probability q is a full step at this larger ε, q times as likely.
    full = math.log1p(math.expm1(epsilon) / rate)
    return rate * gaussian_delta(1 / noise, full)


def _second_epsilon(charge: Charge) -> float:
    """ε by the dp-accounting package, whatever the engine computes with."""
    accountant = PLDAccountant(
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=INTERVAL,
    )
    accountant.compose(charge.event())
    return float(accountant.get_epsilon(DELTA))
