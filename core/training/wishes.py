"""From a project's wishes to a budget, a recipe and the network it starts from."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields, replace
from enum import Enum
from typing import Any, TypeVar

from core.bundled import recipe_titles
from core.checkpoints.cards import (
    CONFIG,
    OVERLAP_ANSWERS,
    CheckpointCard,
    refuse_exchanged,
    refuse_private,
)
from core.checkpoints.catalogue import find
from core.checkpoints.scratch import PREFIX, is_scratch
from core.diffusion.process import check_process
from core.errors import UserError
from core.files import sha256
from core.privacy.budget import Budget, PrivacyUnit, Relation, UnitKind
from core.recipe_files import check_wishes
from core.training.recipe import MOMENTS, Recipe
from core.training.recipe_loading import load_recipe
from core.workspace import Project

K = TypeVar("K", bound=Enum)

DEFAULT_DECLARED = 10_000
"""What a preview assumes before a number was declared."""

FEW = 3000
"""Records per class times ε. With 450 the recipe few taught a classifier more than
useful (MNIST, Fashion-MNIST), with 4,500 both alike (the README has the figures)."""

LARGEST_BATCH = 0.4
"""Of the declared number: what a recipe's own batch is at most. Enough for the largest
published, 16,384 of 45,000 images (0.364; Ghalebikesabi et al. 2023, CIFAR-10)."""


def read_budget(project: Project) -> Budget:
    """The budget of a project.

    Raises:
        UserError: when a field is out of range.
    """
    kind = _known(UnitKind, "unit", project.unit)
    unit = PrivacyUnit(kind=kind, max_images_per_unit=project.max_images_per_unit)
    return Budget(
        epsilon=float(project.epsilon),
        delta=float(project.delta),
        unit=unit,
        relation=_known(Relation, "relation", project.relation),
    )


def _known(kind: type[K], what: str, name: str) -> K:
    """The member of that name."""
    try:
        return kind(name)
    except ValueError:
        *others, last = (member.value for member in kind)
        raise UserError(
            f"The {what} {name!r} is unknown: use {', '.join(others)} or {last}."
        ) from None


def read_recipe(project: Project) -> Recipe:
    """The recipe of a project, with the project's changes.

    The recipe's fields are those for the project's ε, where it makes a difference.
    Steps and a batch that the project does not name are the recipe's: the steps scaled
    to the project's ε, where the recipe asks for that, and the batch lowered where it
    would be most of a small data set.
    """
    check_wishes({"resolution": project.resolution})
    if declared_count(project) < 2:
        raise UserError("The declared number of records must be 2 or more.")
    _refuse_training_without_network(project)
    recipe = load_recipe(
        project.recipe,
        epsilon=project.epsilon,
        steps=project.steps,
        batch_size=project.batch_size,
        augmentation_multiplicity=project.augmentation_multiplicity,
        images_per_class=project.images_per_class,
    )
    if project.steps is None and recipe.steps_at_epsilon:
        # Read before the budget is checked: an ε that is refused there scales nothing.
        share = max(0.0, project.epsilon) / recipe.steps_at_epsilon
        recipe = replace(recipe, steps=max(1, round(recipe.steps * share)))
    # PRIVACY: fitted to the declared number, never to the number in the folder.
    largest = max(1, int(LARGEST_BATCH * declared_count(project)))
    if recipe.central_share:
        lowered = min(recipe.central_batch, largest)
        recipe = replace(recipe, central_batch=lowered)
    if project.batch_size is not None:
        return recipe
    return replace(recipe, batch_size=min(recipe.batch_size, largest))


def _refuse_training_without_network(project: Project) -> None:
    """Blame the wish, not the recipe, for what only a network could do."""
    wished = {
        "the steps (--steps)": project.steps,
        "the batch size (--batch-size)": project.batch_size,
        "the number of views (--augmentation-multiplicity)": (
            project.augmentation_multiplicity
        ),
    }
    named = [name for name, value in wished.items() if value is not None]
    if named and load_recipe(project.recipe).pictures == MOMENTS:
        raise UserError(
            f"The recipe {project.recipe} trains no network: leave out "
            f"{' and '.join(named)}, or choose another recipe."
        )


def changes_to_recipe(project: Project) -> tuple[str, ...]:
    """What to tell of a recipe whose own numbers do not fit the project."""
    asked = load_recipe(project.recipe, epsilon=project.epsilon)
    found = read_recipe(project)
    told = []
    if asked != load_recipe(project.recipe):
        told.append(
            f"For an ε as small as {project.epsilon:g} this recipe has settings of its "
            "own: they are used."
        )
    if project.batch_size is None and found.batch_size != asked.batch_size:
        told.append(
            f"The recipe's batch of {asked.batch_size:,} is too large for "
            f"{declared_count(project):,} records: {found.batch_size:,} is used."
        )
    if project.steps is None and found.steps != asked.steps:
        told.append(
            f"The recipe's {asked.steps:,} steps are meant for ε = "
            f"{asked.steps_at_epsilon:g}: {found.steps:,} are used."
        )
    if found.network:
        told.append(
            "This recipe starts from nothing: no checkpoint is used, whichever was "
            "chosen."
        )
    if found.pictures == MOMENTS:
        told.append(
            "This recipe draws its pictures from noisy statistics, and the network of "
            "the checkpoint cleans them: it is not trained."
            if found.refine_sigma
            else "This recipe draws its pictures from noisy statistics: no network is "
            "trained, and no checkpoint used, whichever was chosen. They are rough, "
            "and blurred where ε is small or images are few."
        )
    return (*told, *better_kind(project, found))


def better_kind(project: Project, recipe: Recipe) -> tuple[str, ...]:
    """What measured better for so few records under so strict a bound."""
    if recipe.pictures != MOMENTS or recipe.refine_sigma or not project.classes:
        return ()
    records = declared_count(project) // len(project.classes)
    if records * project.epsilon >= FEW:
        return ()
    return (
        f"With about {records:,} records a class and ε = {project.epsilon:g}, most of "
        f'what this recipe draws is noise. The kind "{recipe_titles()["few"]}" (recipe '
        "few) taught classifiers more when we measured both.",
    )


def declared_count(project: Project) -> int:
    """The public number of records, or what a preview assumes."""
    given = project.declared_count
    return DEFAULT_DECLARED if given is None else given


def starting_card(project: Project, recipe: Recipe) -> CheckpointCard:
    """The card of what the training starts from: a checkpoint, or random weights.

    Raises:
        UserError: when there is no such checkpoint, private images trained it, it may
            have been trained on these people, or it fits neither the recipe nor the
            project's resolution.
    """
    if recipe.network:
        card = find(f"{PREFIX}{recipe.network}-{recipe.parameterisation}")
    else:
        card = find(project.checkpoint)
        if told_overlap(project, card)[0] == "yes":
            raise UserError(
                f"The checkpoint {card.name!r} may have been trained on these people, "
                "so no bound would hold for them: choose another checkpoint, or a kind "
                "of images (recipe) that uses none."
            )
    # PRIVACY: another run was charged for what it knows; this one's claim would not
    # count it.
    refuse_private(card)
    check_process(card.name, card.parameterisation, recipe.parameterisation)
    if card.resolution != project.resolution:
        what = "The recipe's network" if recipe.network else f"Checkpoint {card.name!r}"
        raise UserError(
            f"{what} works at {card.resolution} pixels per side, the project at "
            f"{project.resolution}: set the project's resolution to {card.resolution} "
            "(--resolution), or choose another."
        )
    if recipe.crop >= card.resolution:
        raise UserError(
            f"The recipe shifts views by up to {recipe.crop} pixels, more than images "
            f"of {card.resolution} have: lower its crop."
        )
    config = card.folder / CONFIG
    if card.config_sha256 or not config.is_file():
        return card
    # A card of an older version does not say it; a plan does.
    return replace(card, config_sha256=sha256(config))


def told_overlap(project: Project, card: CheckpointCard) -> tuple[str, str]:
    """Whether the checkpoint could contain the protected people, and why.

    The project's answer, as one given at the import may be of other people; of random
    weights it is known. ("", "") when it was not given.

    Raises:
        UserError: when the answer is none.
    """
    # PRIVACY: no bound counts what a network knew of these people before.
    if is_scratch(card.name):
        return card.overlap, card.overlap_reason
    if project.overlap_answer not in ("", *OVERLAP_ANSWERS):
        raise UserError(
            f"The answer {project.overlap_answer!r} to whether the checkpoint could "
            "have been trained on these people is unknown: use "
            f"{', '.join(OVERLAP_ANSWERS)}."
        )
    return project.overlap_answer, project.overlap_reason


def refuse_unanswered(project: Project, card: CheckpointCard) -> None:
    """Refuse a network of which nobody said whether it could know the people.

    Raises:
        UserError: then.
    """
    if not told_overlap(project, card)[0]:
        raise UserError(
            f"Say whether the checkpoint {card.name!r} could have been trained on "
            "these people (--overlap-answer no, unsure or yes): no bound counts what "
            "it knew before; it was trained on: "
            + card.pretraining_data.rstrip(".")
            + "."
        )


def asked_about(
    project: Project, card: CheckpointCard | None, kept: dict[str, Any]
) -> dict[str, list[str]]:
    """The networks that a project was planned with so far, and this one.

    What was said of one does not hold for another that took its place, also when other
    plans were made in between.

    Args:
        project: Names the network of `card`, which is None where it uses none.
        kept: The facts of the plan before, {} without one; an older version kept no
            list, but the plan.

    Returns:
        What the project calls each → the digests of its weights and its config.

    Raises:
        UserError: when another one is called so by now.
    """
    asked = dict(kept.get("asked", ()))
    before = kept.get("plan", {}).get("checkpoint")
    if before and not is_scratch(before["name"]):
        name = kept["wishes"]["checkpoint"]
        asked.setdefault(name, [before["sha256"], before.get("config_sha256", "")])
    if card is None or is_scratch(card.name):
        return asked
    # PRIVACY: an answer is about the weights that it was given for.
    if project.checkpoint in asked:
        refuse_exchanged(card, *asked[project.checkpoint])
    return asked | {project.checkpoint: [card.sha256, card.config_sha256]}


def answered_late(before: dict[str, Any], wishes: dict[str, Any]) -> bool:
    """Whether a plan of an older version, made without an answer, is given one."""
    answers = before["overlap_answer"], wishes["overlap_answer"]
    return answers[0] == "" and answers[1] in ("no", "unsure")


def refuse_unconfirmed(project: Project, class_names: tuple[str, ...]) -> None:
    """Refuse a list of classes that the custodian has not confirmed name by name.

    Args:
        class_names: Those that training would learn, or has learnt.

    Raises:
        UserError: when the project does not name exactly these.
    """
    # PRIVACY: the release names the classes, so they must not follow from the folder:
    # one image in a folder of its own would add one.
    if set(project.classes) == set(class_names):
        return
    found = ", ".join(class_names)
    how = f'--classes "{";".join(class_names)}"'
    if any(";" in name or '"' in name for name in class_names):
        how = "the list classes = [...] of a project file, --config"
    raise UserError(
        f"Nobody has confirmed the classes found ({found}), and the release will name "
        f"each of them: declare those that may be published with {how}."
    )


FREE_WISHES = ("images_per_class", "title", "device", "source", "classes", "cache",
               "overlap_reason")  # fmt: skip
"""What may change after training without a new run and a new expense.

