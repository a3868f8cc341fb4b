"""One training run's account in the ledger."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from core.errors import UserError
from core.privacy.accounting import COARSE, Charge, epsilon
from core.privacy.ledger import Account, Ledger
from core.training.binding import counted
from core.training.plan import Plan

LOOKS = 50
"""How often in a run the accountant is asked for the ε to show: it costs more than the
ledger does."""


def refuse_unpaid(kept: int, charged: int, folder: Path) -> None:
    """Refuse what was released and is not in the ledger: no audit would tell of it.

    Args:
        kept, charged: How many releases of a kind are on disk, and in the ledger.

    Raises:
        UserError: when there are more on disk.
    """
    # PRIVACY: only what the ledger holds may be gone on from.
    if kept > charged:
        raise UserError(
            f"The ledger holds less than what was learned in {folder}: put back the "
            "ledger that this project was charged to, or start a new project."
        )


class Purse:
    """One run's account: charges it, and knows what is left.

    Guarantee: never charges more than the plan's committed steps and releases, however
    many processes use the same account at the same time.
    """

    def __init__(self, plan: Plan, dataset: str, ledger: Ledger) -> None:
        self._plan, self._ledger = plan, ledger
        self._account = Account(dataset=dataset, run=plan.run, terms=plan.terms)
        self._shown: dict[tuple[Charge, ...], float] = {}

    def charged(self) -> tuple[Charge, ...]:
        """What the ledger holds of this run."""
        return self._ledger.charged(self._account.dataset, run=self._account.run)

    def steps_charged(self) -> int:
        """DP-SGD steps charged, whether or not they reached the weights."""
        return self._plan.steps_among(self.charged())

    def sums_charged(self) -> int:
        """Sums of the moments charged, whether or not they were kept."""
        moments = self._plan.moments
        return counted(self.charged(), *moments.charges()) if moments else 0

    def central_left(self) -> int:
        """Draws of the central images not yet charged."""
        central = self._plan.central
        if central is None:
            return 0
        made = counted(self.charged(), central.mechanism.charge(1))
        return central.mechanism.steps - made

    def teacher_left(self) -> int:
        """Releases of the teacher's gradient not yet charged."""
        teacher = self._plan.teacher
        if teacher is None:
            return 0
        return teacher.steps - counted(self.charged(), teacher.charge(1))

    def steps_left(self) -> int:
        """Committed steps not yet charged; others may charge them in the meantime."""
        return self._plan.steps - self.steps_charged()

    def commit(self, charge: Charge) -> None:
        """Write a charge to the ledger; returns when it is on disk.

        Raises:
            UserError: when the plan does not hold it, or holds no more of it, or the
                ledger cannot be written; then nothing may be read.
        """
        # PRIVACY: the ledger itself compares, in the transaction that writes.
        self._ledger.commit(self._account, charge, allowed=self._plan.charges())

    def epsilon(self) -> float:
        """ε charged to this run, to look at: up to a fiftieth of the steps ahead.

        Claims are evaluated finely.
        """
        steps = self._plan.steps
        stride = max(1, math.ceil(steps / LOOKS))
        ahead = tuple(
            replace(
                charge.uncapped(),
                count=min(steps, stride * math.ceil(charge.count / stride))
                if self._plan.steps_among([charge])
                else charge.count,
            )
            for charge in self.charged()
        )
        if ahead not in self._shown:
            budget = self._plan.budget
            found = epsilon(ahead, budget.delta, budget.relation, COARSE)
            self._shown[ahead] = found
        return self._shown[ahead]
