"""Whether an audit document holds what this program writes, and nothing else.

The facts and figures that a document states are read back, the document is written
again from them by `audit.document`, and the two are compared: every sentence of the
program's own must be there, no field may be missing without being said to be, and
there is no place for any other. Whether the figures are true is not asked here: see
`core.release.recheck` and `core.release.consistency`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.audience import Audience, Figure
from core.release.audit import canonical, document, lookup
from core.release.bounds import Bounds
from core.release.exact import MalformedError, bound, real, whole
from core.release.facts import AuditFacts, check_form
from core.release.fields import CUSTODIAN_ONLY
from core.release.recheck import Finding, check_event
from core.release.wording import NO_PRIVACY, RELATIONS

_TEXTS = {
    "title": "title",
    "tool_version": "tool.version",
    "build_hash": "tool.build_hash",
    "created_utc": "created_utc",
    "run_id": "run_id",
    "unit": "unit_of_privacy.unit",
    "unit_definition": "unit_of_privacy.definition",
    "contribution_rule": "max_contributions_per_unit.rule",
    "relation": "neighbouring_relation.relation",
    "rng_statement": "rng",
    "selection": "sampler.post_filtering_rule",
    "colour": "product.colour",
}
"""Fact → key of the texts that every document holds."""

_OPTIONAL_TEXTS = {
    "units_without_key_policy": "units_without_key_policy",
    "views": "views",
    "frozen_parts": "frozen_parts",
    "adapters": "adapters",
    "public_data": "public_data",
    "storage": "storage",
}
_MAPPINGS = {
    "versions": "env.versions",
    "accountant": "accountant",
    "checkpoint": "public_model",
}
_AS_STATED = {
    "ledger": "budget_ledger",
    "ema": "ema_lr_schedule.weight_average",
    "learning_rate_schedule": "ema_lr_schedule.learning_rate",
}
"""Of facts whose form is left to the run."""

_GROUPS = "epsilon_other_units"
_GROUP = re.compile(
    r"ε = [\d.,]+ at δ = [\d.e-]+|no bound: the group's δ reaches 1", re.ASCII
)


def departures(audit: Mapping[str, Any]) -> list[Finding]:
    """Where the document differs from what this program writes of its own facts.

    A document that is stamped NO PRIVACY claims nothing, and is not compared.

    Raises:
        UserError, KeyError, TypeError, ValueError: If the document is malformed.
    """
    if audit.get("stamp") == NO_PRIVACY:
        return []
    facts = stated_facts(audit)
    check_form(facts)
    written = document(facts, stated_bounds(audit), audit["content_hashes"])
    # PRIVACY: a field for which the program has no place may hold anything private.
    return [
        Finding(subject=key, message=_difference(key, audit, written))
        for key in sorted({*audit, *written})
        if _compared(key, audit) != _compared(key, written)
    ]


def _difference(key: str, audit: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    if key in CUSTODIAN_ONLY:
        return f"audit.json holds “{key}”, which must stay with the custodian."
    if key not in written:
        return f"audit.json holds “{key}”, which no report of this program has."
    if key not in audit:
        return f"audit.json lacks “{key}”."
    return f"What audit.json says under “{key}” is not what this program writes."


def _compared(key: str, audit: Mapping[str, Any]) -> bytes:
    """As bytes, since 1, 1.0 and true are equal in Python and unlike on paper."""
    if key not in audit:
        return b""
    text = canonical({key: audit[key]})
    # Computed from an ε of more digits than the document has: `consistency` compares.
    return _GROUP.sub("", text.decode()).encode() if key == _GROUPS else text


def stated_facts(audit: Mapping[str, Any]) -> AuditFacts:
    """The facts that a document states, as they are.

    Raises:
        KeyError, TypeError, ValueError: If one is missing or not of its type.
    """
    product, lifetime = audit["product"], audit["lifetime_budget"]
    completed = audit.get("steps_completed")
    return AuditFacts(
        **{fact: _text(_needed(audit, key), key) for fact, key in _TEXTS.items()},
        **{
            fact: None if (value := lookup(audit, key)) is None else _text(value, key)
            for fact, key in _OPTIONAL_TEXTS.items()
        },
        **{fact: _mapping(_needed(audit, key), key) for fact, key in _MAPPINGS.items()},
        **{fact: lookup(audit, key) for fact, key in _AS_STATED.items()},
        **_of_steps(audit),
        epsilon_committed=real(audit["epsilon_claimed"], "epsilon_claimed"),
        delta=real(audit["delta"], "delta"),
        epsilon_charged=real(audit["epsilon_spent"], "epsilon_spent"),
        steps_committed=whole(audit["steps_committed"], "steps_committed"),
        steps_charged=whole(audit["steps_started"], "steps_started"),
        steps_completed=None
        if completed is None
        else whole(completed, "steps_completed"),
        max_images_per_unit=whole(
            audit["max_contributions_per_unit"]["images"], "images", 1
        ),
        events=_events(audit),
        declared_count=whole(audit["n_public"]["count"], "count", 1),
        lifetime_epsilon=bound(lifetime["epsilon"], "epsilon"),
        lifetime_runs=whole(lifetime["runs"], "runs"),
        trainable_parameters=whole(audit["trainable_params"], "trainable_params"),
        preprocessing=_list(_needed(audit, "preprocessing"), "preprocessing"),
        sampler={
            name: _needed(audit, f"sampler.{name}")
            for name in ("name", "steps", "guidance")
        }
        | {"churn": lookup(audit, "sampler.churn")},
        class_names=_list(product["class_names"], "class_names"),
        images_per_class=whole(product["images_per_class"], "images_per_class", 1),
        image_size=(
            whole(product["height"], "height", 1),
            whole(product["width"], "width", 1),
        ),
        figures=_figures(audit),
    )


def stated_bounds(audit: Mapping[str, Any]) -> Bounds:
    """What a document says that its events imply, as it is.

    Raises:
        KeyError, TypeError, ValueError: If a figure is missing or none.
    """
    relation, told = audit["neighbouring_relation"], audit["interpretation"]
    epsilon = bound(audit["composition"]["epsilon_of_events"], "epsilon_of_events")
    others = relation["epsilon_under_other_relations"]
    low, high = "max_tpr_at_fpr_0_1_percent", "max_tpr_at_fpr_1_percent"
    accuracy = "best_accuracy_from_50_percent"
    return Bounds(
        epsilon=epsilon,
        profile={
            real(point["delta"], "delta"): bound(point["epsilon"], "epsilon")
            for point in audit["privacy_profile"]
        },
        true_positive_rates={
            0.001: real(told[low], low),
            0.01: real(told[high], high),
        },
        best_accuracy=real(told[accuracy], accuracy),
        by_relation={
            name: bound(others[name], name)
            for name in RELATIONS
            if name != relation["relation"]
        }
        | {relation["relation"]: epsilon},
    )


def _of_steps(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The constants of a step; a document without steps says so in their place."""
    names = ("clip_norm", "divisor", "expected_batch", "augmentation_multiplicity")
    if not audit["steps_committed"]:
        return dict.fromkeys(names)
    views = audit.get("augmentation_multiplicity")
    batch = audit["sampling"][-1]["expected_batch"]
    return {
        "clip_norm": real(audit["clip_norm"], "clip_norm"),
        "divisor": real(audit["normaliser"], "normaliser"),
        "expected_batch": real(batch, "expected_batch"),
        "augmentation_multiplicity": None
        if views is None
        else whole(views, "augmentation_multiplicity", 1),
    }


def _events(audit: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    events = audit["composition"]["events"]
    for event in events:
        check_event(event)
        _text(event["what"], "what")
    return tuple(events)


def _figures(audit: Mapping[str, Any]) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            name=_text(item["name"], "name"),
            value=item["value"]
            if item["value"] in ("infinite", "undefined")
            else real(item["value"], "value"),
            note=_text(item["note"], "note"),
            # What stands in a public document was released, whatever it was before.
            audience=Audience.RELEASABLE,
        )
        for item in audit.get("utility", ())
    )


def _needed(audit: Mapping[str, Any], key: str) -> Any:
    value = lookup(audit, key)
    if value is None:
        raise KeyError(key)
    return value


def _text(value: Any, key: str) -> str:
    if type(value) is not str:
        raise MalformedError(f"“{key}” of audit.json is not a text.")
    return value


def _list(value: Any, key: str) -> tuple[str, ...]:
    if type(value) is not list:
        raise MalformedError(f"“{key}” of audit.json is not a list of texts.")
    return tuple(_text(item, key) for item in value)


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise MalformedError(f"“{key}” of audit.json is not a table of values.")
    return value
