"""What each part of the audit document says: facts in, dotted keys out.

To report a further field, add its key to the function of its part. What is the same for
every run stands in `core.release.statements`; a fact of the run is read back for
`verify` by `core.release.contents`. A value of None means "not known": the field then
stays in `not_yet_reported`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from core.release import statements
from core.release.bounds import COARSE_DISCRETISATION, Bounds
from core.release.facts import AuditFacts
from core.release.meaning import interpretation, other_units
from core.release.wording import (
    RELATIONS,
    VERIFY_COMMAND,
    relation_words,
    round_up,
)

SCHEMA_VERSION = "1.3.0"
"""Of the audit document, and of the sentences in it; `verify` refuses a version that it
does not know, and sentences that are not those of this one."""

Items = dict[str, Any]


def identity(facts: AuditFacts, found: Bounds) -> Items:
    """Part A: fields 1 to 8."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created_utc": facts.created_utc,
        "tool.name": "Sfumato",
        "tool.version": facts.tool_version,
        "tool.build_hash": facts.build_hash,
        "env.versions": facts.versions,
        "run_id": facts.run_id,
        "verify_command": VERIFY_COMMAND,
    }


def description(facts: AuditFacts, found: Bounds) -> Items:
    """Part B: fields 9 to 13."""
    height, width = facts.image_size
    return {
        "product": {
            "images": facts.images_per_class * len(facts.class_names),
            "images_per_class": facts.images_per_class,
            "class_names": facts.class_names,
            "height": height,
            "width": width,
            "colour": facts.colour,
            "format": "PNG, 8 bits per channel",
        },
        "what_is_released": [
            "the synthetic images under images/ with their labels (metadata.csv)",
            "this report",
        ],
        "synthetic_marking": "Every image of this release is synthetic: computed "
        + _computed(facts)
        + ", not taken of anyone.",
    }


def _computed(facts: AuditFacts) -> str:
    if facts.steps_committed:
        return "by a trained network"
    refined = facts.checkpoint["name"] != "none"
    return "from noisy statistics" + (" and a public network" if refined else "")


def claim(facts: AuditFacts, found: Bounds) -> Items:
    """Part C: fields 14 to 22."""
    completed = facts.steps_completed
    return {
        "dp_variant": statements.DP_VARIANT,
        "epsilon_claimed": round_up(facts.epsilon_committed),
        "delta": facts.delta,
        "epsilon_spent": round_up(facts.epsilon_charged),
        "steps_committed": facts.steps_committed,
        "steps_started": facts.steps_charged,
        "steps_completed": completed,
        "epsilon_rounding": "always up, to 4 significant digits",
        "privacy_profile": [
            {"delta": delta, "epsilon": round_up(epsilon)}
            for delta, epsilon in found.profile.items()
        ],
        "original_parameters": [
            {
                "what": event["what"],
                "noise_multiplier": event["noise_multiplier"],
                "sampling_probability": event.get("sampling_probability", 1.0),
                "steps": event["count"],
                "clip_norm": facts.clip_norm if "batch_cap" in event else None,
            }
            for event in facts.events
        ],
        "interpretation": interpretation(facts, found),
        "delta_vs_n": {
            "rule": "δ is at most 1/(10 N), N the declared number of records",
            "holds": facts.delta <= 1 / (10 * facts.declared_count),
        },
    }


def unit(facts: AuditFacts, found: Bounds) -> Items:
    """Part D: fields 23 to 29."""
    return {
        "unit_of_privacy": {"unit": facts.unit, "definition": facts.unit_definition},
        "units_without_key_policy": facts.units_without_key_policy
        or ("each image is its own unit" if facts.unit == "image" else None),
        "max_contributions_per_unit": {
            "images": facts.max_images_per_unit,
            "rule": facts.contribution_rule
            or "the unit is sampled, its views are averaged, and the mean gradient is "
            "clipped once",
        },
        "epsilon_other_units": other_units(facts, found),
        "near_duplicate_policy": statements.NEAR_DUPLICATES,
        "neighbouring_relation": {
            "relation": facts.relation,
            "definition": relation_words(facts.relation, facts.unit),
            "epsilon_under_other_relations": {
                name: round_up(found.by_relation[name])
                for name in RELATIONS
                if name != facts.relation
            },
            "note": "the same events and δ; figures under different relations are not "
            f"comparable; computed with a discretisation of {COARSE_DISCRETISATION:g}",
        },
        "unprotected_quantities": statements.unprotected(
            facts.unit, facts.declared_count
        ),
    }


def trust(facts: AuditFacts, found: Bounds) -> Items:
    """Part E: fields 30 to 33."""
    return {
        "trust.model": "central",
        "trust.trusted": statements.TRUSTED,
        "trust.untrusted": ["everyone who receives this release"],
        "adversary_knowledge": "sees the release, this report and the source code; "
        f"knows every private record but one {facts.unit}; has unlimited computing",
        "operator_views": statements.OPERATOR_VIEWS,
        "network": statements.NETWORK,
    }


