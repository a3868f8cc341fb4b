"""How a privacy bound may be put into words, in one place for every document.

Epsilon is never printed alone, never rounded down, and some words are never printed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

FORBIDDEN = re.compile(
    r"\b(?:anonym(?:ous|ously|ised|ized|ity)|GDPR[- ]compliant|HIPAA[- ]compliant"
    r"|verified private|audit passed|safe|safely|risk[- ]free|guaranteed private)\b",
    re.IGNORECASE,
)
"""Words that promise more than a bound does; `re` finds them in any document."""

RELATIONS: Mapping[str, str] = {
    "add_or_remove_one": "one {unit} more or less in the private data",
    "replace_one": "one {unit} exchanged for any other",
    "replace_special": "one {unit} exchanged for an empty one",
}
"""Neighbouring relation → its definition in words."""

UNITS: Mapping[str, str] = {"image": "image", "patient": "patient"}
"""Unit of privacy → the noun of it."""

VERIFY_COMMAND = "sfumato verify RELEASE_FOLDER"
"""How a recipient checks a release; every report of this program says just this."""

NO_PRIVACY = "NO PRIVACY"
"""Stamp of a run whose random numbers were fixed in advance."""


def round_up(value: float, digits: int = 4) -> float:
    """Round a bound up to `digits` significant digits, so that it stays a bound.

    Raises:
        ValueError: If the value is negative or not a number.
    """
    if math.isnan(value) or value < 0:
        raise ValueError(f"a bound must be at least zero, not {value}")
    if value == 0 or math.isinf(value):
        return float(value)
    exact = Decimal(repr(float(value)))
    unit = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return float(exact.quantize(unit, rounding=ROUND_CEILING))


def format_epsilon(value: float) -> str:
    """Epsilon as it is printed: rounded up, four significant digits ("8.000")."""
    rounded = round_up(value)
    if math.isinf(rounded):
        return "infinite"
    if rounded == 0:
        return "0.000"
    if rounded >= 1000:
        return f"{rounded:,.0f}"
    decimals = 3 - Decimal(repr(rounded)).adjusted()
    return f"{rounded:.{decimals}f}"


def format_delta(delta: float) -> str:
    """Delta as it is printed, without loss ("1e-5")."""
    exact = Decimal(repr(float(delta)))
    exponent = exact.adjusted()
    return f"{exact.scaleb(-exponent).normalize():f}e{exponent}"


def format_percent(share: float) -> str:
    """A share as a percentage, rounded up to two decimals ("37.42 %")."""
    hundredths = Decimal(repr(float(share))).scaleb(2)
    return f"{hundredths.quantize(Decimal('0.01'), rounding=ROUND_CEILING)} %"


def relation_words(relation: str, unit: str) -> str:
    """The neighbouring relation in words, for a unit of privacy."""
    return RELATIONS[relation].format(unit=UNITS[unit])


def claim_sentence(
    *, epsilon: float, delta: float, unit: str, relation: str, images: int
) -> str:
    """The claim in one sentence: ε, δ, the unit, the relation, what is released."""
    return (
        f"The {images:,} synthetic images of this release were made with (ε, δ)-"
        f"differential privacy, ε = {format_epsilon(epsilon)} and δ = "
        f"{format_delta(delta)}, where the unit of privacy is one {UNITS[unit]} and "
        f"the neighbouring relation is {relation.replace('_', ' ')} "
        f"({relation_words(relation, unit)}); the bound covers these images and this "
        "report but for its field 49, which tells of other runs, and nothing else."
    )


def stated_claim(audit: Mapping[str, Any]) -> str:
    """The claim sentence that the numbers of an audit document call for.

    Raises:
        KeyError, TypeError, ValueError: If the document lacks the numbers.
    """
    if audit.get("stamp") == NO_PRIVACY:
        return (
            f"{NO_PRIVACY}: the random numbers of this run were fixed in advance, so "
            "no bound is claimed for it."
        )
    return claim_sentence(
        epsilon=float(audit["epsilon_claimed"]),
        delta=float(audit["delta"]),
        unit=audit["unit_of_privacy"]["unit"],
        relation=audit["neighbouring_relation"]["relation"],
        images=int(audit["product"]["images"]),
    )


def epsilon_scale(epsilon: float) -> str:
    """Where an ε stands on the scale of NIST SP 800-226, in its own words."""
    if epsilon <= 1:
        return "NIST SP 800-226 calls ε of at most 1 strong in most cases."
    if epsilon <= 20:
        return (
            "NIST SP 800-226 calls ε of at most 1 strong in most cases and says that "
            "values between 1 and 20 are used in practice; this release is in the "
            "second range."
        )
    return (
        "NIST SP 800-226 says that a large ε may not be meaningful; this release is "
        "above 20, the largest value it describes as used in practice."
    )
