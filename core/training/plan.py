"""Where dataset facts, checkpoint, recipe and budget meet and become a mechanism."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import asdict, dataclass, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from core.checkpoints.cards import CheckpointCard
from core.data.dataset import shown
from core.errors import UserError
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import Budget, PrivacyUnit, Relation, UnitKind, times
from core.privacy.lifetime import DIGITS, GROUPED_BY
from core.privacy.mechanism import Mechanism
from core.privacy.second_opinion import second_epsilon
from core.training.binding import bind, charges_of, counted
from core.training.central import CentralRelease
from core.training.features import check_resolution
from core.training.moments import MomentRelease
from core.training.recipe import NETWORK, Recipe
from core.training.teacher import TeacherRelease
from core.training.wishes import (
    read_budget,
    read_recipe,
    refuse_unanswered,
    starting_card,
)
from core.workspace import Project


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training run, bound to its privacy mechanism; all but one field are public.

    Attributes:
        run: Identity of the run in the ledger.
        budget: What was committed.
        declared_count: Public upper bound on the number of units.
        recipe: All hyper-parameters.
        checkpoint: The card of the public starting point; None without a network.
        class_names: Declared labels.
        image_channels: 1 for grey images, 3 for colour.
        resolution: Pixels per side.
        mechanism: DP-SGD; None where the pictures are drawn from the moments.
        moments: The noisy class moments, None without.
        epsilon: ε of all of it at the fine discretisation, ≤ budget.epsilon.
        central: The central images, None without.
        teacher: The private teacher, None without.
        unit_column: What names the patient, the custodian's own word; "" where each
            image is a unit, or where an older version did not keep it.
        membership: Which images it gives to one patient: the first digits of the data
            set's; "" as there. Stays inside.
    """

    run: str
    budget: Budget
    declared_count: int
    recipe: Recipe
    checkpoint: CheckpointCard | None
    class_names: tuple[str, ...]
    image_channels: int
    resolution: int
    mechanism: Mechanism | None
    moments: MomentRelease | None
    epsilon: float
    central: CentralRelease | None = None
    teacher: TeacherRelease | None = None
    unit_column: str = ""
    membership: str = ""

    @property
    def terms(self) -> str:
        """Unit and relation, as the ledger writes them."""
        return terms(self.budget, self.unit_column, self.membership)

    def charges(self) -> tuple[Charge, ...]:
        """Everything that the run may do to the data, in order."""
        return charges_of(self.mechanism, self.moments, self.central, self.teacher)

    def steps_among(self, charges: Iterable[Charge]) -> int:
        """How many DP-SGD steps of this plan there are among charges to its run."""
        if self.mechanism is None:
            return 0
        return counted(charges, self.mechanism.charge(1))

    @property
    def steps(self) -> int:
        """T, the committed DP-SGD steps."""
        return 0 if self.mechanism is None else self.mechanism.steps

    def of_size(self, images_per_class: int) -> Plan:
        """The same plan for another number of synthetic images, which costs nothing."""
        recipe = replace(self.recipe, images_per_class=images_per_class)
        return replace(self, recipe=recipe)

    def sentence(self) -> str:
        """What the custodian reads before spending anything."""
        return promise(self.budget, self.declared_count)


def started_from(plan: Plan) -> CheckpointCard:
    """The card of the network that a plan uses; only asked where there is one."""
    assert plan.checkpoint is not None
    return plan.checkpoint


def terms(budget: Budget, unit_column: str = "", membership: str = "") -> str:
    """Unit and relation, as the ledger writes them."""
    unit, about = budget.unit, ""
    if _is_patient(unit):
        # Nobody knows that the groups of one column are those of another, or of the
        # same once the table was corrected.
        by = f", {GROUPED_BY}{shown(unit_column)}" if unit_column else ""
        by += f" [{membership}]" if by and membership else ""
        about = f" (at most {unit.max_images_per_unit}{by})"
    return f"{unit.kind.value}{about}, {budget.relation.value}"


def promise(budget: Budget, declared_count: int) -> str:
    """The bound in one sentence."""
    who = "every image of one patient" if _is_patient(budget.unit) else "one image"
    changed = {
        Relation.ADD_OR_REMOVE_ONE: "adding or removing",
        Relation.REPLACE_SPECIAL: "blanking out",
        Relation.REPLACE_ONE: "exchanging",
    }[budget.relation]
    epsilon_text, delta_text = _exactly(budget.epsilon), _exactly(budget.delta)
    return (
        f"For anyone who sees the release, {changed} {who} changes the probability of "
        f"any outcome by a factor of at most {times(budget.epsilon)} (e to the power "
        f"{epsilon_text}), except with probability {delta_text} (ε = {epsilon_text}, "
        f"δ = {delta_text}, unit: "
        f"{budget.unit.kind.value}, among at most {declared_count:,})."
    )


