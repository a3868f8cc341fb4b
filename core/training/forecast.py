"""How long a run will take, from the timing that also chooses how it is run."""

from __future__ import annotations

from core.checkpoints.cards import CheckpointCard
from core.training.gradients import Workload, find_pace
from core.training.recipe import Recipe

FORWARD_SHARE = 0.35
"""A network call without gradients costs about this share of one with them."""

NAMED_DRAWS = 1.5
"""Images drawn for one that is kept, where the private teacher names them: a guess; it
is 4 at most, or 5 where a class is never named."""


def workload(
    card: CheckpointCard, recipe: Recipe, images_per_unit: int, device: str
) -> Workload:
    """What the speed of a training depends on, beside the machine."""
    return Workload(
        checkpoint=card.folder,
        multiplicity=recipe.augmentation_multiplicity,
        images_per_unit=images_per_unit,
        trained=recipe.trained,
        lora_rank=recipe.lora_rank,
        device=device,
    )


def training_seconds(work: Workload, recipe: Recipe) -> float:
    """Time of the whole fine-tune on this machine as it is now, at most."""
    views = work.multiplicity * work.images_per_unit
    private = recipe.steps * recipe.batch_size * views
    private += recipe.steps * recipe.outer_images * work.multiplicity
    public = recipe.moment_images if recipe.moment_share else 0
    public += recipe.central_images if recipe.central_share else 0
    return (private + public) / find_pace(work).rows_per_second


def sampling_seconds(work: Workload, recipe: Recipe, classes: int) -> float:
    """Time of drawing the synthetic images."""
    calls = recipe.images_per_class * classes * network_calls(recipe)
    calls *= NAMED_DRAWS if recipe.teacher_labels else 1
    return calls * FORWARD_SHARE / find_pace(work).rows_per_second


def network_calls(recipe: Recipe) -> int:
    """How often the network is asked for one synthetic image."""
    # Heun asks twice a step, but once in the last; guidance asks for two classes.
    times = 2 * recipe.sampler_steps - 1 if recipe.sampler == "heun" else 0
    return (times or recipe.sampler_steps) * (2 if recipe.guidance else 1)
