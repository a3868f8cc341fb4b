"""Noise levels: which are trained, how the network is told of them, which are sampled.

Everything is said in σ, the standard deviation of the noise on an unscaled image: the
noisy image x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε of the discrete processes is x_0 + σ·ε, scaled
by √ᾱ_t, with σ² = (1−ᾱ_t)/ᾱ_t (Karras et al. 2022, sec. 2 and Table 1).

A timestep is a number in [0, 1000), whatever the schedule: it is the quantile, in
thousandths, of the noise levels as they were trained. The same timestep is therefore
another noise level on another schedule (`TimestepMixture.on`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from core.errors import UserError

TIMESTEPS = 1000
BETA_FIRST, BETA_LAST = 1e-4, 0.02
LARGEST_COUNT = 10_000
LARGEST_SIGMA = math.exp(5.1)
"""Where sampling begins at most. A cosine chain goes on to 20,000, where an error of
1 % in a predicted ε is one of 200 pixel ranges in the image, which no later step takes
back. diffusers advises the same (`lambda_min_clipped`); a linear chain ends at 157."""


class Schedule(Protocol):
    """Ties a timestep, a noise level and what the network is told together.

    All tensors are float64; σ > 0.
    """

    @property
    def name(self) -> str:
        """As a card writes it."""

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Timesteps in [0, 1000) → σ, of the same shape."""

    def time(self, sigma: Tensor) -> Tensor:
        """σ → the number that the network is given for it, of the same shape."""

    def levels(self, steps: int) -> Tensor:
        """The noise levels of a sampler of so many steps: falling, [steps]."""


