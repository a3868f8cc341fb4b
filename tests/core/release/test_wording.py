from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.release import wording


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (8.0, "8.000"),
        (8.0001, "8.001"),
        (10.0, "10.00"),
        (0.1, "0.1000"),
        (99.991, "100.0"),
        (0.0123401, "0.01235"),
        (1234.2, "1,235"),
        (0.0, "0.000"),
        (float("inf"), "infinite"),
    ],
)
def test_epsilon_is_rounded_up_to_four_digits(value, printed):
    assert wording.format_epsilon(value) == printed


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_rounding_never_lowers_a_bound_and_costs_at_most_a_thousandth(value):
    rounded = wording.round_up(value)
    assert value <= rounded <= value * 1.001
    assert len(Decimal(repr(rounded)).normalize().as_tuple().digits) <= 4


@given(st.floats(min_value=1e-6, max_value=999))
def test_what_is_printed_is_never_below_the_bound(value):
    assert float(wording.format_epsilon(value)) >= value


@pytest.mark.parametrize("bad", [-0.1, float("nan")])
def test_a_bound_that_is_none_is_refused(bad):
    with pytest.raises(ValueError):
        wording.round_up(bad)


@pytest.mark.parametrize(
    ("delta", "printed"),
    [(1e-5, "1e-5"), (1e-6, "1e-6"), (2.5e-6, "2.5e-6"), (0.5, "5e-1")],
)
def test_delta_is_printed_without_loss(delta, printed):
    assert wording.format_delta(delta) == printed
    assert float(printed) == delta


def test_the_claim_names_epsilon_delta_unit_relation_and_what_is_released():
    sentence = wording.claim_sentence(
        epsilon=8, delta=1e-5, unit="patient", relation="replace_one", images=10
    )
    for part in (
        "ε = 8.000",
        "δ = 1e-5",
        "one patient",
        "replace one",
        "10 synthetic images",
    ):
        assert part in sentence


@pytest.mark.parametrize(
    "text", ["fully anonymous", "GDPR compliant", "Safe to share", "audit passed"]
)
def test_words_that_promise_too_much_are_found(text):
    assert wording.FORBIDDEN.search(text)


def test_file_formats_and_field_names_are_not_such_words():
    assert not wording.FORBIDDEN.search("safetensors, anonymisation_narrative, unsafe")