def _exactly(number: float) -> str:
    """The shortest decimal that gives the number back: a claim is never rounded."""
    short = f"{number:g}"
    text = short if float(short) == number else repr(number)
    return text.replace("e-0", "e-")


def _is_patient(unit: PrivacyUnit) -> bool:
    return unit.kind is UnitKind.PATIENT


def make_plan(
    project: Project,
    *,
    run: str,
    class_names: tuple[str, ...],
    image_channels: int,
    units_present: int,
    unit_column: str = "",
    membership: str = "",
) -> Plan:
    """Bind a project to its mechanism.

    Args:
        unit_column, membership: Those of the data; they count where patients are the
            unit.
        units_present: Private; only compared with the declared count.

    Raises:
        UserError: when anything does not fit together; nothing is spent.
    """
    budget, recipe = read_budget(project), read_recipe(project)
    network = recipe.pictures == NETWORK or recipe.starts_from_checkpoint
    card = starting_card(project, recipe) if network else None
    _refuse_unfit(project, recipe, card, units_present, image_channels)
    assert project.declared_count is not None
    mechanism, moments, central, teacher = bind(
        budget, project.declared_count, recipe, len(class_names)
    )
    charges = charges_of(mechanism, moments, central, teacher)
    return Plan(
        run=run,
        budget=budget,
        declared_count=project.declared_count,
        recipe=recipe,
        checkpoint=card,
        class_names=class_names,
        image_channels=image_channels,
        resolution=project.resolution,
        mechanism=mechanism,
        moments=moments,
        epsilon=_agreed_epsilon(budget, charges),
        central=central,
        teacher=teacher,
        unit_column=unit_column if _is_patient(budget.unit) else "",
        membership=membership[:DIGITS] if _is_patient(budget.unit) else "",
    )


def _refuse_unfit(
    project: Project,
    recipe: Recipe,
    card: CheckpointCard | None,
    units_present: int,
    image_channels: int,
) -> None:
    """Refuse wishes that do not fit the data, or leave out what must be said.

    Raises:
        UserError: for the first of them.
    """
    if project.declared_count is None:
        raise UserError(
            "Declare a public number of records (declared_count, --declared-count): a "
            "figure you are willing to publish, at least as large as the number of "
            f"training {project.unit}s."
        )
    if units_present < 2:
        raise UserError(
            f"Only one {project.unit} is left to train on, and at least two are "
            f"needed: add images of more {project.unit}s."
        )
    if units_present > project.declared_count:
        raise UserError(
            f"The folder holds more training {project.unit}s than the declared "
            f"{project.declared_count:,}: declare a larger public number."
        )
    if recipe.teacher_share or recipe.moment_features_share:
        check_resolution(project.resolution)
    if card and image_channels > card.image_channels:
        raise UserError(
            f"The checkpoint {card.name!r} draws grey images only: declare the images "
            "grey (--grey), or choose another checkpoint."
        )
    if card:
        refuse_unanswered(project, card)


def _agreed_epsilon(budget: Budget, charges: tuple[Charge, ...]) -> float:
    """The larger of what two accountants say, neither above the budget."""
    opinions = (
        epsilon(charges, budget.delta, budget.relation),
        second_epsilon(charges, budget.delta, budget.relation),
    )
    # PRIVACY: a fault in one accountant must not become a claim.
    if not max(opinions) <= budget.epsilon:
        raise RuntimeError(f"the accountants find {opinions}, not {budget.epsilon}")
    return max(opinions)


def plan_facts(plan: Plan) -> dict:
    """The plan as JSON types, for the workspace and the audit."""
    return _plain(asdict(plan)) | {"sentence": plan.sentence()}


def plan_from_facts(facts: dict) -> Plan:
    """The inverse of `plan_facts`, also for the facts of an older version.

    Raises:
        UserError: when they are not those of a plan that this version knows.
    """
    facts = {key: value for key, value in facts.items() if key != "sentence"}
    try:
        return _restored(Plan, facts)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"The project's plan is damaged, or of another version of Sfumato ({error})"
            ": restore it, use that version, or start a new project folder."
        ) from None


def _plain(value: Any) -> Any:
    """`value` as JSON types."""
    match value:
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case tuple() | list():
            return [_plain(inner) for inner in value]
        case Enum():
            return value.value
        case Path():
            return str(value)
    return value


def _restored(kind: Any, value: Any) -> Any:
    """A value of `kind` from JSON types; a field that is not there has its default."""
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: _restored(kinds[name], value[name]) for name in value})
    if get_origin(kind) is types.UnionType:
        inner, _ = get_args(kind)
        return None if value is None else _restored(inner, value)
    if isinstance(kind, type) and issubclass(kind, Enum | Path):
        return kind(value)
    return tuple(value) if get_origin(kind) is tuple else value
