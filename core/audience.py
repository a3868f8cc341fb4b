"""Who may see a figure: a type, so that the release writer can refuse the wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Audience(Enum):
    """Rule 6: two audiences, never mixed."""

    RELEASABLE = "releasable"
    """Configuration, public constants and outputs of the private mechanism."""

    INTERNAL = "internal"
    """Computed on private records outside the mechanism: must stay inside."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a report, with who may see it.

    Attributes:
        name: What it is, in words ("accuracy on real held-out images").
        value: The number, in the unit that the name states.
        audience: Whether it may leave the house.
        note: What the reader must know to read it rightly.
    """

    name: str
    value: float
    audience: Audience
    note: str = ""
