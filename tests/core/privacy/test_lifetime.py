"""What all runs add up to, whatever units and relations they were made for."""

from __future__ import annotations

import math

import pytest

from core.errors import UserError
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import Relation
from core.privacy.ledger import Account, Ledger
from core.privacy.lifetime import Cap, comparable, lifetime_epsilon

IMAGE, IMAGE_EXCHANGED = "image, add_or_remove_one", "image, replace_one"
PATIENT, OTHER_PATIENT = (
    "patient (at most 4), add_or_remove_one",
    "patient (at most 2), replace_special",
)
ONE = Charge(noise_multiplier=4.0, count=3)
TWO = Charge(noise_multiplier=7.0, count=1)
DELTA = 1e-5


def exactly(charges, relation=Relation.ADD_OR_REMOVE_ONE) -> float:
    return epsilon(charges, DELTA, relation)


def test_runs_are_composed_and_not_added_up():
    alone = [lifetime_epsilon({IMAGE: (c,)}, IMAGE, DELTA) for c in (ONE, TWO)]
    together = lifetime_epsilon({IMAGE: (ONE, TWO)}, IMAGE, DELTA)
    assert together == exactly((ONE, TWO))
    assert max(alone) < together < sum(alone)


def test_nothing_charged_is_nothing_spent():
    for charged in ({}, {IMAGE: ()}, {PATIENT: ()}):
        assert lifetime_epsilon(charged, IMAGE, DELTA) == 0.0


def test_a_mechanism_holds_under_any_relation_on_its_unit():
    charged = {IMAGE: (ONE,), IMAGE_EXCHANGED: (TWO,)}
    assert lifetime_epsilon(charged, IMAGE, DELTA) == exactly((ONE, TWO))
    exchanged = lifetime_epsilon(charged, IMAGE_EXCHANGED, DELTA)
    assert exchanged == exactly((ONE, TWO), Relation.REPLACE_ONE)
    assert exchanged > exactly((ONE, TWO))
    patients = {PATIENT: (ONE,), OTHER_PATIENT: (TWO,)}
    assert lifetime_epsilon(patients, PATIENT, DELTA) == exactly((ONE, TWO))


def by(column: str) -> str:
    return f"patient (at most 4, grouped by {column}), add_or_remove_one"


def test_patients_of_one_column_are_not_those_of_another():
    """A hospital's group changes by more than a patient when one patient comes."""
    charged = {by("case"): (ONE,), by("ward, east"): (TWO,)}
    for terms in (*charged, PATIENT):
        assert lifetime_epsilon(charged, terms, DELTA) == math.inf
    assert not comparable(by("case"), by("ward, east"))
    exchanged = exactly((ONE, TWO), Relation.REPLACE_ONE)
    assert lifetime_epsilon(charged, IMAGE, DELTA) == exchanged
    one = {by("case"): (ONE,), by("case").replace("4", "2"): (TWO,)}
    assert lifetime_epsilon(one, by("case"), DELTA) == exactly((ONE, TWO))
    # An older version did not say which column it was.
    before = {PATIENT: (ONE,), by("case"): (TWO,)}
    for terms in before:
        assert lifetime_epsilon(before, terms, DELTA) == exactly((ONE, TWO))


def test_patients_of_a_corrected_table_are_not_those_of_the_first():
    """One of them may have been several, who were bounded one by one."""
    first, corrected = (by(f"case [{digit * 16}]") for digit in "0a")
    charged = {first: (ONE,), corrected: (TWO,)}
    for terms in (*charged, by("case"), PATIENT):
        assert lifetime_epsilon(charged, terms, DELTA) == math.inf
    assert not comparable(first, corrected) and not comparable(corrected, first)
    for terms in (first, by("case"), PATIENT):
        assert lifetime_epsilon({first: (ONE,)}, terms, DELTA) == exactly((ONE,))
        assert comparable(first, terms) and comparable(terms, first)
    again = {first: (ONE,), first.replace("4", "2"): (TWO,)}
    assert lifetime_epsilon(again, first, DELTA) == exactly((ONE, TWO))
    exchanged = exactly((ONE, TWO), Relation.REPLACE_ONE)
    assert lifetime_epsilon(charged, IMAGE, DELTA) == exchanged


@pytest.mark.parametrize(
    "charged", [{PATIENT: (ONE, TWO)}, {IMAGE: (ONE,), PATIENT: (TWO,)}]
)
def test_an_image_more_exchanges_a_patients_record(charged):
    assert lifetime_epsilon(charged, IMAGE, DELTA) == exactly(
        (ONE, TWO), Relation.REPLACE_ONE
    )


@pytest.mark.parametrize("unknown", [IMAGE, "slide, add_or_remove_one", "x", ""])
def test_what_bounds_nothing_is_not_left_out(unknown):
    """Nobody declares how many images a patient has."""
    assert lifetime_epsilon({unknown: (ONE,)}, PATIENT, DELTA) == math.inf
    assert (
        lifetime_epsilon({PATIENT: (ONE,), unknown: (TWO,)}, PATIENT, DELTA) == math.inf
    )
    assert not comparable(unknown, PATIENT)
    assert lifetime_epsilon({unknown: ()}, PATIENT, DELTA) == 0.0


@pytest.mark.parametrize("number", [0, -1, math.inf, math.nan])
def test_a_cap_is_a_number_above_zero(number):
    with pytest.raises(UserError, match="cap"):
        Cap(epsilon=number, delta=DELTA, terms=IMAGE)
    with pytest.raises(UserError, match="delta"):
        Cap(epsilon=1.0, delta=number, terms=IMAGE)


def test_caps_are_rows_of_the_chain_and_the_newest_counts(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    account = Account(dataset="data", run="a", terms=IMAGE)
    caps = [Cap(epsilon=e, delta=DELTA, terms=t) for e, t in ((9, IMAGE), (3, PATIENT))]
    assert ledger.cap("data") is None
    ledger.commit(account, ONE)
    for cap in caps:
        before = ledger.head()
        after = ledger.set_cap("data", cap)
        assert ledger.cap("data") == cap
        assert (ledger.entries()[-1].previous, ledger.head()) == (before, after)
        ledger.commit(account, TWO)
    assert ledger.cap("other") is None
    # They are charged to nobody.
    assert [e.content for e in ledger.entries("data")] == [
        ONE,
        caps[0],
        TWO,
        caps[1],
        TWO,
    ]
    assert list(ledger.accounts("data")) == [account]
    ledger.close()
    again = Ledger(tmp_path / "ledger.sqlite3")
    assert again.cap("data") == caps[1]
    again.close()
