"""What a run says about itself in public: from a plan to the facts of the audit.

Everything here is configuration, a public constant, a count of ledger rows, or an
output of the private mechanism (rule 6).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.checkpoints.cards import CheckpointCard
from core.checkpoints.scratch import is_scratch
from core.data.options import LEAVE_OUT, OWN_UNIT
from core.files import sha256
from core.plan_words import (
    adapters,
    contribution_rule,
    frozen_parts,
    public_data,
    sampler,
    selection,
    views,
)
from core.privacy.accounting import FINE, Charge
from core.privacy.budget import PrivacyUnit, UnitKind
from core.privacy.noise import STATEMENT
from core.release import AuditFacts
from core.training.plan import Plan
from core.training.wishes import told_overlap
from core.workspace import Project

_CACHES = {
    "disk": "the cache of decoded images is not encrypted",
    "encrypted": "the cache of decoded images is encrypted (AES-256-GCM), with a key "
    "in the system's keyring",
    "memory": "decoded images are kept in memory only",
}
PACKAGES = ("torch", "diffusers", "dp-accounting", "numpy", "safetensors", "pillow")


def describe(charge: Charge, what: str) -> dict:
    """One charge as the audit document writes it."""
    if charge.batch_cap is None:
        return {
            "kind": "gaussian",
            "noise_multiplier": charge.noise_multiplier,
            "count": charge.count,
            "what": what,
        }
    return {
        "kind": "truncated_poisson_gaussian",
        "dataset_size": charge.population,
        "sampling_probability": charge.sampling_probability,
        "batch_cap": charge.batch_cap,
        "noise_multiplier": charge.noise_multiplier,
        "count": charge.count,
        "what": what,
    }


def audit_facts(
    plan: Plan,
    project: Project,
    *,
    trainable_parameters: int,
    updates: int,
    steps_charged: int,
    epsilon_charged: float,
    lifetime_epsilon: float,
    lifetime_runs: int,
    sealed_head: str,
    unnamed: tuple[int, ...] | None = None,
) -> AuditFacts:
    """The facts of one release; all of them may be published.

    Args:
        sealed_head: Of the ledger, as `spending.sealed_head` gives it; never the head
            itself.
        unnamed: As `SyntheticSet` has it: post-processing of what was released.
    """
    recipe, mechanism, unit = plan.recipe, plan.mechanism, plan.budget.unit
    return AuditFacts(
        title=project.title,
        tool_version=version_of("sfumato"),
        build_hash=build_hash(),
        versions={name: version_of(name) for name in PACKAGES},
        created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        run_id=plan.run,
        epsilon_committed=plan.budget.epsilon,
        delta=plan.budget.delta,
        epsilon_charged=epsilon_charged,
        steps_committed=plan.steps,
        steps_charged=steps_charged,
        steps_completed=updates,
        unit=unit.kind.value,
        max_images_per_unit=unit.max_images_per_unit,
        unit_definition=unit_definition(unit, plan.unit_column),
        units_without_key_policy=without_unit(unit, project),
        contribution_rule=contribution_rule(plan),
        relation=plan.budget.relation.value,
        events=tuple(
            describe(charge, what)
            for charge, what in zip(plan.charges(), charge_names(plan), strict=True)
        ),
        clip_norm=mechanism.clip_norm if mechanism else None,
        divisor=mechanism.divisor if mechanism else None,
        expected_batch=mechanism.divisor if mechanism else None,
        augmentation_multiplicity=recipe.augmentation_multiplicity or None,
        declared_count=plan.declared_count,
        accountant={
            "name": "dp-accounting PLD",
            "version": version_of("dp-accounting"),
            "discretisation": FINE,
            "estimate": "pessimistic",
        },
        lifetime_epsilon=lifetime_epsilon,
        lifetime_runs=lifetime_runs,
        ledger={
            "sealed_head": sealed_head,
            "seal": "HMAC-SHA256 of the ledger's head with a key that the custodian "
            "keeps: the head itself would let an outsider confirm a guess at the "
            "private files",
        },
        checkpoint=provenance(plan.checkpoint, project),
        rng_statement=STATEMENT,
        trainable_parameters=trainable_parameters,
        frozen_parts=frozen_parts(recipe),
        adapters=adapters(recipe),
        preprocessing=(
            f"values from {' to '.join(project.window.split(','))}, declared by the "
            "custodian, shown as black to white in 8 bits"
            if project.window
            else "decoded to 8 bits per channel",
            f"reduced by area to {plan.resolution}×{plan.resolution} pixels",
        ),
        ema=f"min({recipe.ema_decay:g}, (1 + t)/(10 + t)) after each logical step",
        learning_rate_schedule=(
            f"linear to {recipe.learning_rate:g} over {recipe.warmup_steps} steps, "
            "then constant"
        ),
        sampler=sampler(plan),
        views=views(recipe),
        public_data=public_data(recipe),
        selection=selection(recipe, unnamed),
        storage=(
            "Project folder and ledger are readable by their owner only; "
            f"{_CACHES[project.cache]}."
        ),
        class_names=plan.class_names,
        images_per_class=recipe.images_per_class,
        image_size=(plan.resolution, plan.resolution),
        colour="grey" if plan.image_channels == 1 else "RGB",
    )


def charge_names(plan: Plan) -> tuple[str, ...]:
    """What each of the plan's charges pays for, in the order of `Plan.charges`."""
    moments = plan.moments
    features = moments.features if moments else None
    parts = (
        (plan.central, "central images: noisy class means of Poisson draws"),
        (moments, "noisy class means"),
        (moments, "noisy class covariances"),
        (moments and moments.cells, "noisy means of cells within the classes"),
        (moments and moments.cells, "noisy cell covariances"),
        (features, "noisy means and squares of the classes' wavelet features"),
        (
            features and features.cells > 1,
            "noisy means and squares of the same in cells of the classes",
        ),
        (plan.teacher, "private teacher: noisy gradients over all records"),
        (plan.mechanism, "DP-SGD steps"),
    )
    return tuple(name for there, name in parts if there)


