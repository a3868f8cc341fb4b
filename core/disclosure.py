"""What a run says about itself in public: from a plan to the facts of the audit.

Everything here is configuration, a public constant, a count of ledger rows, or an
output of the private mechanism (rule 6).
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from core.checkpoints.cards import CheckpointCard
from core.data.options import LEAVE_OUT, OWN_UNIT
from core.diffusion.adapters import ALL
from core.diffusion.samplers import STILL
from core.privacy.accounting import FINE, Charge
from core.privacy.budget import PrivacyUnit, UnitKind
from core.privacy.noise import STATEMENT
from core.release import AuditFacts
from core.synthesis.quotas import PATIENCE
from core.training.plan import Plan
from core.training.recipe import MOMENTS, Recipe
from core.training.wishes import told_overlap
from core.workspace import Project

_CACHES = {
    "disk": "the cache of decoded images is not encrypted",
    "encrypted": "the cache of decoded images is encrypted (AES-256-GCM), with a key "
    "in the system's keyring",
    "memory": "decoded images are kept in memory only",
}
CROSS_CHECKS = {
    "accountant": "dp-accounting PLD, as its authors compose it",
    "result": "evaluated for the same events before anything was charged: both figures "
    "kept the budget, else nothing would have been planned",
}
FITNESS = (
    "before the first step, on random numbers: no layer mixes the images of a batch, "
    "and the loss of a unit depends on no other and is the same alone as beside others"
)
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


def sampler(plan: Plan) -> dict:
    """How the images are drawn."""
    recipe, moments = plan.recipe, plan.moments
    if recipe.pictures == MOMENTS:
        gaussian = "mixture of Gaussians" if moments and moments.cells else "Gaussian"
        name = f"class by class from the {gaussian} that the noisy moments define"
        if moments and moments.features:
            name += (
                f"; then moved, in {moments.features.steps} steps, towards the noisy "
                "means and spreads of the class's wavelet features"
            )
            if recipe.teacher_labels:
                name += " (where the private teacher names images, of that class)"
            if moments.features.cells > 1:
                name += ", and of those of its cell within the class"
        if recipe.refine_sigma:
            name += (
                f"; then noise of standard deviation {recipe.refine_sigma:g} (pixels "
                "from -1 to 1) is added, and taken away by the public network of field "
                "57, which no private image has trained (SDEdit, deterministic DDIM)"
            )
        steps = recipe.refine_steps if recipe.refine_sigma else 1
        return {"name": name, "steps": steps, "guidance": "none"}
    return {
        "name": recipe.sampler,
        "steps": recipe.sampler_steps,
        "guidance": recipe.guidance or "none",
        "churn": churn(recipe),
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
    unit_column: str = "",
    unnamed: tuple[int, ...] | None = None,
) -> AuditFacts:
    """The facts of one release; all of them may be published.

    Args:
        sealed_head: Of the ledger, as `spending.sealed_head` gives it; never the head
            itself.
        unit_column: What the column of the units is called, "" where none is known.
        unnamed: As `SyntheticSet` has it: post-processing of what was released.
    """
    recipe, mechanism, unit = plan.recipe, plan.mechanism, plan.budget.unit
    return AuditFacts(
        title=project.title,
        tool_version=version_of("sfumato"),
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
        unit_definition=unit_definition(unit, unit_column),
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
        declared_count_rationale="Typed in by the custodian as a public upper bound.",
        accountant={
            "name": "dp-accounting PLD",
            "version": version_of("dp-accounting"),
            "discretisation": FINE,
            "estimate": "pessimistic",
        },
        cross_checks=CROSS_CHECKS,
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
        floating_point_statement=(
            "Gradients may be computed in bfloat16 and are summed in single precision; "
            "clip norms, noise and its addition are double precision, and only the "
            "noisy sum is rounded, to single precision. The bound is proven for real "
            "numbers; attacks on the rounding of double precision are blunted by "
            "summing four draws, not excluded."
        ),
        trainable_parameters=trainable_parameters,
        frozen_parts=frozen_parts(recipe),
        adapters=adapters(recipe),
        forbidden_layers_check=FITNESS,
        normalisation_constants={
            "pixel_scale": "x / 127.5 − 1",
            "origin": "range of 8-bit pixels, not fitted to any data",
        },
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
        network=(
            "Built to run without a network: no feature sends or fetches anything. "
            "Connections were not monitored."
        ),
        hyperparameter_tuning=tuning(lifetime_runs),
        operator_views=(
            "counts and problems of the private images, at the operator's choice",
            "accuracies measured on private images after training",
        ),
        near_duplicate_policy=(
            "Near-duplicates were not searched for: each counts as a unit of its own "
            "unless the grouping column joins them."
        ),
        storage=(
            "Project folder and ledger are readable by their owner only; "
            f"{_CACHES[project.cache]}."
        ),
        label_source=(
            "class list confirmed by the custodian"
            if project.classes
            else "class list taken from the data set, not confirmed by the custodian"
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


def tuning(lifetime_runs: int) -> str:
    """Whether results on these data could have led to the settings; field 50."""
    if lifetime_runs <= 1:
        return "none on these data: this is the first run that was charged to them"
    return (
        "not by this run; earlier runs were made on these data (field 49), and whether "
        "their internal figures led to these settings is not covered by the bound"
    )


def public_texts(plan: Plan, project: Project, unit_column: str) -> dict:
    """What others wrote that the report will print, for `release.check_texts`."""
    return {
        "title": project.title,
        "class_names": plan.class_names,
        "checkpoint": provenance(plan.checkpoint, project),
        "unit_definition": unit_definition(plan.budget.unit, unit_column),
    }


def contribution_rule(plan: Plan) -> str:
    """How much a unit may contribute, and what bounds it."""
    entering = (
        f"At most {plan.budget.unit.max_images_per_unit} images of a unit enter a "
        + ("step" if plan.mechanism else "sum")
        + ", chosen at random with a key from the operating system; "
    )
    if plan.mechanism is None:
        return entering + (
            "they share the weight of one image, and what they add to a sum has a norm "
            "of at most 1."
        )
    return entering + "their gradients are averaged and clipped once."


def provenance(card: CheckpointCard | None, project: Project) -> dict[str, str]:
    """What is known of the public network, and whether it could hold the people."""
    if card is None:
        return {"name": "none", "pretraining_data": "none: no network is used"}
    answer, reason = told_overlap(project, card)
    before = ": ".join(filter(None, (card.overlap, card.overlap_reason)))
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
        "overlap_answer_at_import": "" if answer == card.overlap else before,
    }
    return {name: words for name, words in known.items() if words}


def views(recipe: Recipe) -> str:
    """How the views of an image differ."""
    changes = ["timestep and noise"]
    if recipe.flip:
        changes.append("mirrored left to right with probability 1/2")
    if recipe.crop:
        changes.append(f"shifted by up to {recipe.crop} pixels each way")
    words = "; ".join(changes)
    if recipe.label_dropout:
        words += (
            "; all views of an image without its class with probability "
            f"{recipe.label_dropout:g}"
        )
    if recipe.outer_images:
        lower, upper = recipe.private_timesteps
        words += f"; private images at timesteps from {lower} to below {upper} only"
    return words


def public_data(recipe: Recipe) -> str:
    """The public images that take part in the private steps."""
    if not recipe.outer_images:
        return "none beside the public model's"
    if recipe.outer_source == MOMENTS:
        what = "pseudo-images drawn from the noisy moments, or else images"
    else:
        what = "images"
    return (
        f"{recipe.outer_images:,} {what} drawn by rule by the software itself join "
        "each step, at the timesteps at which no private image is shown; their "
        "gradient is added after the noise"
    )


def selection(recipe: Recipe, unnamed: tuple[int, ...] | None) -> str | None:
    """Which drawn images are released, and under which label; None for all as drawn."""
    if unnamed is None and recipe.teacher_labels:
        return (
            "none: every image that was sampled is released under the class that it "
            "was drawn for; the recipe asks for a private teacher to name the images, "
            "and there was none when they were drawn, because its file or the noisy "
            "moments that it learns from were lost. What was charged for it is in the "
            "composition"
        )
    if unnamed is None:
        return None
    return (
        "an image is released under the class that the private teacher, an output of "
        "the mechanism, names, until the class is full; nothing is compared with "
        f"private data. After {PATIENCE} times as many draws, {sum(unnamed):,} images "
        "were released under the class that they were drawn for, although the teacher "
        f"names another (by class: {', '.join(map(str, unnamed))})"
    )


def churn(recipe: Recipe) -> str:
    """The noise that the sampler adds back."""
    if recipe.churn == STILL:
        return "none"
    added = recipe.churn
    return (
        f"{added.amount:g} over all steps, from noise level {added.from_sigma:g} to "
        f"{added.to_sigma:g}, of standard deviation {added.noise:g}"
    )


def frozen_parts(recipe: Recipe) -> str:
    """Which weights DP-SGD leaves as they were."""
    if recipe.pictures == MOMENTS:
        return "every weight: no network is trained"
    if ALL in recipe.trained:
        return "none: every weight is trained"
    if not recipe.trained:
        return "every weight of the network"
    return f"every weight but those of: {', '.join(recipe.trained)}"


def adapters(recipe: Recipe) -> str:
    """What DP-SGD trains beside frozen weights."""
    if not recipe.lora_rank:
        return "none"
    return (
        f"of rank {recipe.lora_rank}, beside the query, key, value and output of every "
        "attention; folded into the weights after training"
    )


def version_of(package: str) -> str:
    """Its installed version, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
