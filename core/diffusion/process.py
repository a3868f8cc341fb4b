"""What the network is given, and what it is asked to predict.

One form for all (Karras et al. 2022, eq. 7): from x = y + σ·n the denoised image is

    D(x; σ) = c_skip(σ)·x + c_out(σ)·F(c_in(σ)·x, time(σ))

and F learns by least squares what makes D equal to y. With the weights λ(σ) of the
papers named below, the loss is in every case ‖F − target‖²: what differs is the
target, and how often each σ is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from core.diffusion.schedules import (
    ContinuousSchedule,
    DiscreteSchedule,
    LogNormalSchedule,
    LogUniformSchedule,
    Schedule,
    parse_schedule,
)
from core.errors import UserError

SIGMA_DATA = math.sqrt(1 / 3)
"""Standard deviation of pixels uniform in [-1, 1] (Dockhorn et al. 2022): public."""


class Parameterisation(Enum):
    """What a network predicts, after Dockhorn et al. 2022, sec. 3 and appendix C."""

    NOISE = "eps"
    """ε (Ho et al. 2020, eq. 14; Ghalebikesabi et al. 2023, eq. 1)."""

    VELOCITY = "v"
    """√ᾱ·ε − √(1−ᾱ)·x_0 (Salimans & Ho 2022, sec. 4)."""

    VP = "vp"
    """ε, in continuous time (Song et al. 2021)."""

    VE = "ve"
    """−ε, from an image that is not scaled down (Song et al. 2021)."""

    EDM = "edm"
    """What is easiest at each noise level (Karras et al. 2022, sec. 5)."""


_USUAL: dict[Parameterisation, Schedule] = {
    Parameterisation.NOISE: DiscreteSchedule(),
    Parameterisation.VELOCITY: DiscreteSchedule(),
    Parameterisation.VP: ContinuousSchedule(),
    Parameterisation.VE: LogUniformSchedule(),
    Parameterisation.EDM: LogNormalSchedule(),
}


@dataclass(frozen=True)
class Coefficients:
    """c_skip, c_out and c_in of the equation above, each of σ's shape."""

    skip: Tensor
    out: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Noisy:
    """What one training view asks of the network.

    Attributes:
        inputs: float32 [n, c, H, W], scaled as the network wants it.
        times: float32 [n], what the network is told of the noise level.
        target: float32 [n, c, H, W], what it should answer.
    """

    inputs: Tensor
    times: Tensor
    target: Tensor


@dataclass(frozen=True)
class Process:
    """A parameterisation on a noise schedule: how a checkpoint was trained.

    Attributes:
        parameterisation: What the network predicts.
        schedule: The noise levels.
    """

    parameterisation: Parameterisation
    schedule: Schedule

    @classmethod
    def usual(cls, parameterisation: Parameterisation) -> Process:
        """With the schedule that is meant where a name says none.

        It is the one that its paper trained on, but for v: there it is that of eps, as
        the starter was trained. Dockhorn et al. 2022 train "v-tangent".
        """
        return cls(parameterisation, _USUAL[parameterisation])

    @classmethod
    def parse(cls, name: str) -> Process:
        """The inverse of `name`: "eps", "v", "edm", "eps-cosine-4000-rescaled", …

        Raises:
            UserError: when the name is of none.
        """
        kind, _, schedule = name.partition("-")
        try:
            usual = cls.usual(Parameterisation(kind))
        except ValueError:
            known = ", ".join(kind.value for kind in Parameterisation)
            raise UserError(
                f"The parameterisation {name!r} is unknown: use one of {known}."
            ) from None
        if not schedule:
            return usual
        return cls(usual.parameterisation, parse_schedule(schedule))

    @property
    def name(self) -> str:
        """The parameterisation, then the schedule where it is not the usual one."""
        kind = self.parameterisation
        usual = self.schedule == _USUAL[kind]
        return kind.value if usual else f"{kind.value}-{self.schedule.name}"

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """c_skip, c_out and c_in at σ, float64 (Karras et al. 2022, Table 1)."""
        shrink = (1 + sigma.square()).rsqrt()
        one = torch.ones_like(sigma)
        match self.parameterisation:
            case Parameterisation.NOISE | Parameterisation.VP:
                return Coefficients(skip=one, out=-sigma, scale=shrink)
            case Parameterisation.VELOCITY:
                return Coefficients(
                    skip=shrink.square(), out=-sigma * shrink, scale=shrink
                )
            case Parameterisation.VE:
                return Coefficients(skip=one, out=sigma, scale=one)
            case Parameterisation.EDM:
                both = sigma.square() + SIGMA_DATA**2
                return Coefficients(
                    skip=SIGMA_DATA**2 / both,
                    out=sigma * SIGMA_DATA * both.rsqrt(),
                    scale=both.rsqrt(),
                )

    def diffuse(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Noisy:
        """Add noise, and say what the network should make of it.

        Args:
            clean: float32 [n, c, H, W] in [-1, 1].
            noise: standard normal, of the same shape.
            timesteps: [n] in [0, 1000).
        """
        sigma = self.schedule.sigma(timesteps.double())
        by = self.coefficients(sigma)

        def times(weight: Tensor, images: Tensor) -> Tensor:
            return weight.float().view(-1, 1, 1, 1) * images

        return Noisy(
            inputs=times(by.scale, clean) + times(by.scale * sigma, noise),
            times=self.schedule.time(sigma).float(),
            # (y − c_skip·(y + σ·n)) / c_out, without taking like from like.
            target=times((1 - by.skip) / by.out, clean)
            - times(by.skip * sigma / by.out, noise),
        )


def check_process(checkpoint: str, trained: str, wanted: str) -> None:
    """Refuse a recipe that contradicts the checkpoint it starts from.

    Args:
        checkpoint: The checkpoint's name, for the sentence.
        trained: The process on its card.
        wanted: The process that the recipe names: a parameterisation alone, or with a
            schedule; "" for whatever the checkpoint has.

    Raises:
        UserError: when they differ.
    """
    if not wanted:
        return
    has, wants = Process.parse(trained), Process.parse(wanted)
    names_schedule = "-" in wanted
    if has.parameterisation is wants.parameterisation and (
        not names_schedule or has.schedule == wants.schedule
    ):
        return
    raise UserError(
        f"The recipe is for a network trained as {wanted!r}, and the checkpoint "
        f"{checkpoint!r} was trained as {trained!r}: choose another recipe or "
        "checkpoint."
    )
