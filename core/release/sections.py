"""What each part of the audit document says: facts in, dotted keys out.

To report a further field, add its key to the function of its part, and the fact that it
states to `core.release.contents`, which reads it back for `verify`. A value of None
means "not known": the field then stays in `not_yet_reported`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from core.release.bounds import COARSE_DISCRETISATION, Bounds
from core.release.facts import AuditFacts
from core.release.meaning import interpretation, other_units
from core.release.wording import (
    RELATIONS,
    VERIFY_COMMAND,
    relation_words,
    round_up,
)

SCHEMA_VERSION = "1.2.0"
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
        "tool.git_commit": facts.git_commit,
        "tool.build_hash": facts.build_hash,
        "env.lock_sha256": facts.lock_sha256,
        "env.versions": facts.versions,
        "run_id": facts.run_id,
        "parent_report_ids": facts.parent_report_ids,
        "verify_command": VERIFY_COMMAND,
    }


def description(facts: AuditFacts, found: Bounds) -> Items:
    """Part B: fields 9 to 13."""
    height, width = facts.image_size
    return {
        "intended_use": facts.intended_use,
        "licence": facts.licence,
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
        "dp_variant": "(ε, δ)-differential privacy, by the privacy loss distribution "
        "(PLD) of the composed Gaussian mechanisms",
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
        "near_duplicate_policy": facts.near_duplicate_policy,
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
        "unprotected_quantities": [
            f"number of {facts.unit}s, N = {facts.declared_count:,}: declared by the "
            "custodian",
            "label set: " + (facts.label_source or "declared by the custodian"),
            "image size and colour: chosen in the project",
            "images per class of the release: chosen in the project, not the private "
            "class frequencies",
            "settings of the run: the recipe and the project",
            "the number and the ε of the runs on these data (field 49): they tell "
            "whether the data were exactly those of earlier runs",
        ],
    }


def trust(facts: AuditFacts, found: Bounds) -> Items:
    """Part E: fields 30 to 33."""
    return {
        "trust.model": "central",
        "trust.trusted": [
            "the operator",
            "the operating system of the custodian's machine",
            "its hardware",
        ],
        "trust.untrusted": ["everyone who receives this release"],
        "adversary_knowledge": "sees the release, this report and the source code; "
        f"knows every private record but one {facts.unit}; has unlimited computing",
        "operator_views": facts.operator_views,
        "network": facts.network,
    }


def mechanism(facts: AuditFacts, found: Bounds) -> Items:
    """Part F: fields 34 to 44."""
    steps = [e for e in facts.events if e["kind"] == "truncated_poisson_gaussian"]
    return (_of_steps(facts, steps) if facts.steps_committed else _without_steps()) | {
        "accumulation_dtype": "float32 for gradients, float64 for other sums"
        if facts.steps_committed
        else "float64",
        "sampling": [_sampling(facts, step, last=step is steps[-1]) for step in steps]
        or _NO_STEPS,
        "trainable_params": facts.trainable_parameters,
        "stopping_rule": facts.stopping_rule or _stopping_rule(facts),
        "sampler.name": facts.sampler["name"],
        "sampler.steps": facts.sampler["steps"],
        "sampler.guidance": facts.sampler["guidance"],
        "sampler.churn": facts.sampler.get("churn"),
        "sampler.post_filtering_rule": facts.selection
        or "none: every image that was sampled is released; nothing is filtered "
        "against private data",
    }


_NO_STEPS = "not applicable: no network is trained, so there are no steps"


def _of_steps(facts: AuditFacts, steps: list[Any]) -> Items:
    sigma = steps[-1]["noise_multiplier"] if steps else None
    clip_norm = facts.clip_norm
    return {
        "algorithm": "differentially private gradient descent (Abadi et al. 2016, "
        "arXiv 1607.00133) with views averaged inside the clip (Ghalebikesabi et al. "
        "2023, arXiv 2302.13861) and truncated Poisson batches (arXiv 2508.15089)",
        "clip_norm": clip_norm,
        "clip_scope": "flat: the mean gradient of a unit over all trainable weights",
        "nan_policy": "a gradient that is not finite counts as zero",
        "noise_multiplier": sigma,
        "noise_std_abs": None if None in (sigma, clip_norm) else sigma * clip_norm,
        "normaliser": facts.divisor,
        "augmentation_multiplicity": facts.augmentation_multiplicity,
        "views": facts.views,
        "loss_averaging_inside_clip": True,
        "frozen_parts": facts.frozen_parts,
        "adapters": facts.adapters,
        "forbidden_layers_check": facts.forbidden_layers_check,
        "ema_lr_schedule": {
            "weight_average": facts.ema,
            "learning_rate": facts.learning_rate_schedule,
            "data_independent": True,
        },
    }


def _without_steps() -> Items:
    """Of a release that is drawn from noisy sums."""
    return {
        "algorithm": "the Gaussian mechanism on sums over all records, each record's "
        "part shortened to norm 1 (Dwork & Roth 2014, theorem A.1); the images are "
        "drawn from what it gave",
        "clip_scope": "each record's part of each of the sums that the events list",
        "nan_policy": "a record that is not finite counts as zero",
    } | dict.fromkeys(
        ("clip_norm", "noise_multiplier", "noise_std_abs", "normaliser",
         "augmentation_multiplicity", "loss_averaging_inside_clip",
         "forbidden_layers_check"), _NO_STEPS,
    )  # fmt: skip


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
    lifetime_delta = facts.lifetime_delta or facts.delta
    return {
        "accountant": facts.accountant,
        "cross_checks": facts.cross_checks,
        "composition": {
            "events": facts.events,
            "epsilon_of_events": round_up(found.epsilon),
        },
        "budget_ledger": facts.ledger,
        "lifetime_budget": {
            "epsilon": round_up(facts.lifetime_epsilon),
            "delta": lifetime_delta,
            "runs": facts.lifetime_runs,
            "scope": "all runs charged to exactly these images and labels, aborted "
            "and discarded ones too; runs on other versions of the data, with images "
            "added, removed or saved anew, are not in it",
            "dataset_fingerprint": "left out: a digest of the private files would let "
            "an outsider confirm a guess at them; the custodian keeps it",
        },
        "hyperparameter_tuning": facts.hyperparameter_tuning,
    }


def inputs(facts: AuditFacts, found: Bounds) -> Items:
    """Part H: fields 51 to 59."""
    return {
        "dataset_description": facts.dataset_description,
        "n_public": {
            "count": facts.declared_count,
            "unit": facts.unit,
            "rationale": facts.declared_count_rationale
            or "declared by the custodian as a public number; not counted from the "
            "private folder",
        },
        "label_source": facts.label_source,
        "normalisation_constants": facts.normalisation_constants,
        "preprocessing": facts.preprocessing,
        "public_model": facts.checkpoint,
        "public_data": facts.public_data,
    }


def implementation(facts: AuditFacts, found: Bounds) -> Items:
    """Part I: fields 60 to 66."""
    return {
        "rng": facts.rng_statement,
        "floating_point": facts.floating_point_statement,
        "side_channels": "the release shows neither times nor counts of the private "
        "data: file times are set to 1980-01-01, names are counters, the number of "
        "images per class was fixed in advance; the time that training took is not "
        "reported",
        "metadata_scrub": "every image was encoded anew from its pixels; its file "
        "holds the PNG chunks IHDR, IDAT and IEND only",
        "storage": facts.storage,
        "self_test": facts.self_test,
    }


def evidence(facts: AuditFacts, found: Bounds) -> Items:
    """Parts J and K: fields 67 to 75."""
    canaries = facts.canary_audit or {}
    names = ("method", "m", "threat_model", "confidence", "eps_lower_bound", "verdict")
    return {
        **{f"audit.{name}": canaries.get(name) for name in (*names, "power")},
        "annex_warning": "Figures computed on private records (similarity, membership "
        "tests, accuracy on private images) stay in the custodian's annex: they are "
        "not differentially private, and publishing them voids the claim.",
        "utility": facts.figures or None,
        "per_class_note": "minority classes degrade first",
    }


def limits(facts: AuditFacts, found: Bounds) -> Items:
    """Parts L to N: fields 76 to 85."""
    return {
        "claims_not_made": [
            "no conclusion under data protection law: that is left to the data "
            "protection officer",
            "no statement that the images cannot be linked to anyone by other means",
            "no statement on medical correctness or fitness for diagnosis",
        ],
        "deviations": facts.deviations,
        "limitations": [
            "The bound holds for the program as described; an error in the program, "
            "in its libraries or in the hardware could break it.",
            "The bound rests on the declared unit and on the declared number of "
            "records; where these are wrong, it is wrong.",
            "Floating-point numbers only approximate the mathematics of the proof "
            "(field 61).",
            "Whatever the checkpoint was trained on before is not protected "
            "(field 57).",
            "What was deleted on the custodian's machine may survive in swap, "
            "hibernation files, snapshots and backups.",
            "The hashes prove integrity, not who made the release.",
        ],
        "claim_void_if": [
            "the same records are used in a run outside the shared ledger",
            "figures of the custodian's annex are published",
            "random keys of the run are disclosed",
            "checkpoints or other files beside those listed in field 11 are shared",
        ],
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
