"""From noise to images: diffusers' schedulers behind one function.

Sampling reads the private weights' noised descendants only, so it is post-processing:
any sampler, any number of images, at no privacy cost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.diffusion.networks import DenoisingNetwork
from core.diffusion.process import BETA_FIRST, BETA_LAST, TIMESTEPS, Parameterisation
from core.errors import UserError

_PREDICTION = {
    Parameterisation.NOISE: "epsilon",
    Parameterisation.VELOCITY: "v_prediction",
}


def _common(parameterisation: Parameterisation) -> dict:
    return {
        "num_train_timesteps": TIMESTEPS,
        "beta_start": BETA_FIRST,
        "beta_end": BETA_LAST,
        "beta_schedule": "linear",
        "prediction_type": _PREDICTION[parameterisation],
    }


def _ancestral(parameterisation: Parameterisation) -> object:
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        **_common(parameterisation), clip_sample=True, timestep_spacing="trailing"
    )


def _ddim(parameterisation: Parameterisation) -> object:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        **_common(parameterisation),
        clip_sample=True,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def _dpm_solver(parameterisation: Parameterisation) -> object:
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        **_common(parameterisation),
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
        thresholding=False,
    )


SAMPLERS: dict[str, Callable[[Parameterisation], object]] = {
    "ancestral": _ancestral,
    "ddim": _ddim,
    "dpm-solver++": _dpm_solver,
}


def check_sampler(name: str, steps: int) -> None:
    """Raise `UserError` when there is no such sampler, or the steps make no sense."""
    if name not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise UserError(f"The sampler {name!r} is unknown: use one of {known}.")
    if not 1 <= steps <= TIMESTEPS:
        raise UserError(
            f"The sampler needs between 1 and {TIMESTEPS} steps, not {steps}."
        )


@torch.no_grad()
def sample(
    network: DenoisingNetwork,
    labels: Tensor,
    *,
    parameterisation: Parameterisation,
    sampler: str,
    steps: int,
    autocast: torch.autocast,
    generator: torch.Generator,
) -> Tensor:
    """Images of the given classes.

    Args:
        labels: int64 [n], on the network's device.
        steps: Network calls per image.
        generator: On the network's device. Its seed may be public.

    Returns:
        float32 [n, c, H, W], about in [-1, 1].
    """
    scheduler = SAMPLERS[sampler](parameterisation)
    scheduler.set_timesteps(steps)
    config = network.config
    shape = (len(labels), config.image_channels, config.resolution, config.resolution)
    images = torch.randn(shape, generator=generator, device=labels.device)
    # Only the stochastic sampler takes a generator of noise; the others draw none.
    noise = {"generator": generator} if sampler == "ancestral" else {}
    for timestep in scheduler.timesteps:
        times = torch.full_like(labels, int(timestep))
        with autocast:
            predicted = network(images, times, labels).float()
        images = scheduler.step(predicted, timestep, images, **noise).prev_sample
    return images
