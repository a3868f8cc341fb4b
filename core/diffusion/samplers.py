"""From noise to images.

All samplers work on the denoised image D(x; σ) at falling noise levels σ, so each of
them serves every parameterisation; on the discrete processes they are what diffusers'
schedulers compute (tested against these).

Sampling reads the private weights' noised descendants only, so it is post-processing:
any sampler, any number of images, at no privacy cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diffusion.networks import DenoisingNetwork
from core.diffusion.process import Process
from core.diffusion.schedules import TIMESTEPS
from core.errors import UserError
from core.parallel import free_memory, out_of_memory


@dataclass(frozen=True, kw_only=True)
class Churn:
    """Noise added back at each step of the sampler "heun" (Karras et al. 2022, alg. 2).

    Attributes:
        amount: S_churn; 0 for a deterministic sampler.
        from_sigma, to_sigma: S_min and S_max: the noise levels where it is added.
        noise: S_noise: its standard deviation, about 1.
    """

    amount: float = 0.0
    from_sigma: float = 0.05
    to_sigma: float = 50.0
    noise: float = 1.0


STILL = Churn()

LAST_SIGMA = 0.02
"""Where refining ends: noise too small to be seen in 8 bits a channel after a step."""


@dataclass(frozen=True)
class _Draw:
    """One batch on its way: what every sampler needs."""

    denoise: Callable[[Tensor, float], Tensor]
    noise: Callable[[], Tensor]
    sigmas: tuple[float, ...]
    churn: Churn

    def steps(self) -> list[tuple[float, float]]:
        """(σ now, σ next); the last one is 0."""
        return list(zip(self.sigmas, (*self.sigmas[1:], 0.0), strict=True))


def _ddim(draw: _Draw, images: Tensor, *, stochastic: bool = False) -> Tensor:
    """Song et al. 2021, eq. 12, with η = 0 or 1."""
    for sigma, lower in draw.steps():
        clean = draw.denoise(images, sigma)
        direction = (images - clean) / sigma
        down, up = _split(sigma, lower) if stochastic else (lower, 0.0)
        images = clean.clamp(-1, 1) + down * direction
        if up:
            images += up * draw.noise()
    return images


def _stochastic_ddim(draw: _Draw, images: Tensor) -> Tensor:
    return _ddim(draw, images, stochastic=True)


def _euler_maruyama(draw: _Draw, images: Tensor) -> Tensor:
    """The reverse SDE of σ(t) = t in plain steps (Song et al. 2021, eq. 6).

    What Dockhorn et al. 2022 call stochastic DDIM. It has more noise than "ddim-
    stochastic" where steps are few, and comes to the same with many.
    """
    for sigma, lower in draw.steps():
        clean = draw.denoise(images, sigma)
        if lower == 0:
            return clean
        images = images + 2 * (lower - sigma) * (images - clean) / sigma
        images = images + math.sqrt(2 * (sigma - lower) * sigma) * draw.noise()
    return images


def _ancestral(draw: _Draw, images: Tensor) -> Tensor:
    """Ho et al. 2020, algorithm 2, with the posterior's variance (eq. 7)."""
    for sigma, lower in draw.steps():
        clean = draw.denoise(images, sigma).clamp(-1, 1)
        down, up = _split(sigma, lower)
        images = clean + down / sigma * (images - clean)
        if up:
            images += up * draw.noise()
    return images


def _split(sigma: float, lower: float) -> tuple[float, float]:
    """Noise kept, and noise drawn afresh; together `lower` (the posterior's share)."""
    return lower**2 / sigma, lower * math.sqrt(1 - (lower / sigma) ** 2)


