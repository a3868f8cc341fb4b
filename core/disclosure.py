"""What a run says about itself in public: from a plan to the facts of the audit.

Everything here is configuration, a public constant, a count of ledger rows, or an
output of the private mechanism (rule 6).
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from core.checkpoints.cards import CheckpointCard
from core.diffusion.adapters import ALL
from core.diffusion.samplers import STILL
from core.privacy.accounting import FINE, Charge
from core.privacy.budget import UnitKind
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
    unnamed: tuple[int, ...] | None = None,
) -> AuditFacts:
    """The facts of one release; all of them may be published.

    Args:
        sealed_head: Of the ledger, as `spending.sealed_head` gives it; never the head
            itself.
        unnamed: As `SyntheticSet` has it: post-processing of what was released.
    """
    recipe, mechanism, unit = plan.recipe, plan.mechanism, plan.budget.unit
    names = ["central images: noisy class means of Poisson draws"]
    names = names if plan.central else []
    names += ["noisy class means", "noisy class covariances"] if plan.moments else []
    if plan.moments and plan.moments.cells:
        names += ["noisy means of cells within the classes", "noisy cell covariances"]
    if plan.moments and plan.moments.features:
        names.append("noisy means and squares of the classes' wavelet features")
        if plan.moments.features.cells > 1:
            names.append("noisy means and squares of the same in cells of the classes")
    if plan.teacher:
        names.append("private teacher: noisy gradients over all records")
    names += ["DP-SGD steps"] if mechanism else []
    patient = unit.kind is UnitKind.PATIENT
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
        unit_definition=(
            "All images with the same value in the data set's grouping column belong "
            "to one unit."
            if patient
            else "Every image is a unit of its own."
        ),
        contribution_rule=contribution_rule(plan),
        relation=plan.budget.relation.value,
        events=tuple(
            describe(charge, what)
            for charge, what in zip(plan.charges(), names, strict=True)
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
        hyperparameter_tuning="none on these data by this run; recipe fixed beforehand",
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
