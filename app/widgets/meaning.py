"""What a budget means for one person, in figures that the report repeats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from app.widgets.text import Facts
from app.words import epsilon, percent
from core.privacy.budget import times

if TYPE_CHECKING:
    from core.pipeline import BudgetPreview
    from core.workspace import Project

WEAK_EPSILON = 20.0
"""Above, a bound on one person says next to nothing."""


class BudgetFacts(Facts):
    """Facts about a budget; those on its meaning are the same on every page."""

    def meaning(
        self, preview: BudgetPreview, project: Project
    ) -> tuple[tuple[str, str], ...]:
        """How far one unit can matter, and how often an attacker can be right."""
        patient = project.unit == "patient"
        unit = self.tr("patient") if patient else self.tr("image")
        return (
            (
                self.tr("What ε = {epsilon} allows").format(
                    epsilon=epsilon(project.epsilon)
                ),
                self.tr(
                    "One {unit} may make any outcome up to {times} times as likely, "
                    "or as unlikely (e to the power {epsilon})."
                ).format(
                    unit=unit,
                    times=times(project.epsilon),
                    epsilon=epsilon(project.epsilon),
                ),
            ),
            (
                self.tr("Guessing who was used"),
                self.tr(
                    "Whoever guesses whether one {unit} was used is right in at most "
                    "{share} of the cases. A coin is right in 50 %."
                ).format(unit=unit, share=percent(preview.chances.accuracy)),
            ),
            (
                self.tr("Accusing someone"),
                self.tr(
                    "Whoever says “this {unit} was used”, and says so wrongly of 1 % "
                    "of those that were not, is right with a chance of at most "
                    "{share}, if it was 50 % before."
                ).format(unit=unit, share=percent(preview.chances.accusation)),
            ),
            (self.tr("The bound for others"), _others(preview)),
        )


def _others(preview: BudgetPreview) -> str:
    """What patients get of a bound on images, so that a weak choice is seen."""
    return "\n".join(f"{whom}: {_strength(value)}" for whom, value in preview.others)


def _strength(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    if value > WEAK_EPSILON:
        return f"practically none (ε = {math.ceil(value):,})"
    return f"ε = {epsilon(value)}"
