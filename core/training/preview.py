"""What a budget would mean, before any of it is spent. Reads no data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from core.bundled import recipe_names
from core.checkpoints.cards import CheckpointCard
from core.diffusion.presets import PRESETS
from core.diffusion.process import check_process
from core.errors import UserError
from core.privacy.accounting import Charge, epsilon, privacy_loss
from core.privacy.budget import Budget, UnitKind, suggested_delta
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
from core.training.recipe_loading import load_recipe
from core.training.wishes import (
    DEFAULT_DECLARED,
    better_kind,
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
CUSTOMARY_SHARE = 0.1
"""What δ times the number of records is at most, by custom."""
FALSE_ALARMS = 0.01
"""Share of wrong accusations among those whose records were not used."""
FEW_KIND = "few"
"""The recipe that is advised for few records."""
POINTS_OF_PROFILE = 401
PREVIEW_CLASSES = 10
"""Assumed before any are declared. Whether there are cells within them, and how long it
takes to draw, hang on it; the bound does not."""


@dataclass(frozen=True, kw_only=True)
class Chances:
    """The best that anyone can do who asks whether one unit was used.

    Upper bounds, from the whole privacy profile; the report says the same ones.

    Attributes:
        accuracy: Share of right answers over an even mix of used and unused units.
        accusation: Probability that an accusation is right, when it was a coin toss
            before, and 1 % of those that were not used are accused.
    """

    accuracy: float
    accusation: float


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
        others: What the same noise gives patients when images are protected: for whom,
            and the ε, an upper bound too; infinity when nothing bounds it.
        chances: Of an attacker.
        warnings: What the custodian should think about, one sentence each.
        better_kind: The recipe that one of the warnings advises, or empty.
    """

    noise_multiplier: float
    epsilon_curve: tuple[tuple[int, float], ...]
    steps: int
    expected_batch: float
    sampling_probability: float
    forecast_seconds: float
    sentence: str
    others: tuple[tuple[str, float], ...]
    chances: Chances
    warnings: tuple[str, ...]
    better_kind: str

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
    charges = charges_of(mechanism, *released)
    releases = charges[:-1]
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
        others=_others(budget, declared, charges),
        chances=_chances(budget, charges),
        warnings=notes_on(project, recipe.steps),
        better_kind="",
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
        chances=_chances(budget, charges),
        warnings=notes_on(project, None),
        better_kind=FEW_KIND if better_kind(project, recipe) else "",
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
    """Of patients with several images. One image of a protected patient has no row.

    It is within the patient, whom the bound covers as a whole.
    """
    kind = budget.unit.kind
    if kind is UnitKind.PATIENT:
        return ()
    return tuple(
        (
            f"a patient with {size} images",
            other_unit_epsilon(charges, kind, size, budget.delta, budget.relation),
        )
        for size in GROUPS
        if size < declared
    )


def _chances(budget: Budget, charges: tuple[Charge, ...]) -> Chances:
    """As `core.release.bounds` does for the report; a test compares them."""
    loss = privacy_loss(charges, budget.relation)
    spent = math.inf if loss is None else float(loss.epsilons([budget.delta])[0])
    if loss is None or not math.isfinite(spent):
        return Chances(accuracy=1.0, accusation=1.0)
    # Each ε bounds the trade-off of misses and false alarms by itself.
    points = np.linspace(0, spent, POINTS_OF_PROFILE)
    kept = 1 - loss.deltas(points)
    missed = max(
        0.0,
        float(np.max(kept - np.exp(points) * FALSE_ALARMS)),
        float(np.max(np.exp(-points) * (kept - FALSE_ALARMS))),
    )
    found = 1 - missed
    return Chances(
        accuracy=1 - float(kept[0]) / 2, accusation=found / (found + FALSE_ALARMS)
    )


def unfit_recipes(project: Project, cards: Iterable[CheckpointCard]) -> dict[str, str]:
    """Name → why, of the bundled recipes that cannot be used with this project."""
    cards, found = tuple(cards), {}
    for name in recipe_names():
        recipe = load_recipe(name)
        side = PRESETS[recipe.network].resolution if recipe.network else None
        if side is not None and side != project.resolution:
            found[name] = _other_size(side, project)
        elif recipe.starts_from_checkpoint and not any(
            not _unfit(project, recipe, card) for card in cards
        ):
            size = f"{project.resolution} × {project.resolution}"
            found[name] = (
                f"Needs a network for {size} pixels that is not on this computer."
            )
    return found


def unfit_checkpoints(
    project: Project, cards: Iterable[CheckpointCard]
) -> dict[str, str]:
    """Name → why, of the checkpoints that the project's recipe cannot start from.

    None when the recipe cannot be read: the preview will say so.
    """
    try:
        recipe = load_recipe(project.recipe)
    except UserError:
        return {}
    reasons = {card.name: _unfit(project, recipe, card) for card in cards}
    return {name: why for name, why in reasons.items() if why}


def _unfit(project: Project, recipe: Recipe, card: CheckpointCard) -> str:
    """Why a recipe cannot start from a checkpoint; empty when it can."""
    # PRIVACY: the model of another project is locked, whatever its size.
    if card.is_private:
        return (
            "Has learnt from private images, so it is not public: choose the "
            f"checkpoint that it was trained from, {card.began_as!r}."
        )
    if card.resolution != project.resolution:
        return _other_size(card.resolution, project)
    try:
        check_process(card.name, card.parameterisation, recipe.parameterisation)
    except UserError:
        return "The kind of images that is chosen needs a network of another sort."
    return ""


def _other_size(side: int, project: Project) -> str:
    return (
        f"Draws {side} × {side} pixels; this project has "
        f"{project.resolution} × {project.resolution}."
    )


def notes_on(project: Project, steps: int | None) -> tuple[str, ...]:
    """What somebody should know of the wishes before anything is spent.

    Args:
        project: The wishes.
        steps: Of DP-SGD; None where no network is trained.
    """
    found = []
    if project.declared_count is None:
        found.append(
            f"No public number of records is declared yet: {DEFAULT_DECLARED:,} is "
            "assumed here."
        )
    number = declared_count(project)
    if project.delta > CUSTOMARY_SHARE / number:
        found.append(
            f"δ = {_short(project.delta)} is above the customary limit of 1/(10 × "
            f"{number:,}) = {_short(CUSTOMARY_SHARE / number)}, and the report will "
            f"say so: type {_short(suggested_delta(number))} or less."
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
            "far less: choose the patient as the unit when you know who is who."
        )
    if steps is not None and steps < 20:
        found.append(
            f"{steps} steps are few: the images may stay close to public ones."
        )
    return tuple(found)


def _short(delta: float) -> str:
    """
    >>> _short(0.001), _short(0.0002), _short(1e-5)
    ('1e-3', '2e-4', '1e-5')
    """
    mantissa, exponent = f"{delta:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
