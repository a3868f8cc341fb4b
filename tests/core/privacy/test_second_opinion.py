"""The second accountant is asked about the same charges, and all of them."""

from __future__ import annotations

import math

import pytest

from core.privacy.accounting import COARSE, Charge, epsilon
from core.privacy.budget import Relation
from core.privacy.second_opinion import second_epsilon

DELTA = 1e-5
STEPS = Charge(
    noise_multiplier=6.0,
    count=30,
    sampling_probability=0.1,
    population=500,
    batch_cap=91,
)
RELEASES = Charge(noise_multiplier=12.0, count=2)


@pytest.mark.parametrize("relation", list(Relation))
def test_two_accountants_agree_on_several_charges(relation):
    charges = (STEPS, RELEASES)
    found = second_epsilon(charges, DELTA, relation)
    assert found == pytest.approx(epsilon(charges, DELTA, relation), rel=5e-3)
    assert found > epsilon([RELEASES], DELTA, relation, COARSE) * 1.05


def test_charges_that_are_given_one_at_a_time_are_all_heard():
    given = second_epsilon(iter((RELEASES, RELEASES)), DELTA, Relation.REPLACE_ONE)
    four = Charge(noise_multiplier=12.0, count=4)
    exact = epsilon([four], DELTA, Relation.REPLACE_ONE)
    assert given == pytest.approx(exact, rel=5e-3)


def test_nothing_charged_is_zero_and_what_has_no_noise_is_unbounded():
    none = Charge(noise_multiplier=1.0, count=0)
    assert second_epsilon((none,), DELTA, Relation.ADD_OR_REMOVE_ONE) == 0
    loud = Charge(noise_multiplier=0.0, count=1)
    found = second_epsilon((loud,), DELTA, Relation.ADD_OR_REMOVE_ONE)
    assert found == math.inf