def unit_definition(unit: PrivacyUnit, column: str) -> str:
    """Which images belong together, by the column that says so."""
    if unit.kind is UnitKind.IMAGE:
        return "Every image is a unit of its own."
    named = f"column {column!r} of the data set" if column else "grouping column"
    return f"All images with the same value in the {named} belong to one unit."


def without_unit(unit: PrivacyUnit, project: Project) -> str | None:
    """What became of images whose patient is not told; field 24."""
    if unit.kind is UnitKind.IMAGE:
        return None
    return {
        OWN_UNIT: "each image without a patient counts as one of its own: who has "
        "several such images is protected less than the bound says",
        LEAVE_OUT: "images without a patient are left out",
    }.get(project.missing_unit, "every image has a patient: others are refused")


def public_texts(plan: Plan, project: Project) -> dict:
    """What others wrote that the report will print, for `release.check_texts`."""
    return {
        "title": project.title,
        "class_names": plan.class_names,
        "checkpoint": provenance(plan.checkpoint, project),
        "unit_definition": unit_definition(plan.budget.unit, plan.unit_column),
    }


def provenance(card: CheckpointCard | None, project: Project) -> dict[str, str]:
    """What is known of the public network, and whether it could hold the people."""
    if card is None:
        return {"name": "none", "pretraining_data": "none: no network is used"}
    answer, reason = told_overlap(project, card)
    known = {
        "name": card.name,
        "licence": card.licence,
        "pretraining_data": card.pretraining_data,
        "pretraining_licences": card.pretraining_licences,
        "source": card.source,
        "source_sha256": card.source_sha256,
        "conversion": card.conversion,
        "sha256": card.sha256,
        "trained_as": card.parameterisation,
        "overlap_answer": answer or "not asked",
        "overlap_reason": reason or "not stated",
        "overlap_answer_at_import": "" if is_scratch(card.name) else card.overlap,
    }
    return {name: words for name, words in known.items() if words}


@cache
def build_hash() -> str:
    """SHA-256 over the program's own files as they are installed, by path."""
    digest = hashlib.sha256()
    for package, endings in (("core", (".py",)), ("resources", (".toml", ".j2"))):
        root = Path(str(resources.files(package)))
        files = (path for path in root.rglob("*") if path.suffix in endings)
        for path in sorted(files):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            digest.update(f"{sha256(path)}  {name}\n".encode())
    return digest.hexdigest()


def version_of(package: str) -> str:
    """Its installed version, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
