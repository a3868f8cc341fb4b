"""How long a run will take, from a short timing on random images."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

import torch

from core.checkpoints.cards import CheckpointCard
from core.checkpoints.store import load_checkpoint
from core.diffusion.objective import mean_loss
from core.diffusion.timesteps import UNIFORM
from core.diffusion.views import make_views
from core.parallel import choose_hardware, workers
from core.training.recipe import Recipe

SECONDS_OF_TIMING = 1.5
FORWARD_SHARE = 0.35
"""A network call without gradients costs about this share of one with them."""


def forecast_seconds(card: CheckpointCard, recipe: Recipe, device: str) -> float:
    """Time of the whole fine-tune on this machine as it is now, in seconds."""
    rate = _views_per_second(card.folder, recipe.augmentation_multiplicity, device)
    private = recipe.steps * recipe.batch_size * recipe.augmentation_multiplicity
    public = recipe.moment_images if recipe.moment_share else 0
    public += recipe.central_images if recipe.central_share else 0
    return (private + public) / rate


def sampling_seconds(
    card: CheckpointCard, recipe: Recipe, classes: int, device: str
) -> float:
    """Time of drawing the synthetic images, in seconds."""
    rate = _views_per_second(card.folder, recipe.augmentation_multiplicity, device)
    images = recipe.images_per_class * classes
    return images * network_calls(recipe) * FORWARD_SHARE / rate


def network_calls(recipe: Recipe) -> int:
    """How often the network is asked for one synthetic image."""
    # Heun asks twice a step, but once in the last; guidance asks for two classes.
    times = 2 * recipe.sampler_steps - 1 if recipe.sampler == "heun" else 0
    return (times or recipe.sampler_steps) * (2 if recipe.guidance else 1)


@lru_cache(maxsize=16)
def _views_per_second(folder: Path, multiplicity: int, device: str) -> float:
    """Forward and backward passes per second, on random images of the same shape.

    Cached: it says something about the machine, not about data.
    """
    checkpoint = load_checkpoint(folder)
    hardware = choose_hardware(device)
    network = checkpoint.network.to(hardware.device)
    parameters = [p for p in network.parameters() if p.requires_grad]
    config = network.config
    shape = (1, config.image_channels, config.resolution, config.resolution)
    views_at_once = min(multiplicity, 32)

    def passes(until: float) -> int:
        generator = torch.Generator(hardware.device)
        count = 0
        while count == 0 or time.monotonic() < until:
            views = make_views(
                torch.randn(shape, device=hardware.device, generator=generator),
                torch.zeros(1, dtype=torch.long, device=hardware.device),
                multiplicity=views_at_once,
                timesteps=UNIFORM,
                flip=True,
                generator=generator,
            )
            loss = mean_loss(
                network, views, checkpoint.card.predicts, hardware.autocast()
            )
            gradient = torch.autograd.grad(loss, parameters)
            # Waits for the device to finish.
            float(torch.linalg.vector_norm(gradient[0]))
            count += views_at_once
        return count

    with workers(hardware) as pool:
        list(pool.map(passes, [0.0] * pool.threads))
        begun = time.monotonic()
        counts = pool.map(passes, [begun + SECONDS_OF_TIMING] * pool.threads)
        return sum(counts) / (time.monotonic() - begun)
