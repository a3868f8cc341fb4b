"""What is promised, for whom, and against which change of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from core.errors import UserError

LARGEST_EPSILON = 1000.0
"""Far above what bounds anything for anyone, and within what can be accounted."""

SMALLEST_DELTA = 1e-14
"""Far below one over the number of all people. The accountant leaves out tails of 1e-15
and adds them to δ, so that no noise would be enough below that."""


class UnitKind(Enum):
    """Whose contribution the bound covers."""

    IMAGE = "image"
    PATIENT = "patient"
    """All images that the grouping column gives one patient."""


@dataclass(frozen=True, kw_only=True)
class PrivacyUnit:
    """The protected record.

    Attributes:
        kind: An image, or everything of one patient.
        max_images_per_unit: At most so many images of a unit are looked at in a step;
            1 for images.

    Raises:
        UserError: when `max_images_per_unit` is below 1, or not 1 for images.
    """

    kind: UnitKind = UnitKind.IMAGE
    max_images_per_unit: int = 1

    def __post_init__(self) -> None:
        if self.max_images_per_unit < 1:
            raise UserError("The images per patient must be 1 or more.")
        if self.kind is UnitKind.IMAGE and self.max_images_per_unit != 1:
            raise UserError(
                "When the unit of protection is the image, images per unit must be 1; "
                "choose the patient as the unit to protect several images together."
            )


class Relation(Enum):
    """Which two data sets count as neighbours."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    """They differ by the presence of one unit."""

    REPLACE_SPECIAL = "replace_special"
    """One unit is blanked out."""

    REPLACE_ONE = "replace_one"
    """One unit is exchanged for another; about twice the ε of the first."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The bound that the custodian commits to.

    Attributes:
        epsilon: ε > 0.
        delta: 0 < δ < 1; `check_delta` compares it with the declared count.
        unit: Whom it covers.
        relation: Against which change.

    Raises:
        UserError: when ε or δ is out of range.
    """

    epsilon: float
    delta: float
    unit: PrivacyUnit
    relation: Relation

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise UserError(
                f"epsilon must be a number above 0, not {self.epsilon:g}: 1 is strict, "
                "10 is what published work uses."
            )
        if self.epsilon > LARGEST_EPSILON:
            raise UserError(
                f"epsilon = {self.epsilon:g} bounds nothing for anyone: take 10 or "
                "less."
            )
        if not 0 < self.delta < 1:
            raise UserError(
                f"delta must lie between 0 and 1, not {self.delta:g}: take a power of "
                "ten below one over the number of records, such as 1e-5."
            )
        if self.delta < SMALLEST_DELTA:
            raise UserError(
                f"delta = {self.delta:g} is smaller than can be worked with: take a "
                "power of ten below one over the number of records, such as 1e-5."
            )

    def check_delta(self, declared_count: int) -> None:
        """Refuse a δ that would permit publishing one record outright.

        Raises:
            UserError: when δ ≥ 1 / `declared_count`.
        """
        if self.delta >= 1 / declared_count:
            raise UserError(
                f"delta = {self.delta:g} is too large for {declared_count:,} records: "
                f"it must be below 1/{declared_count:,}; take "
                f"{suggested_delta(declared_count):g}."
            )


def suggested_delta(declared_count: int) -> float:
    """The customary 1e-5, or where it is smaller, a power of ten of at most 1/(10 N).

    >>> suggested_delta(60_000), suggested_delta(400)
    (1e-06, 1e-05)
    """
    # The first power of ten that is 10 N or more, in whole numbers.
    exponent = len(str(10 * declared_count - 1))
    return float(f"1e-{max(5, exponent)}")


def times(value: float) -> str:
    """e to the power ε, the factor that ε stands for, rounded up to four digits.

    >>> times(10.0), times(1.0), times(50.0)
    ('22,030', '2.719', '10^22')
    """
    power = value / math.log(10)
    if power > 12:
        return f"10^{math.ceil(power)}"
    digits = 3 - math.floor(power)
    rounded = math.ceil(round(math.exp(value) * 10.0**digits, 6)) / 10.0**digits
    return f"{rounded:,.{max(digits, 0)}f}"
