"""ε by Google's dp-accounting, which shares no code with ours."""

from __future__ import annotations

from collections.abc import Iterable

from core.privacy.accounting import FINE, Charge
from core.privacy.budget import Relation


def second_epsilon(
    charges: Iterable[Charge], delta: float, relation: Relation
) -> float:
    """The ε of everything in `charges` together, at this δ; slow.

    Guarantee: as `accounting.epsilon`, of the same events, by another implementation.

    Returns:
        ε ≥ 0; infinity when nothing bounds it.
    """
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        neighboring_relation=NeighboringRelation[relation.name],
        value_discretization_interval=FINE,
    )
    for charge in charges:
        if charge.count > 0:
            accountant.compose(charge.event())
    return float(accountant.get_epsilon(delta))
