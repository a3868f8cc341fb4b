"""What a run tells the audit document about itself, and the gate it passes through."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.audience import Audience, Figure
from core.errors import UserError
from core.release import wording
from core.release.exact import MalformedError
from core.release.texts import objections

_FORMS = {
    "created_utc": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "tool_version": r"[\w.+!-]{1,40}|not installed",
    "build_hash": "[0-9a-f]{64}",
    "run_id": r"[\w-]{1,64}",
    "colour": "grey|RGB",
}
"""Of the facts that are printed on the first page and have a form of their own."""


class PrivateFigureError(Exception):
    """Something that must stay inside was about to enter a public document: a bug."""


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """What the run knows about itself, all of it releasable (rule 6).

    A fact that is None is not known yet; its field is then listed in the document
    under `not_yet_reported` when the field is a required one.

    Attributes:
        title: Of the report, typed in by the custodian.
        tool_version, versions: Of Sfumato, and package → version.
        build_hash: SHA-256 of the program's own files, as they are installed.
        created_utc: ISO 8601 time, ending in Z.
        run_id: Random name of the run; holds no path and no user name.
        epsilon_committed: ε of the claim: the budget that was committed to.
        delta: δ of the claim, in (0, 1).
        epsilon_charged: ε that the ledger charged this run, ≤ `epsilon_committed`.
        steps_committed, steps_charged, steps_completed: Numbers of DP-SGD steps.
        unit: "image" or "patient".
        max_images_per_unit: Of one unit that enter a step.
        unit_definition: How records are mapped to units, in words.
        relation: A key of `core.release.wording.RELATIONS`.
        events: Every private event of the release as committed, in order:
            {"kind": "gaussian", "noise_multiplier", "count", "what"} or
            {"kind": "truncated_poisson_gaussian", "dataset_size",
            "sampling_probability", "batch_cap", "noise_multiplier", "count", "what"}.
        clip_norm, divisor, expected_batch: Public constants of a step; None where no
            network is trained.
        augmentation_multiplicity: Views per unit, averaged before the clip, or None.
        declared_count: N, the public number of units that the custodian declared.
        accountant: {"name", "version", "discretisation", "estimate"}.
        lifetime_epsilon, lifetime_runs: Over all runs on this dataset, this one too.
        checkpoint: {"name", "licence", "pretraining_data", "sha256",
            "overlap_answer"}, "trained_as": what it predicts, on which schedule, and
            what else is known of where it comes from.
        rng_statement: In words.
        trainable_parameters: Number of network weights that are trained.
        frozen_parts, adapters: Those that are not, and what is trained beside them.
        preprocessing: The ordered per-image transforms.
        ema, learning_rate_schedule: In words or as a mapping.
        sampler: {"name", "steps", "guidance"}, and "churn" where it has that.
        views: How the views of an image differ, in words.
        public_data: Which public images take part in the private steps, in words.
        selection: Which of the images drawn are released under which label, in words;
            None when all are, as they were drawn.
        class_names, images_per_class: Label set, and synthetic images in each class.
        image_size: (height, width) in pixels.
        colour: "grey" or "RGB".
        figures: Further public figures, such as utility on public data.
        fixed_seed: Whether random numbers were fixed in advance: no privacy then.
        ledger: The ledger's head, under a seal.
        units_without_key_policy, contribution_rule, storage: In words.
    """

    title: str
    tool_version: str
    build_hash: str
    versions: Mapping[str, str]
    created_utc: str
    run_id: str
    epsilon_committed: float
    delta: float
    epsilon_charged: float
    steps_committed: int
    steps_charged: int
    unit: str
    max_images_per_unit: int
    unit_definition: str
    relation: str
    events: tuple[Mapping[str, Any], ...]
    clip_norm: float | None
    divisor: float | None
    expected_batch: float | None
    augmentation_multiplicity: int | None
    declared_count: int
    accountant: Mapping[str, Any]
    lifetime_epsilon: float
    lifetime_runs: int
    checkpoint: Mapping[str, Any]
    rng_statement: str
    trainable_parameters: int
    preprocessing: tuple[str, ...]
    ema: Any
    learning_rate_schedule: Any
    sampler: Mapping[str, Any]
    class_names: tuple[str, ...]
    images_per_class: int
    image_size: tuple[int, int]
    colour: str
    steps_completed: int | None = None
    figures: tuple[Figure, ...] = ()
    fixed_seed: bool = False
    ledger: Mapping[str, Any] | None = None
    units_without_key_policy: str | None = None
    contribution_rule: str | None = None
    views: str | None = None
    public_data: str | None = None
    selection: str | None = None
    frozen_parts: str | None = None
    adapters: str | None = None
    storage: str | None = None


def check_facts(facts: AuditFacts) -> None:
    """Refuse facts that would make the document false, before anything is written.

    Raises:
        UserError, PrivateFigureError, ValueError: As `build_audit`.
    """
    plain = releasable(vars(facts))
    check_form(facts)
    check_texts(plain)
    if wording.round_up(facts.epsilon_charged) > wording.round_up(
        facts.epsilon_committed
    ):
        raise UserError(
            "The ledger has charged ε = "
            f"{wording.format_epsilon(facts.epsilon_charged)} to this run, more than "
            f"the {wording.format_epsilon(facts.epsilon_committed)} that the report "
            "would claim: nothing of it can be released, start a new project."
        )


def check_texts(texts: Mapping[str, Any]) -> None:
    """Refuse what no report prints; the names are those of `AuditFacts`.

    Raises:
        UserError: for the first such text.
    """
    for key, wrong in objections(texts):
        name = key.replace("_", " ")
        raise UserError(f"The text of “{name}” {wrong}: change its wording.")
    _check_names(texts["title"], texts["class_names"])


def _check_names(title: str, class_names: Iterable[str]) -> None:
    if not title.strip() or len(title) > 200:
        raise UserError("The title of the report needs 1 to 200 characters.")
    if not all(name.isprintable() for name in (title, *class_names)):
        raise UserError(
            "The title of the report and the class names must be plain text in one "
            "line: take out line breaks and control characters."
        )


def check_form(facts: AuditFacts) -> None:
    """Refuse facts that no report can have, whether told by a run or by a document.

    Raises:
        UserError: If the title or a class name cannot be printed.
        MalformedError: If another fact is not of its form.
    """
    _check_names(facts.title, facts.class_names)
    for name, form in _FORMS.items():
        if not re.fullmatch(form, getattr(facts, name), re.ASCII):
            raise MalformedError(f"“{name}” is not of the form that a report has.")
    if facts.relation not in wording.RELATIONS or facts.unit not in wording.UNITS:
        raise MalformedError("The neighbouring relation or the unit is not known.")
    if not 0 < facts.delta < 1 or facts.declared_count < 1 or not facts.events:
        raise MalformedError("δ, the number N and the events describe no mechanism.")


def releasable(value: Any) -> Any:
    """`value` as plain JSON types, if every part of it may leave the house.

    PRIVACY: the gate of rule 6. A figure passes only when its type says RELEASABLE;
    paths, arrays and whatever else is not plain text or a plain number do not pass.

    Raises:
        PrivateFigureError: If any part may not be released.
    """
    if isinstance(value, Figure):
        if value.audience is not Audience.RELEASABLE:
            raise PrivateFigureError(
                f"the figure “{value.name}” was computed on private records and must "
                "not enter a public report"
            )
        figure = {"name": value.name, "value": value.value, "note": value.note}
        return releasable(figure)
    if isinstance(value, Mapping):
        return {str(key): releasable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [releasable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "infinite" if value > 0 else "undefined"
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise PrivateFigureError(
        f"a value of type {type(value).__name__} must not enter a public report"
    )
