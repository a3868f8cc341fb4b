"""Numbers of a document that anyone may have written: as they are, or not at all.

`int(1.9)` and `int(True)` are both 1: a number that changes while it is read is not the
one that the recipient sees.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_LARGEST = 1e300
_FRACTION = re.compile(r"[0-9]{1,400}(?:/[0-9]{1,400})?")
"""A power of ten would be a number with more digits than any machine can hold."""


class MalformedError(ValueError):
    """A document says what cannot be; the message is one sentence for its reader."""


def whole(value: Any, name: str, least: int = 0) -> int:
    """A whole number; neither 1.0 nor true is one.

    Raises:
        MalformedError: If it is none, or below `least`.
    """
    if type(value) is not int or value < least:
        raise MalformedError(
            f"“{name}” of audit.json is not a whole number from {least} up."
        )
    return value


def real(value: Any, name: str) -> float:
    """A finite number, whole or not.

    Raises:
        MalformedError: If it is none.
    """
    if type(value) not in (int, float) or not abs(value) < _LARGEST:
        raise MalformedError(f"“{name}” of audit.json is not a finite number.")
    return value


def bound(value: Any, name: str) -> float:
    """A bound: a finite number, or the word for an infinite one.

    Raises:
        MalformedError: If it is neither.
    """
    return float("inf") if value == "infinite" else real(value, name)


def fraction(value: Any, name: str) -> float:
    """A number written as a fraction of whole numbers ("1/20").

    Raises:
        MalformedError: If it is written otherwise, or divides by zero.
    """
    if type(value) is not str or not _FRACTION.fullmatch(value):
        raise MalformedError(f"“{name}” of audit.json is not a fraction of numbers.")
    try:
        return float(Fraction(value))
    except ArithmeticError:
        raise MalformedError(f"“{name}” of audit.json is a fraction of zero.") from None
