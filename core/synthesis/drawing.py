"""What synthetic images are drawn from: a privately trained network, or the moments,
as they are or refined by a public network.

Post-processing of either. An image depends on its class, its number and a public seed
only (and on how many are drawn at once), so that a stopped run comes to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoints.store import Checkpoint, load_checkpoint
from core.diffusion.samplers import STILL, Churn, check_sampler, refine, sample
from core.parallel import Hardware

Drawing = Callable[[int, int, int], Tensor]
"""(class, first number, count) → float32 [count, c, H, W] in [-1, 1]."""

PseudoImages = Callable[[Tensor, torch.Generator], Tensor]
"""(int64 [n] classes, random numbers) → float32 [n, c, H, W] in [-1, 1]."""


def from_network(
    model: Path,
    *,
    grey: bool,
    sampler: str,
    sampler_steps: int,
    hardware: Hardware,
    guidance: float = 0.0,
    churn: Churn = STILL,
    seed: int = 0,
) -> Drawing:
    """Samples of a checkpoint.

    Args:
        model: A checkpoint folder.
        grey: Average the colour channels into one.
        sampler, sampler_steps, guidance, churn: As `diffusion.samplers.sample` has
            them.
        seed: Public.

    Raises:
        UserError: for an unknown sampler, or guidance that the network was not trained
            for.
    """
    check_sampler(sampler, sampler_steps, guidance, churn)
    checkpoint = load_checkpoint(model)
    network = checkpoint.network.to(hardware.device, memory_format=hardware.layout)

    def draw(label: int, first: int, count: int) -> Tensor:
        images = sample(
            network,
            torch.full((count,), label, device=hardware.device),
            process=checkpoint.card.predicts,
            sampler=sampler,
            steps=sampler_steps,
            autocast=hardware.autocast(),
            generator=_generator(seed, label, first, hardware.device),
            guidance=guidance,
            churn=churn,
        ).cpu()
        return images.mean(dim=1, keepdim=True) if grey else images

    return draw


def from_moments(draw: PseudoImages, *, seed: int = 0) -> Drawing:
    """Pseudo-images of a release themselves.

    Args:
        draw: What gives them.
        seed: Public.
    """

    def drawn(label: int, first: int, count: int) -> Tensor:
        generator = _generator(seed, label, first, torch.device("cpu"))
        return draw(torch.full((count,), label), generator)

    return drawn


def refined(
    draw: Drawing,
    public: Checkpoint,
    *,
    rows: Callable[[], Sequence[int]],
    sigma: float,
    steps: int,
    hardware: Hardware,
    seed: int = 1,
) -> Drawing:
    """What another drawing gives, refined by a public network.

    Args:
        draw: The other drawing.
        public: The network, as it was trained on public data.
        rows: Gives, for each class, the network's own that it is drawn as; called
            before the first image only.
        sigma, steps: As `diffusion.samplers.refine` has them.
        seed: Public; another than that of `draw`.
    """
    network = public.network.to(hardware.device, memory_format=hardware.layout).eval()
    chosen = cache(rows)

    def drawn(label: int, first: int, count: int) -> Tensor:
        images = draw(label, first, count).to(hardware.device)
        grey = images.shape[1] < network.config.image_channels
        clean = refine(
            network,
            images.expand(-1, network.config.image_channels, -1, -1),
            torch.full((count,), chosen()[label], device=hardware.device),
            process=public.card.predicts,
            sigma=sigma,
            steps=steps,
            autocast=hardware.autocast(),
            generator=_generator(seed, label, first, hardware.device),
        ).cpu()
        return clean.mean(dim=1, keepdim=True) if grey else clean

    return drawn


def _generator(
    seed: int, label: int, first: int, device: torch.device
) -> torch.Generator:
    generator = torch.Generator(device)
    generator.manual_seed((seed * 1_000 + label) * 10_000_000 + first)
    return generator
