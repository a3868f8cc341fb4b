"""How a plan and its recipe are put into words for the audit; public constants only."""

from __future__ import annotations

from core.diffusion.adapters import ALL
from core.diffusion.samplers import STILL
from core.synthesis.quotas import PATIENCE
from core.training.plan import Plan
from core.training.recipe import MOMENTS, Recipe


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


def contribution_rule(plan: Plan) -> str:
    """How much a unit may contribute, and what bounds it."""
    most = plan.budget.unit.max_images_per_unit
    entering = (
        (
            "At most 1 image of a unit enters a "
            if most == 1
            else f"At most {most} images of a unit enter a "
        )
        + ("step" if plan.mechanism else "sum")
        + ", chosen at random with a key from the operating system; "
    )
    if plan.mechanism is None:
        return entering + (
            "they share the weight of one image, and what they add to a sum has a norm "
            "of at most 1."
        )
    return entering + "their gradients are averaged and clipped once."


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
