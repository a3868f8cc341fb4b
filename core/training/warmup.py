"""What happens to the public network before DP-SGD: private labels, then a warm-up.

The warm-up trains on what was released with noise already, so that it costs nothing
beyond that release, however long it takes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoints.scratch import is_scratch
from core.checkpoints.store import load_checkpoint
from core.diffusion.networks import DenoisingNetwork, adapt_classes
from core.diffusion.timesteps import UNIFORM
from core.events import Progress, Watcher
from core.parallel import Hardware
from core.training.moments import (
    ClassMoments,
    load_moments,
    release_moments,
    save_moments,
)
from core.training.plan import Plan
from core.training.public import Batch, PublicTraining, train
from core.training.purse import Purse
from core.training.units import UnitImages

WARMUP_BATCH = 64
LEARNED_SPREAD, RANDOM_SPREAD = 0.1, 1.0
"""Of fresh label rows, in parts of the public rows' own: a trained network expects rows
near those that it knows; one that starts from nothing has no use for rows alike."""


def public_network(plan: Plan) -> DenoisingNetwork:
    """The public network with a fresh label for every private class."""
    public = load_checkpoint(plan.checkpoint.folder)
    return adapt_classes(
        public.network,
        len(plan.class_names),
        generator=torch.Generator().manual_seed(0),
        spread=RANDOM_SPREAD if is_scratch(plan.checkpoint.name) else LEARNED_SPREAD,
        null_class=plan.recipe.label_dropout > 0,
    )


def warmed_up(
    plan: Plan, units: UnitImages, purse: Purse, folder: Path, hardware: Hardware,
    watcher: Watcher,
) -> DenoisingNetwork:  # fmt: skip
    """The public network, trained on the releases that the plan holds.

    Guarantee: the private images are read by the releases only, each charged first and
    made at most once; all else is post-processing.
    """
    network = public_network(plan).to(hardware.device)
    moments = _moments(plan, units, purse, folder, watcher)
    if moments is not None:
        telling = _telling(watcher, epsilon=purse.epsilon())
        _learn_moments(plan, network, moments, folder, hardware, telling)
    return network


def _telling(watcher: Watcher, **figures: float) -> Watcher:
    """The same watcher; every report also carries these public figures."""

    def report(progress: Progress) -> None:
        watcher.report(replace(progress, figures=figures))

    return replace(watcher, report=report)


def _moments(
    plan: Plan, units: UnitImages, purse: Purse, folder: Path, watcher: Watcher
) -> ClassMoments | None:
    path = folder / "moments.safetensors"
    if path.is_file():
        return load_moments(path)
    # PRIVACY: a release that was begun is paid for; it is never made twice.
    if plan.moments is None or purse.moments_charged():
        return None
    moments = release_moments(plan.moments, units, commit=purse.commit, watcher=watcher)
    save_moments(moments, path)
    return moments


def _learn_moments(
    plan: Plan,
    network: DenoisingNetwork,
    moments: ClassMoments,
    folder: Path,
    hardware: Hardware,
    watcher: Watcher,
) -> None:
    """Train on pseudo-images: post-processing of what was released."""
    channels = network.config.image_channels

    def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(len(plan.class_names), (count,), generator=generator)
        images = moments.draw(labels, generator)
        return images.expand(-1, channels, -1, -1), labels

    _learn(
        plan, network, batch, hardware, watcher,
        images=plan.recipe.moment_images,
        learning_rate=plan.recipe.moment_learning_rate,
        activity="Learning from the noisy moments",
        state=folder / "warm-up.safetensors",
    )  # fmt: skip


def _learn(
    plan: Plan,
    network: DenoisingNetwork,
    batch: Batch,
    hardware: Hardware,
    watcher: Watcher,
    *,
    images: int,
    learning_rate: float,
    activity: str,
    state: Path,
) -> None:
    train(
        network,
        batch,
        PublicTraining(
            steps=max(1, images // WARMUP_BATCH),
            batch_size=WARMUP_BATCH,
            learning_rate=learning_rate,
            warmup_steps=50,
            ema_decay=0.995,
            timesteps=UNIFORM,
            flip=plan.recipe.flip,
            crop=plan.recipe.crop,
            label_dropout=plan.recipe.label_dropout,
        ),
        parameterisation=plan.checkpoint.predicts,
        hardware=hardware,
        activity=activity,
        watcher=watcher,
        state=state,
    )