@dataclass(frozen=True)
class DiscreteSchedule:
    """A chain of `count` steps, of which the network is told the number.

    Attributes:
        curve: "linear" in β (Ho et al. 2020), or "cosine" (Nichol & Dhariwal 2021,
            eq. 17).
        count: Steps of the chain.
        rescaled: Whether the network is told the number times 1000 / count
            (improved-diffusion's rescale_timesteps).
    """

    curve: str = "linear"
    count: int = TIMESTEPS
    rescaled: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UserError: naming it.
        """
        if self.curve not in ("linear", "cosine"):
            raise UserError(
                f"The noise schedule {self.curve!r} is unknown: use linear or cosine."
            )
        if not 2 <= self.count <= LARGEST_COUNT:
            raise UserError(
                f"A noise schedule has between 2 and {LARGEST_COUNT:,} timesteps, not "
                f"{self.count}."
            )
        if self.curve == "linear" and self.count <= TIMESTEPS * BETA_LAST:
            raise UserError(
                f"A linear noise schedule of {self.count} timesteps would end beyond "
                f"pure noise: it needs more than {TIMESTEPS * BETA_LAST:g}."
            )

    @property
    def name(self) -> str:
        ending = "-rescaled" if self.rescaled else ""
        return f"{self.curve}-{self.count}{ending}"

    def sigma(self, timesteps: Tensor) -> Tensor:
        index = (timesteps * (self.count / TIMESTEPS)).long().clamp(0, self.count - 1)
        return _chain(self.curve, self.count).to(timesteps.device)[index]

    def time(self, sigma: Tensor) -> Tensor:
        """The number of the step whose noise level is nearest (on a log scale)."""
        logs = _chain(self.curve, self.count).to(sigma.device).log()
        between = (logs[1:] + logs[:-1]) / 2
        index = torch.bucketize(sigma.log(), between).double()
        return index * (TIMESTEPS / self.count) if self.rescaled else index

    def levels(self, steps: int) -> Tensor:
        """Evenly spaced, the noisiest included (Lin et al. 2024, sec. 3.3).

        No more of them than the chain has up to `LARGEST_SIGMA`.
        """
        chain = _chain(self.curve, self.count)
        count = int((chain <= LARGEST_SIGMA).sum())
        steps = min(steps, count)
        down = torch.arange(steps, dtype=torch.float64) * (count / steps)
        last = (count - down).round().long()
        return chain[last - 1]


@cache
def _chain(curve: str, count: int) -> Tensor:
    """σ of each step of a chain: float64 [count], rising."""
    if curve == "linear":
        scale = TIMESTEPS / count
        betas = torch.linspace(
            scale * BETA_FIRST, scale * BETA_LAST, count, dtype=torch.float64
        )
    else:
        at = torch.arange(count + 1, dtype=torch.float64) / count
        signal = torch.cos((at + 0.008) / 1.008 * math.pi / 2).square()
        betas = (1 - signal[1:] / signal[:-1]).clamp(max=0.999)
    signal = torch.cumprod(1 - betas, dim=0)
    return ((1 - signal) / signal).sqrt()


@dataclass(frozen=True)
class ContinuousSchedule:
    """VP in continuous time (Song et al. 2021; Karras et al. 2022, Table 1, "VP")."""

    name = "continuous"
    beta_min = 0.1
    beta_range = 19.9
    first_trained, first_sampled = 1e-5, 1e-3

    def sigma(self, timesteps: Tensor) -> Tensor:
        first = self.first_trained
        return self._at(first + (1 - first) * timesteps / TIMESTEPS)

    def time(self, sigma: Tensor) -> Tensor:
        spent = 2 * self.beta_range * sigma.square().log1p()
        at = ((self.beta_min**2 + spent).sqrt() - self.beta_min) / self.beta_range
        return (TIMESTEPS - 1) * at

    def levels(self, steps: int) -> Tensor:
        return self._at(
            torch.linspace(1, self.first_sampled, steps, dtype=torch.float64)
        )

    def _at(self, time: Tensor) -> Tensor:
        return (
            (self.beta_range * time.square() / 2 + self.beta_min * time).expm1().sqrt()
        )


@dataclass(frozen=True)
class LogUniformSchedule:
    """ln σ uniform, as VE trains (Karras et al. 2022, Table 1, "VE")."""

    name = "log-uniform"
    smallest, largest = 0.02, 100.0

    def sigma(self, timesteps: Tensor) -> Tensor:
        return self.smallest * (self.largest / self.smallest) ** (timesteps / TIMESTEPS)

    def time(self, sigma: Tensor) -> Tensor:
        return (sigma / 2).log()

    def levels(self, steps: int) -> Tensor:
        down = torch.linspace(1, 0, steps, dtype=torch.float64)
        return self.smallest * (self.largest / self.smallest) ** down


@dataclass(frozen=True)
class LogNormalSchedule:
    """ln σ ~ N(−1.2, 1.2²) (Karras et al. 2022, Table 1, "Ours"; Dockhorn et al. 2022).

    Sampled with ρ = 7 from 80 down to 0.002.
    """

    name = "log-normal"
    mean, deviation = -1.2, 1.2

    def sigma(self, timesteps: Tensor) -> Tensor:
        # The quantile, held off 0 and 1, where the normal distribution has none.
        share = (timesteps / TIMESTEPS).clamp(1e-7, 1 - 1e-7)
        return (self.mean + self.deviation * torch.special.ndtri(share)).exp()

    def time(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4

    def levels(self, steps: int) -> Tensor:
        return _bent(steps)


@dataclass(frozen=True)
class TangentSchedule:
    """σ = tan(π·t/2) with t uniform, from a log-SNR of 13 down to −9.

    What Dockhorn et al. 2022 train v on at ε = 0.2 (their configuration's loss.version
    v). Sampled as they do, with ρ = 7 from 80 down to 0.002.
    """

    name = "tangent"
    least, most = math.exp(-13 / 2), math.exp(9 / 2)

    def sigma(self, timesteps: Tensor) -> Tensor:
        first, last = math.atan(self.least), math.atan(self.most)
        return (first + (last - first) * timesteps / TIMESTEPS).tan()

    def time(self, sigma: Tensor) -> Tensor:
        return sigma.atan() * (2 / math.pi)

    def levels(self, steps: int) -> Tensor:
        return _bent(steps)


def _bent(steps: int) -> Tensor:
    """Karras et al. 2022, eq. 5, with ρ = 7, from 80 down to 0.002."""
    down = torch.linspace(1, 0, steps, dtype=torch.float64)
    high, low = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    return (low + down * (high - low)) ** 7


_CONTINUOUS = (
    ContinuousSchedule(),
    LogUniformSchedule(),
    LogNormalSchedule(),
    TangentSchedule(),
)


def parse_schedule(name: str) -> Schedule:
    """The schedule of this name.

    Raises:
        UserError: when there is none.
    """
    for continuous in _CONTINUOUS:
        if name == continuous.name:
            return continuous
    match name.split("-"):
        case [curve, count, *ending] if count.isdecimal() and ending in (
            [],
            ["rescaled"],
        ):
            return DiscreteSchedule(curve, int(count), rescaled=bool(ending))
    raise UserError(
        f"The noise schedule {name!r} is unknown: use for instance linear-1000, "
        "cosine-1000, continuous, log-uniform, log-normal or tangent."
    )
