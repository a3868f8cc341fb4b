"""One training run's account in the ledger."""

from __future__ import annotations

from core.privacy.accounting import COARSE, Charge, epsilon
from core.privacy.ledger import Account, Ledger
from core.training.plan import Plan


class Purse:
    """One run's account: charges it, and knows what is left.

    Guarantee: never charges more than the plan's committed steps and releases.
    """

    def __init__(self, plan: Plan, dataset: str, ledger: Ledger) -> None:
        self._plan, self._ledger = plan, ledger
        self._account = Account(dataset=dataset, run=plan.run, terms=plan.terms)

    def charged(self) -> tuple[Charge, ...]:
        """What the ledger holds of this run."""
        account = self._account
        return self._ledger.charged(account.dataset, account.terms, account.run)

    def steps_charged(self) -> int:
        """DP-SGD steps charged, whether or not they reached the weights."""
        return sum(c.count for c in self.charged() if c.batch_cap is not None)

    def moments_charged(self) -> bool:
        """Whether the one release of moments was begun."""
        return any(c.batch_cap is None for c in self.charged())

    def steps_left(self) -> int:
        """Committed steps not yet charged."""
        return self._plan.mechanism.steps - self.steps_charged()

    def commit(self, charge: Charge) -> None:
        """Write a charge to the ledger; returns when it is on disk."""
        self._ledger.commit(self._account, charge)

    def epsilon(self) -> float:
        """ε charged to this run so far, to look at; claims are evaluated finely."""
        budget = self._plan.budget
        charges = [charge.uncapped() for charge in self.charged()]
        return epsilon(charges, budget.delta, budget.relation, COARSE)