def _dpm_solver(draw: _Draw, images: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), with λ = −ln σ."""
    before: Tensor | None = None
    step_before = 0.0
    for sigma, lower in draw.steps():
        clean = draw.denoise(images, sigma)
        if lower == 0:
            return clean
        step = math.log(sigma / lower)
        ahead = clean
        if before is not None:
            ahead = clean + step / (2 * step_before) * (clean - before)
        images = lower / sigma * images - math.expm1(-step) * ahead
        before, step_before = clean, step
    return images


def _heun(draw: _Draw, images: Tensor) -> Tensor:
    """Karras et al. 2022, algorithm 2: two network calls a step, noise added back."""
    churn = draw.churn
    share = min(churn.amount / len(draw.sigmas), math.sqrt(2) - 1)
    for sigma, lower in draw.steps():
        higher = sigma
        if share and churn.from_sigma <= sigma <= churn.to_sigma:
            higher = sigma * (1 + share)
            added = churn.noise * math.sqrt(higher**2 - sigma**2)
            images = images + added * draw.noise()
        slope = (images - draw.denoise(images, higher)) / higher
        ahead = images + (lower - higher) * slope
        if lower:
            next_slope = (ahead - draw.denoise(ahead, lower)) / lower
            ahead = images + (lower - higher) * (slope + next_slope) / 2
        images = ahead
    return images


SAMPLERS: dict[str, Callable[[_Draw, Tensor], Tensor]] = {
    "ancestral": _ancestral,
    "ddim": _ddim,
    "ddim-stochastic": _stochastic_ddim,
    "dpm-solver++": _dpm_solver,
    "euler-maruyama": _euler_maruyama,
    "heun": _heun,
}


def check_sampler(
    name: str, steps: int, guidance: float = 0.0, churn: Churn = STILL
) -> None:
    """Raise `UserError` when there is no such sampler, or its settings make no sense.

    Args:
        guidance: See `sample`.
    """
    if name not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise UserError(f"The sampler {name!r} is unknown: use one of {known}.")
    if not 1 <= steps <= TIMESTEPS:
        raise UserError(
            f"The sampler needs between 1 and {TIMESTEPS} steps, not {steps}."
        )
    if not 0 <= guidance <= 100:
        raise UserError(f"Guidance must be between 0 (none) and 100, not {guidance}.")
    if churn != STILL and name != "heun":
        raise UserError(
            f"Only the sampler heun takes churn, not {name}: remove it, or use heun."
        )
    if churn.amount < 0 or churn.noise <= 0 or churn.from_sigma > churn.to_sigma:
        raise UserError(
            "Churn needs an amount of 0 or more, noise above 0, and a first noise "
            "level that is not above the last."
        )


@torch.no_grad()
def sample(
    network: DenoisingNetwork,
    labels: Tensor,
    *,
    process: Process,
    sampler: str,
    steps: int,
    autocast: torch.autocast,
    generator: torch.Generator,
    guidance: float = 0.0,
    churn: Churn = STILL,
) -> Tensor:
    """Images of the given classes.

    Args:
        labels: int64 [n], on the network's device.
        process: How the network was trained.
        steps: Noise levels; as many network calls, but for "heun" almost twice that.
        generator: On the network's device. Its seed may be public.
        guidance: How far to go beyond the class, away from no class; 0 for none
            (Ho & Salimans 2022, eq. 6).

    Returns:
        float32 [n, c, H, W], about in [-1, 1].

    Raises:
        UserError: for guidance with a network that has no null class, or when memory
            does not suffice for one image.
    """
    config = network.config
    if guidance and config.null_label is None:
        raise UserError(
            "The checkpoint was not trained to draw without a class, so it cannot be "
            "guided: set guidance to 0, or train with label dropout."
        )
    shape = (len(labels), config.image_channels, config.resolution, config.resolution)
    sigmas = tuple(process.schedule.levels(steps).tolist())
    draw = _Draw(
        denoise=_denoiser(network, labels, process, autocast, guidance),
        noise=lambda: torch.randn(shape, generator=generator, device=labels.device),
        sigmas=sigmas,
        churn=churn,
    )
    return SAMPLERS[sampler](draw, sigmas[0] * draw.noise())


@torch.no_grad()
def refine(
    network: DenoisingNetwork,
    images: Tensor,
    labels: Tensor,
    *,
    process: Process,
    sigma: float,
    steps: int,
    autocast: torch.autocast,
    generator: torch.Generator,
) -> Tensor:
    """The same images as the network would have drawn them.

    So much noise is added that what is wrong in them drowns, and taken away again by
    deterministic DDIM (SDEdit: Meng et al. 2022, algorithm 1).

    Args:
        images: float32 [n, c, H, W] in [-1, 1], on the network's device.
        labels: int64 [n], of the network's classes.
        process: How the network was trained.
        sigma: Standard deviation of the noise, above `LAST_SIGMA`.
        steps: Noise levels, evenly spaced on a log scale; as many network calls.
        generator: On the network's device. Its seed may be public.

    Returns:
        float32 [n, c, H, W], about in [-1, 1].

    Raises:
        UserError: when memory does not suffice for one image.
    """
    levels = torch.linspace(math.log(sigma), math.log(LAST_SIGMA), steps).exp()

    def noise() -> Tensor:
        return torch.randn(images.shape, generator=generator, device=images.device)

    draw = _Draw(
        denoise=_denoiser(network, labels, process, autocast),
        noise=noise,
        sigmas=tuple(levels.tolist()),
        churn=STILL,
    )
    return _ddim(draw, images + sigma * noise())


def _denoiser(
    network: DenoisingNetwork, labels: Tensor, process: Process,
    autocast: torch.autocast, guidance: float = 0.0,
) -> Callable[[Tensor, float], Tensor]:  # fmt: skip
    """D(x; σ), from whatever the network predicts."""

    rows = len(labels)

    def predict(inputs: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        with autocast:
            if not guidance:
                return network(inputs, time.expand(len(labels)), labels).float()
            both = torch.cat(
                [labels, torch.full_like(labels, network.config.null_label)]
            )
            answer = network(inputs.repeat(2, 1, 1, 1), time.expand(len(both)), both)
        named, unnamed = answer.float().chunk(2)
        return named + guidance * (named - unnamed)

    def in_portions(inputs: Tensor, time: Tensor) -> Tensor:
        """All rows; from when memory runs out, half as many of them at a time."""
        nonlocal rows
        while True:
            pairs = zip(inputs.split(rows), labels.split(rows), strict=True)
            try:
                return torch.cat([predict(part, time, named) for part, named in pairs])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            if rows == 1:
                raise UserError(
                    "Memory does not suffice to draw a single image: close other "
                    "programs, or choose a smaller checkpoint."
                )
            rows //= 2
            free_memory()

    def denoise(images: Tensor, sigma: float) -> Tensor:
        at = torch.tensor(sigma, dtype=torch.float64)
        by = process.coefficients(at)
        time = process.schedule.time(at).float().to(labels.device)
        answer = in_portions(by.scale.item() * images, time)
        return by.skip.item() * images + by.out.item() * answer

    return denoise
