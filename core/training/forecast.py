"""How long a run will take, from the timing that also chooses how it is run."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

import torch

from core.checkpoints.cards import CheckpointCard
from core.checkpoints.store import load_checkpoint
from core.diffusion.samplers import refine
from core.parallel import choose_hardware
from core.privacy.teacher import Lessons, sum_of_gradients
from core.training.cell_matching import CELL_ROUNDS
from core.training.features import (
    check_resolution,
    images_in_chunk,
    in_chunks,
    scattering,
)
from core.training.gradients import Workload, find_pace
from core.training.matching import REFERENCE
from core.training.recipe import Recipe
from core.training.teacher import PSEUDO_IMAGES

FORWARD_SHARE = 0.35
"""A network call without gradients costs about this share of one with them."""

NAMED_DRAWS = 1.25
"""Images drawn for one that is kept, where the private teacher names them. Counted on
Fashion-MNIST at ε = 10: 1.03. `Quotas` with made-up names for ten classes: 1.04 to 1.24
where the teacher agrees with 95 to 65 % of the drawn classes, 1.1 to 1.4 with half of
them. A class that is hardly ever named makes it 4 at most, or 5: the forecast is then
too short."""

WRITING_SECONDS = 0.002
"""Of a pseudo-image that is drawn, written, read and put in its place, beside its name:
counted on 30,000 of 28 pixels, on two busy cores."""

MOVING_LOOKS = 1.4
"""Looks at a picture that its step towards its features costs: timed side by side at 28
pixels on one core, 1.26 to 1.56."""

TIMED_PASSES, TIMED_ROWS = 3, 8192
BATCH, TIMED_CALLS = 64, 4


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


def teaching_seconds(
    recipe: Recipe,
    *,
    images: int,
    resolution: int,
    channels: int,
    classes: int,
    device: str,
) -> float:
    """Time of fitting the private teacher, and of its naming the synthetic images.

    Without its principal components, which take seconds.

    Args:
        images: Private ones at most: a declared number.
        channels: Of them; 3 where that is not known yet.
    """
    if not recipe.teacher_share:
        return 0.0
    drawn = recipe.images_per_class * classes * NAMED_DRAWS
    seen = PSEUDO_IMAGES + images + (drawn if recipe.teacher_labels else 0)
    rows = recipe.teacher_steps * images
    return seen / images_per_second(resolution, channels, device) + (
        rows / rows_per_second(recipe.teacher_components, classes)
    )


def moments_seconds(recipe: Recipe, classes: int) -> float:
    """Time of drawing the synthetic images from the moments, and of writing them.

    Without the moments themselves, which take seconds.
    """
    drawn = NAMED_DRAWS if recipe.teacher_labels else 1
    return recipe.images_per_class * classes * drawn * WRITING_SECONDS


def matching_seconds(
    recipe: Recipe,
    *,
    images: int,
    resolution: int,
    channels: int,
    classes: int,
    device: str,
) -> float:
    """Time of looking for the features of private images, and of moving pictures.

    Args:
        images: Private ones at most: a declared number.
        channels: Of them; 3 where that is not known yet.
    """
    drawn = recipe.images_per_class * classes
    drawn *= NAMED_DRAWS if recipe.teacher_labels else 1
    moved = REFERENCE + drawn + (PSEUDO_IMAGES if recipe.teacher_share else 0)
    steps, times = recipe.moment_features_rounds, 1
    if recipe.moment_features_cells > 1:
        steps, times = steps + CELL_ROUNDS, 2
    looks = images * times + (REFERENCE + moved * MOVING_LOOKS) * steps
    return looks / images_per_second(resolution, channels, device)


def refining_seconds(recipe: Recipe, folder: Path, classes: int, device: str) -> float:
    """Time in which a public network refines the synthetic images.

    Args:
        folder: The checkpoint's.
    """
    drawn = recipe.images_per_class * classes
    drawn *= NAMED_DRAWS if recipe.teacher_labels else 1
    return drawn * recipe.refine_steps / calls_per_second(folder, device)


@lru_cache(maxsize=16)
def calls_per_second(folder: Path, device: str) -> float:
    """How many images a network denoises, on this machine as it is now.

    Timed on random images, and remembered.
    """
    checkpoint, hardware = load_checkpoint(folder), choose_hardware(device)
    network = checkpoint.network.to(hardware.device).eval()
    side, channels = network.config.resolution, network.config.image_channels
    images = torch.zeros(BATCH, channels, side, side, device=hardware.device)
    labels = torch.zeros(BATCH, dtype=torch.int64, device=hardware.device)
    begun = time.perf_counter()
    refine(
        network, images, labels, process=checkpoint.card.predicts, sigma=1.0,
        steps=TIMED_CALLS, autocast=hardware.autocast(),
        generator=torch.Generator(hardware.device),
    )  # fmt: skip
    return BATCH * TIMED_CALLS / (time.perf_counter() - begun)


@lru_cache(maxsize=16)
def images_per_second(resolution: int, channels: int, device: str) -> float:
    """How fast the teacher looks at images, on this machine as it is now.

    Timed on random images, a chunk for every worker, and remembered. The fastest pass
    counts: the first one finds memory and workers cold, and takes twice as long.

    Raises:
        UserError: when it cannot look at images of this size.
    """
    check_resolution(resolution)
    look, hardware = scattering(resolution, channels), choose_hardware(device)
    generator = torch.Generator().manual_seed(0)
    number = images_in_chunk(resolution) * hardware.threads
    shape = (number, channels, resolution, resolution)
    images = torch.rand(shape, generator=generator) * 2 - 1
    passes = []
    for _ in range(TIMED_PASSES):
        begun = time.perf_counter()
        in_chunks(look, images, hardware)
        passes.append(time.perf_counter() - begun)
    return number / min(passes)


@lru_cache(maxsize=16)
def rows_per_second(components: int, classes: int) -> float:
    """How fast one release of the teacher's gradient goes through images it has seen.

    Timed on random features, and remembered.
    """
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(TIMED_ROWS, components + 1, generator=generator)
    rows = torch.arange(TIMED_ROWS)
    lessons = Lessons(
        coefficients=features,
        labels=rows % classes,
        weights=torch.ones(TIMED_ROWS),
        units=rows,
        classes=classes,
    )
    begun = time.perf_counter()
    sum_of_gradients(lessons, torch.zeros(classes, components + 1))
    return TIMED_ROWS / (time.perf_counter() - begun)


def network_calls(recipe: Recipe) -> int:
    """How often the network is asked for one synthetic image."""
    # Heun asks twice a step, but once in the last; guidance asks for two classes.
    times = 2 * recipe.sampler_steps - 1 if recipe.sampler == "heun" else 0
    return (times or recipe.sampler_steps) * (2 if recipe.guidance else 1)