def mechanism(facts: AuditFacts, found: Bounds) -> Items:
    """Part F: fields 34 to 44."""
    steps = [e for e in facts.events if e["kind"] == "truncated_poisson_gaussian"]
    trained = facts.steps_committed > 0
    return (_of_steps(facts, steps) if trained else statements.without_steps()) | {
        "accumulation_dtype": "float64",
        "sampling": [_sampling(facts, step, last=step is steps[-1]) for step in steps]
        or statements.NO_STEPS,
        "trainable_params": facts.trainable_parameters,
        "stopping_rule": _stopping_rule(facts),
        "sampler.name": facts.sampler["name"],
        "sampler.steps": facts.sampler["steps"],
        "sampler.guidance": facts.sampler["guidance"],
        "sampler.churn": facts.sampler.get("churn"),
        "sampler.post_filtering_rule": facts.selection
        or "none: every image that was sampled is released; nothing is filtered "
        "against private data",
    }


def _of_steps(facts: AuditFacts, steps: list[Any]) -> Items:
    sigma = steps[-1]["noise_multiplier"] if steps else None
    clip_norm = facts.clip_norm
    return statements.of_steps() | {
        "clip_norm": clip_norm,
        "noise_multiplier": sigma,
        "noise_std_abs": None if None in (sigma, clip_norm) else sigma * clip_norm,
        "normaliser": facts.divisor,
        "augmentation_multiplicity": facts.augmentation_multiplicity,
        "views": facts.views,
        "frozen_parts": facts.frozen_parts,
        "adapters": facts.adapters,
        "ema_lr_schedule": {
            "weight_average": facts.ema,
            "learning_rate": facts.learning_rate_schedule,
            "data_independent": True,
        },
    }


def _sampling(facts: AuditFacts, step: Any, *, last: bool) -> Items:
    probability = float(step["sampling_probability"])
    exact = Fraction(probability).limit_denominator(max(1, facts.declared_count))
    if float(exact) != probability:
        exact = Fraction(probability)
    return {
        "scheme": "Poisson: every unit independently with probability q; a batch above "
        "the cap is cut to a random subset, and accounted so",
        "sampling_probability": probability,
        "sampling_probability_exact": str(exact),
        "of": step["what"],
        "expected_batch": facts.expected_batch
        if last
        else round(probability * step["dataset_size"], 6),
        "batch_cap": step["batch_cap"],
        "empty_batch": "a step of noise only",
    }


def _stopping_rule(facts: AuditFacts) -> str:
    if not facts.steps_committed:
        return "every release once, as many as were fixed beforehand"
    if facts.steps_charged >= facts.steps_committed:
        return "a number of steps fixed before training"
    return "stopped before the committed number of steps; the claim stays as committed"


def accounting(facts: AuditFacts, found: Bounds) -> Items:
    """Part G: fields 45 to 50."""
    return {
        "accountant": facts.accountant,
        "cross_checks": statements.CROSS_CHECKS,
        "composition": {
            "events": facts.events,
            "epsilon_of_events": round_up(found.epsilon),
        },
        "budget_ledger": facts.ledger,
        "lifetime_budget": {
            "epsilon": round_up(facts.lifetime_epsilon),
            "delta": facts.delta,
            "runs": facts.lifetime_runs,
            "scope": "all runs charged to exactly these images and labels, aborted "
            "and discarded ones too; runs on other versions of the data, with images "
            "added, removed or saved anew, are not in it",
            "dataset_fingerprint": "left out: a digest of the private files would let "
            "an outsider confirm a guess at them; the custodian keeps it",
        },
        "hyperparameter_tuning": statements.SETTINGS,
    }


def inputs(facts: AuditFacts, found: Bounds) -> Items:
    """Part H: fields 51 to 59."""
    return {
        "n_public": {
            "count": facts.declared_count,
            "unit": facts.unit,
            "rationale": statements.RATIONALE,
        },
        "label_source": statements.LABELS,
        "normalisation_constants": statements.NORMALISATION,
        "preprocessing": facts.preprocessing,
        "public_model": facts.checkpoint,
        "public_data": facts.public_data,
    }


def implementation(facts: AuditFacts, found: Bounds) -> Items:
    """Part I: fields 60 to 66."""
    return {
        "rng": facts.rng_statement,
        "floating_point": statements.FLOATING_POINT,
        "side_channels": statements.SIDE_CHANNELS,
        "metadata_scrub": statements.METADATA,
        "storage": facts.storage,
    }


def evidence(facts: AuditFacts, found: Bounds) -> Items:
    """Parts J and K: fields 67 to 75."""
    return {
        "annex_warning": statements.ANNEX,
        "utility": facts.figures or None,
        "per_class_note": "minority classes degrade first",
    }


def limits(facts: AuditFacts, found: Bounds) -> Items:
    """Parts L to N: fields 76 to 85."""
    return {
        "claims_not_made": statements.CLAIMS_NOT_MADE,
        "limitations": statements.LIMITATIONS,
        "claim_void_if": statements.VOID_IF,
    }


SECTIONS: tuple[Callable[[AuditFacts, Bounds], Items], ...] = (
    identity,
    description,
    claim,
    unit,
    trust,
    mechanism,
    accounting,
    inputs,
    implementation,
    evidence,
    limits,
)
