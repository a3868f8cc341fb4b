"""What everything that was ever done to a data set adds up to, and its lifetime cap."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.errors import UserError
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import Relation, UnitKind

GROUPED_BY = "grouped by "
"""In terms, before the column that says which images are of one patient."""

DIGITS = 16
"""Hexadecimal, of what tells one grouping by a column from another, in brackets."""


@dataclass(frozen=True, kw_only=True)
class Cap:
    """The most that the custodian lets be spent on a data set, ever.

    Attributes:
        epsilon: ε > 0, of everything together.
        delta: The δ at which it is looked at.
        terms: The unit and relation under which it is looked at, as the ledger writes
            them.

    Raises:
        UserError: when ε or δ is out of range.
    """

    epsilon: float
    delta: float
    terms: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise UserError(f"The cap must be a number above 0, not {self.epsilon:g}.")
        if not 0 < self.delta < 1:
            raise UserError(f"delta must lie between 0 and 1, not {self.delta:g}.")


def lifetime_epsilon(
    charged: Mapping[str, Iterable[Charge]], terms: str, delta: float
) -> float:
    """The ε of charges made under several terms, together, as `terms` count it.

    Guarantee: an upper bound for the unit and relation of `terms`, composed by the
    accountant. A charge is a mechanism, so it holds under any relation on its own unit.
    What was charged for patients is counted for images as if each patient's record were
    exchanged (replace_one), which is what one image more or less does to it. What was
    charged for images bounds nothing for patients, because nobody declares how many
    images a patient has; nor does what was charged for the groups of another column, or
    of the same when it grouped the images otherwise.

    Args:
        charged: Terms → charges.

    Returns:
        ε ≥ 0; infinity when a charge bounds nothing under `terms`.
    """
    spent = {under: tuple(charges) for under, charges in charged.items()}
    spent = {under: charges for under, charges in spent.items() if charges}
    # PRIVACY: what cannot be bounded is not left out.
    if not all(comparable(under, terms) for under in spent):
        return math.inf
    if not spent:
        return 0.0
    own, read = _read(terms), [_read(under) for under in spent]
    unit, relation = own.unit, own.relation
    alike = [own, *(other for other in read if other.unit is unit)]
    # PRIVACY: where terms name no column, two others must still be the same.
    columns = {it.column for it in alike} - {""}
    groupings = {it.grouping for it in alike} - {""}
    if unit is UnitKind.PATIENT and max(len(columns), len(groupings)) > 1:
        return math.inf
    units = {other.unit for other in read}
    # PRIVACY: one image of a patient changes that patient's record, it adds no patient.
    if unit is UnitKind.IMAGE and UnitKind.PATIENT in units:
        relation = Relation.REPLACE_ONE
    everything = [charge for charges in spent.values() for charge in charges]
    return epsilon(everything, delta, relation)


def comparable(under: str, terms: str) -> bool:
    """Whether charges made under some terms bound anything under `terms`.

    A patient of one column is not known to be one of another, nor of the same column
    when it gave them other images; an older version did not say which those were.
    """
    try:
        one, other = _read(under), _read(terms)
    except ValueError:
        return False  # Terms of a version to come.
    if one.unit is other.unit is UnitKind.PATIENT:
        pairs = (one.column, other.column), (one.grouping, other.grouping)
        return all(a == b or "" in (a, b) for a, b in pairs)
    return one.unit in (other.unit, UnitKind.PATIENT)


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """Column and grouping are "" where none is told."""

    unit: UnitKind
    relation: Relation
    column: str
    grouping: str


def _read(terms: str) -> _Terms:
    """Of "patient (at most 4, grouped by ward [0123456789abcdef]), replace_one"."""
    unit, _, relation = terms.rpartition(", ")
    by = unit.partition(GROUPED_BY)[2].removesuffix(")")
    column, grouping = by, ""
    if told := re.fullmatch(rf"(.*) \[([0-9a-f]{{{DIGITS}}})\]", by):
        column, grouping = told.groups()
    return _Terms(
        unit=UnitKind(unit.split(" ")[0]),
        relation=Relation(relation),
        column=column,
        grouping=grouping,
    )
