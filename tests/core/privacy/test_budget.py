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


@pytest.mark.parametrize("epsilon", [1000.5, 1e9])
def test_an_epsilon_that_bounds_nothing_is_refused(epsilon):
    with pytest.raises(UserError, match="bounds nothing for anyone: take 10 or less"):
        budget(epsilon=epsilon)
    assert budget(epsilon=1000.0)


@pytest.mark.parametrize("delta", [9e-15, 1e-30, 1e-300])
def test_a_delta_that_no_accountant_can_work_with_is_blamed_itself(delta):
    with pytest.raises(UserError, match=r"delta = .* smaller than can be worked with"):
        budget(delta=delta)
    assert budget(delta=1e-14)


@pytest.mark.parametrize("delta", [0.0, -1e-5, 1.0, 2.0, float("nan")])
def test_delta_must_lie_between_zero_and_one(delta):
    with pytest.raises(UserError, match="delta"):
        budget(delta=delta)


@pytest.mark.parametrize("count", [10, 999, 1_000, 60_000])
def test_delta_must_be_below_one_over_the_records(count):
    with pytest.raises(UserError, match="too large"):
        budget(delta=1 / count).check_delta(count)
    budget(delta=suggested_delta(count)).check_delta(count)


@pytest.mark.parametrize(
    ("count", "delta"),
    [(1, 1e-5), (99, 1e-5), (10_000, 1e-5), (10_001, 1e-6), (60_000, 1e-6),
     (99_999, 1e-6), (100_000, 1e-6), (100_001, 1e-7), (302_436, 1e-7)],
)  # fmt: skip
def test_the_suggested_delta_is_what_the_audit_calls_customary(count, delta):
    assert suggested_delta(count) == delta <= 1 / (10 * count)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [(UnitKind.IMAGE, 2), (UnitKind.IMAGE, 0), (UnitKind.PATIENT, 0)],
)
def test_limits_that_make_no_sense_are_refused(kind, limit):
    with pytest.raises(UserError):
        PrivacyUnit(kind=kind, max_images_per_unit=limit)
