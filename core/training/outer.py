"""The outer timesteps: what public images teach while private ones teach the rest.

How an image comes out of pure noise, and how its last noise is taken off, is much the
same for all images; what a data set looks like is decided between (DP-SynGen, arXiv
2412.09842; Ghalebikesabi et al. 2023, sec. 4, weigh the timesteps for the same reason).
So each step of DP-SGD shows private images at the middle timesteps only, and public
ones at the others. Both are clipped alike, and weigh as the recipe's mixture has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.checkpoints import public_images
from core.diffusion.views import to_pixels
from core.events import Watcher
from core.training.gradients import Sum
from core.training.moments import load_moments
from core.training.plan import Plan
from core.training.recipe import MOMENTS, Recipe
from core.training.units import UnitRecords
from core.training.warmup import MOMENTS_FILE

PICTURES_OF_A_KIND = 100
"""Procedural images that are drawn of each kind, before the first step."""

Public = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""(count, generator) → (uint8 [count, H, W, c], labels int64 [count])."""


@dataclass(frozen=True, kw_only=True)
class OuterTimesteps:
    """The public part of a training step.

    Guarantee: sees no private record. What it computes depends on the recipe, on public
    images, on outputs of the mechanism and on the number of updates alone, so that
    adding it to a noisy gradient is post-processing.

    Attributes:
        images: Where the public images come from.
        count: Of them in a step.
        weight: Of their mean gradient beside the private one.
    """

    images: Public
    count: int
    weight: float

    def gradient(self, total_of: Sum, updates: int) -> Tensor:
        """What is added to the noisy mean gradient: float32 [d].

        Args:
            updates: Steps that reached the weights; they choose the images, so that a
                run that goes on sees the ones that it would have seen.
        """
        generator = torch.Generator().manual_seed(updates)
        pixels, labels = self.images(self.count, generator)

        def draw(unit: int) -> UnitRecords:
            return pixels[unit : unit + 1], labels[unit : unit + 1]

        total = total_of(np.arange(self.count), draw, outer=True)
        return total.mul_(self.weight / self.count).float()


def outer_timesteps(
    plan: Plan, null_label: int | None, folder: Path, watcher: Watcher
) -> OuterTimesteps | None:
    """The public part of the plan's steps; None when the recipe has none.

    Args:
        null_label: The network's, where it has one.
        folder: Of the training; holds the noisy moments.
    """
    recipe, moments = plan.recipe, folder / MOMENTS_FILE
    if not recipe.outer_images:
        return None
    # Moments that were charged and lost cannot be had again: there are others.
    if recipe.outer_source == MOMENTS and moments.is_file():
        images = _of_moments(moments, len(plan.class_names))
    else:
        images = _procedural(plan, null_label, watcher)
    return OuterTimesteps(
        images=images, count=recipe.outer_images, weight=outer_weight(recipe)
    )


def outer_weight(recipe: Recipe) -> float:
    """Of the outer timesteps beside the private ones, as the mixture has them."""
    within = recipe.timesteps.weight_within(*recipe.private_timesteps)
    return (1 - within) / within


def _of_moments(path: Path, classes: int) -> Public:
    moments = load_moments(path)

    def images(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(classes, (count,), generator=generator)
        return to_pixels(moments.draw(labels, generator)), labels

    return images


def _procedural(plan: Plan, null_label: int | None, watcher: Watcher) -> Public:
    """Of no private class: without one where the network knows how, else of any."""
    kinds = public_images.PROCEDURAL
    drawn, _ = public_images.draw_public_images(
        PICTURES_OF_A_KIND * len(kinds),
        plan.resolution,
        seed=0,
        watcher=watcher,
        kinds=kinds,
    )
    pixels = torch.from_numpy(drawn)
    if plan.image_channels == 1:
        pixels = pixels.float().mean(dim=3, keepdim=True).round().byte()

    def images(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(pixels), (count,), generator=generator)
        labels = torch.randint(len(plan.class_names), (count,), generator=generator)
        if null_label is not None:
            labels = torch.full_like(labels, null_label)
        return pixels[chosen], labels

    return images
