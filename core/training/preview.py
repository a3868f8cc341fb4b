"""What a budget would mean, before any of it is spent. Reads no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import Budget, UnitKind
from core.privacy.comparison import other_unit_epsilon
from core.training.binding import bind, charges_of, features_share
from core.training.forecast import (
    matching_seconds,
    moments_seconds,
    refining_seconds,
    sampling_seconds,
    teaching_seconds,
    training_seconds,
    workload,
)
from core.training.plan import promise
from core.training.recipe import Recipe
from core.training.wishes import (
    DEFAULT_DECLARED,
    changes_to_recipe,
    declared_count,
    read_budget,
    read_recipe,
    starting_card,
)
from core.workspace import Project

CURVE_POINTS = 10
GROUPS = (2, 5, 20)
"""Images of one patient for whom a bound on images is also worked out."""
HIGH_EPSILON = 10.0
PREVIEW_CLASSES = 10
"""Assumed before any are declared. Whether there are cells within them, and how long it
takes to draw, hang on it; the bound does not."""


@dataclass(frozen=True, kw_only=True)
class BudgetPreview:
    """What the budget page shows.

    Attributes:
        noise_multiplier: σ of the DP-SGD steps, or of the noisy covariances where
            there are none.
        epsilon_curve: (step, ε charged after it) from 0 to the last step.
        steps, expected_batch, sampling_probability: Of the mechanism.
        forecast_seconds: Fine-tuning and sampling on this machine as it is now.
        sentence: The promise in plain words.
        others: What the same noise gives the unit that was not chosen: for whom, and
            its ε, an upper bound too; infinity when nothing bounds it.
        warnings: What the custodian should think about, one sentence each.
    """

    noise_multiplier: float
    epsilon_curve: tuple[tuple[int, float], ...]
    steps: int
    expected_batch: float
    sampling_probability: float
    forecast_seconds: float
    sentence: str
    others: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...]

    def figures(self) -> str:
        """The mechanism in one line, for people who know it."""
        minutes = f"about {self.forecast_seconds / 60:.0f} minutes on this machine"
        if not self.steps:
            return (
                f"noise multiplier {self.noise_multiplier:.4f} of the noisy "
                f"covariances, no network is trained, {minutes}"
            )
        return (
            f"noise multiplier {self.noise_multiplier:.4f}, {self.steps} steps of "
            f"{self.expected_batch:g} expected records (q = "
            f"{self.sampling_probability:.5g}), {minutes}"
        )


def preview(project: Project, *, channels: int = 3) -> BudgetPreview:
    """Calibrate the noise for these wishes and say what they mean.

    Args:
        channels: Of the images, where that is known: the layout of a folder may say
            that they are grey when the project does not.

    Raises:
        UserError: when a field is out of range, or the fields do not fit together.
    """
    budget, recipe = read_budget(project), read_recipe(project)
    declared = declared_count(project)
    mechanism, *released = bind(budget, declared, recipe, _classes(project))
    if mechanism is None:
        charges = charges_of(None, *released)
        return _without_network(project, budget, recipe, charges, channels)
    card = starting_card(project, recipe)
    *releases, _ = charges_of(mechanism, *released)
    points = sorted(
        {round(mechanism.steps * k / CURVE_POINTS) for k in range(CURVE_POINTS + 1)}
    )
    curve = tuple(
        (
            step,
            epsilon((*releases, mechanism.charge(step)), budget.delta, budget.relation),
        )
        for step in points
    )
    limit = budget.unit.max_images_per_unit
    work = workload(card, recipe, limit, project.device)
    return BudgetPreview(
        noise_multiplier=mechanism.noise_multiplier,
        epsilon_curve=curve,
        steps=mechanism.steps,
        expected_batch=mechanism.divisor,
        sampling_probability=mechanism.sampling_probability,
        forecast_seconds=training_seconds(work, recipe)
        + sampling_seconds(work, recipe, _classes(project))
        + _looking_seconds(teaching_seconds, project, recipe, channels),
        sentence=promise(budget, declared),
        others=_others(
            budget, declared, (*releases, mechanism.charge(mechanism.steps))
        ),
        warnings=_warnings(project, recipe.steps),
    )


def _classes(project: Project) -> int:
    """As many as the custodian confirmed, never as many as were found."""
    return len(project.classes) or PREVIEW_CLASSES


def _without_network(
    project: Project, budget: Budget, recipe: Recipe, charges: tuple[Charge, ...],
    channels: int,
) -> BudgetPreview:  # fmt: skip
    """Of a recipe that draws its pictures from the moments: releases, and no steps."""
    declared, classes = declared_count(project), _classes(project)
    spent = epsilon(charges, budget.delta, budget.relation)
    seconds = _looking_seconds(teaching_seconds, project, recipe, channels)
    seconds += moments_seconds(recipe, classes)
    if features_share(recipe, declared, classes):
        seconds += _looking_seconds(matching_seconds, project, recipe, channels)
    if recipe.starts_from_checkpoint:
        folder = starting_card(project, recipe).folder
        seconds += refining_seconds(recipe, folder, classes, project.device)
    return BudgetPreview(
        noise_multiplier=charges[1].noise_multiplier,
        epsilon_curve=((0, spent),),
        steps=0,
        expected_batch=float(declared),
        sampling_probability=1.0,
        forecast_seconds=seconds,
        sentence=promise(budget, declared),
        others=_others(budget, declared, charges),
        warnings=_warnings(project, None),
    )


def _looking_seconds(
    seconds: Callable[..., float], project: Project, recipe: Recipe, channels: int
) -> float:
    """Of what looks at every private image: the teacher, or the features."""
    return seconds(
        recipe,
        images=declared_count(project) * read_budget(project).unit.max_images_per_unit,
        resolution=project.resolution,
        channels=1 if project.grey else channels,
        classes=_classes(project),
        device=project.device,
    )


def _others(
    budget: Budget, declared: int, charges: tuple[Charge, ...]
) -> tuple[tuple[str, float], ...]:
    kind = budget.unit.kind
    groups = {1: "one image of a patient"}
    if kind is UnitKind.IMAGE:
        groups = {size: f"a patient with {size} images" for size in GROUPS}
    return tuple(
        (
            whom,
            other_unit_epsilon(charges, kind, size, budget.delta, budget.relation),
        )
        for size, whom in groups.items()
        if size < declared
    )


def _warnings(project: Project, steps: int | None) -> tuple[str, ...]:
    found = []
    if project.declared_count is None:
        found.append(
            f"No public number of records is declared yet: {DEFAULT_DECLARED:,} is "
            "assumed here."
        )
    found += changes_to_recipe(project)
    if project.epsilon > HIGH_EPSILON:
        found.append(
            f"ε = {project.epsilon:g} is above what published work uses: the bound "
            "then says little about one person."
        )
    elif project.epsilon >= 5:
        found.append(
            f"ε = {project.epsilon:g} is in the upper range of published work: the "
            "images will be more useful, the bound weaker."
        )
    if project.unit == UnitKind.IMAGE.value:
        found.append(
            "The bound protects one image. A patient with several images is protected "
            "less: choose the patient as the unit when you know who is who."
        )
    if steps is not None and steps < 20:
        found.append(
            f"{steps} steps are few: the images may stay close to public ones."
        )
    return tuple(found)
