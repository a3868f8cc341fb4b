"""Which timesteps the training spends its effort on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from core.diffusion.schedules import TIMESTEPS, DiscreteSchedule, Schedule
from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TimestepMixture:
    """t ~ Σ w_i U[l_i, u_i) with u_i = l_{i+1} (Ghalebikesabi et al. 2023, sec. 4).

    A pretrained network already knows how to remove a little noise, and how to turn
    pure noise into something image-like; the middle is where the data set decides.

    Attributes:
        weights: w_1 … w_k, each ≥ 0, of sum 1.
        bounds: l_1, u_1 = l_2, …, u_k: rising integers from 0 to 1000, those of the
            linear chain, on which the paper trains.

    Raises:
        UserError: when they are not such.
    """

    weights: tuple[float, ...]
    bounds: tuple[int, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.bounds))
        if (
            len(self.bounds) != len(self.weights) + 1
            or not rising
            or (self.bounds[0], self.bounds[-1]) != (0, TIMESTEPS)
            or any(weight < 0 for weight in self.weights)
            or abs(sum(self.weights) - 1) > 1e-9
        ):
            raise UserError(
                "The recipe's timestep mixture needs weights that add up to 1 and one "
                f"more rising bound from 0 to {TIMESTEPS}: got {self.weights} and "
                f"{self.bounds}."
            )

    def on(self, schedule: Schedule) -> TimestepMixture:
        """The same weights for the same noise levels, as this schedule numbers them.

        Between 30 and 600 the linear chain has σ from 0.11 to 6.2, a cosine chain only
        from 0.06 to 1.4: the middle, where the data set decides, lies elsewhere. A part
        of noise levels that the schedule does not train is left out.

        Raises:
            UserError: when nothing is left.
        """
        trained = schedule.sigma(torch.arange(TIMESTEPS).double())
        inner = torch.tensor(self.bounds[1:-1]).double()
        same = torch.searchsorted(trained, DiscreteSchedule().sigma(inner))
        bounds = (0, *same.tolist(), TIMESTEPS)
        return self._only(
            {
                first: weight
                for weight, (first, last) in zip(
                    self.weights, pairwise(bounds), strict=True
                )
                if first < last
            }
        )

    def weight_within(self, lower: int, upper: int) -> float:
        """How often a timestep is one of [lower, upper): in [0, 1]."""
        return sum(self._cut(lower, upper, inside=True).values())

    def within(self, lower: int, upper: int) -> TimestepMixture:
        """The mixture of the timesteps in [lower, upper) alone.

        Raises:
            UserError: when it has none of them.
        """
        return self._only(self._cut(lower, upper, inside=True))

    def outside(self, lower: int, upper: int) -> TimestepMixture:
        """The mixture of the other timesteps alone.

        Raises:
            UserError: when it has none of them.
        """
        return self._only(self._cut(lower, upper, inside=False))

    def _cut(self, lower: int, upper: int, *, inside: bool) -> dict[int, float]:
        """Parts that end at `lower` and `upper` too: start → weight, 0 if not meant."""
        parts = {}
        for weight, (first, last) in zip(
            self.weights, pairwise(self.bounds), strict=True
        ):
            edges = (first, *(e for e in (lower, upper) if first < e < last), last)
            for start, end in pairwise(edges):
                meant = (lower <= start < upper) is inside
                parts[start] = weight * (end - start) / (last - first) * meant
        return parts

    @staticmethod
    def _only(parts: dict[int, float]) -> TimestepMixture:
        total = sum(parts.values())
        if not total > 0:
            raise UserError(
                "The recipe's timestep mixture leaves no timesteps for the private "
                "images, or none for the public ones: correct its timestep weights or "
                "its private timesteps."
            )
        return TimestepMixture(
            weights=tuple(weight / total for weight in parts.values()),
            bounds=(*parts, TIMESTEPS),
        )

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` timesteps, float64 in [0, 1000), on the generator's device.

        Not whole: a discrete schedule rounds them down, a continuous one does not.
        """
        place = {"generator": generator, "device": generator.device}
        weights = torch.tensor(self.weights, device=generator.device)
        bounds = torch.tensor(self.bounds, device=generator.device).double()
        part = torch.multinomial(weights, count, replacement=True, generator=generator)
        lower, upper = bounds[part], bounds[part + 1]
        within = (torch.rand(count, **place) * (upper - lower).float()).double()
        # A float32 product can round up to the width itself; the bound is exclusive.
        return torch.minimum(lower + within, torch.nextafter(upper, lower))


UNIFORM = TimestepMixture(weights=(1.0,), bounds=(0, TIMESTEPS))
