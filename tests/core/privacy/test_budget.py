"""A budget that cannot be meant is refused in the custodian's words."""

from __future__ import annotations

import pytest

from core.errors import UserError
from core.privacy.budget import (
    Budget,
    PrivacyUnit,
    Relation,
    UnitKind,
    suggested_delta,
)


def budget(epsilon: float = 1.0, delta: float = 1e-5) -> Budget:
    return Budget(
        epsilon=epsilon,
        delta=delta,
        unit=PrivacyUnit(),
        relation=Relation.ADD_OR_REMOVE_ONE,
    )


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_epsilon_must_be_a_number_above_zero(epsilon):
    with pytest.raises(UserError, match="epsilon"):
        budget(epsilon=epsilon)


@pytest.mark.parametrize("delta", [0.0, -1e-5, 1.0, 2.0, float("nan")])
def test_delta_must_lie_between_zero_and_one(delta):
    with pytest.raises(UserError, match="delta"):
        budget(delta=delta)


@pytest.mark.parametrize("count", [10, 999, 1_000, 60_000])
def test_delta_must_be_below_one_over_the_records(count):
    with pytest.raises(UserError, match="too large"):
        budget(delta=1 / count).check_delta(count)
    suggestion = suggested_delta(count)
    assert 0.01 / count < suggestion < 1 / count
    budget(delta=suggestion).check_delta(count)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [(UnitKind.IMAGE, 2), (UnitKind.IMAGE, 0), (UnitKind.PATIENT, 0)],
)
def test_limits_that_make_no_sense_are_refused(kind, limit):
    with pytest.raises(UserError):
        PrivacyUnit(kind=kind, max_images_per_unit=limit)