Other classes make another fingerprint; the same ones confirmed make none.
"""


def binding_wishes(project: Project) -> dict[str, Any]:
    """The wishes that make another run, when they change."""
    return {k: v for k, v in asdict(project).items() if k not in FREE_WISHES}


def as_planned(project: Project, kept: dict[str, Any]) -> Project:
    """The project under the wishes that its plan was made and paid for with.

    Those of today may be others: they were tried, and refused.
    """
    binding = binding_wishes(project)
    before = wishes_before(kept)
    if answered_late(before, binding):
        before["overlap_answer"] = project.overlap_answer
    return replace(project, **{name: before[name] for name in binding})


_FREE = ("name", "title", "needs", "images_per_class")


def recipe_wishes(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe makes another run, as JSON types, by names for people.

    So that an edited recipe file is noticed. Its names and the number of images may
    change at no expense.
    """
    found = {
        f"recipe's {field.name.replace('_', ' ')}": getattr(recipe, field.name)
        for field in fields(Recipe)
        if field.name not in _FREE
    }
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
    }


def wishes_before(kept: dict[str, Any]) -> dict[str, Any]:
    """The wishes that an older version kept, with those that it did not know.

    A field that came later is at the default that leaves everything as it was.
    """
    defaults = {
        f"recipe's {field.name.replace('_', ' ')}": field.default
        for field in fields(Recipe)
        if field.default is not MISSING and field.name not in _FREE
    }
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    return asdict(Project()) | plain | kept
