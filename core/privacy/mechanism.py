"""The private mechanism: the one place where private records become a noisy sum.

This file is the audit surface. Everything private enters `private_step` or
`private_sum`, and leaves them only with noise on it; what follows is post-processing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from core.privacy.accounting import Charge
from core.privacy.noise import gaussian
from core.privacy.sampling import batch_cap, draw_units

ClippedSum = Callable[[np.ndarray], Tensor]
"""units → float64 [d]: Σ of their vectors, each of L2 norm ≤ clip_norm."""

Commit = Callable[[Charge], None]
"""Writes a charge to the ledger and returns when it is on disk."""

PORTION = 2**20
"""Coordinates that are in double precision at a time."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """The Poisson-subsampled Gaussian mechanism of DP-SGD, with all its constants.

    One frozen object yields the sampler, the clip bound, the noise and the accountant's
    event, so that what is accounted is what runs. Every field is a public constant;
    none is computed from the private data.

    Attributes:
        population: Public upper bound on the number of units (the declared count).
        sampling_probability: q, 0 < q < 1.
        batch_cap: A sample is cut down to so many units.
        noise_multiplier: σ: noise standard deviation ÷ clip_norm.
        clip_norm: C > 0, of one unit's gradient.
        divisor: What the noisy sum is divided by.
        steps: T ≥ 1, the committed number of steps.

    Raises:
        UserError: when a field is out of range.
    """

    population: int
    sampling_probability: float
    batch_cap: int
    noise_multiplier: float
    clip_norm: float
    divisor: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_probability < 1:
            raise UserError(
                "The batch must be smaller than the declared number of records, and "
                "above 0: lower the batch size, or check the declared number."
            )
        for name in ("population", "batch_cap", "steps", "clip_norm", "divisor"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name.replace('_', ' ')} must be above 0.")
        if not self.noise_multiplier > 0:
            raise UserError("The noise multiplier must be above 0.")

    @classmethod
    def poisson(
        cls,
        *,
        population: int,
        batch_size: int,
        noise_multiplier: float,
        clip_norm: float,
        steps: int,
    ) -> Mechanism:
        """Expected batch `batch_size`, also the divisor; capped at mean + 6 sd."""
        probability = batch_size / population
        if not 0 < probability < 1:
            raise UserError(
                f"The batch of {batch_size:,} must be smaller than the declared number "
                f"of records, {population:,}, and above 0: lower the batch size."
            )
        return cls(
            population=population,
            sampling_probability=probability,
            batch_cap=batch_cap(population, probability),
            noise_multiplier=noise_multiplier,
            clip_norm=clip_norm,
            divisor=float(batch_size),
            steps=steps,
        )

    def charge(self, steps: int) -> Charge:
        """What `steps` steps cost."""
        return Charge(
            noise_multiplier=self.noise_multiplier,
            count=steps,
            sampling_probability=self.sampling_probability,
            population=self.population,
            batch_cap=self.batch_cap,
        )


def private_step(
    mechanism: Mechanism, *, present: int, clipped_sum: ClippedSum, commit: Commit
) -> Tensor:
    """One step of DP-SGD up to the noisy mean gradient: float32 [d].

    Guarantee: with `present` ≤ population and `clipped_sum` of sensitivity clip_norm,
    the result is one use of the truncated Poisson-subsampled Gaussian mechanism with
    noise multiplier σ, and the ledger held its charge before any record was read.
    An empty sample is a noise-only step.

    Args:
        present: Units in the data set; private. Units beyond the declared population
            are never drawn.
        commit: Called once, first. When it raises, nothing was read.
    """
    # PRIVACY: rule 3, charge before you look.
    commit(mechanism.charge(1))
    # PRIVACY: rule 1, exact Poisson sampling from at most the declared population.
    units = draw_units(
        min(present, mechanism.population),
        mechanism.sampling_probability,
        mechanism.batch_cap,
    )
    total = clipped_sum(units)
    noisy = _with_noise(total, mechanism.noise_multiplier * mechanism.clip_norm)
    # PRIVACY: a public constant, never the size of the sample drawn.
    return noisy / mechanism.divisor


def private_sum(
    bounded_sum: Callable[[], Tensor],
    *,
    sensitivity: float,
    noise_multiplier: float,
    commit: Commit,
) -> Tensor:
    """A sum over all units, released once: float32, of the shape of the sum.

    A sum in double precision gets its noise before it is rounded: among a million units
    the rounding to single precision alone would move it by some hundredths.

    Guarantee: with a sum that one unit moves by at most `sensitivity` in L2 norm, the
    result is one use of the Gaussian mechanism with this noise multiplier, and the
    ledger held its charge before any record was read.
    """
    # PRIVACY: rule 3, charge before you look.
    commit(Charge(noise_multiplier=noise_multiplier, count=1))
    return _with_noise(bounded_sum(), noise_multiplier * sensitivity)


def _with_noise(total: Tensor, standard_deviation: float) -> Tensor:
    """`total` plus fresh noise once, then in single precision.

    The last digits of a sum that is finer than its noise would pass through it as they
    are, and tell two neighbouring data sets apart (Mironov 2012). So both are added in
    double precision and only the noisy sum is rounded.
    """
    flat = total.reshape(-1)
    noisy = torch.empty(flat.shape, dtype=torch.float32, device=flat.device)
    for first in range(0, len(flat), PORTION):
        part = flat[first : first + PORTION].double()
        noise = gaussian(len(part), standard_deviation).to(part.device)
        # PRIVACY: the only way out of this file. Sum and noise are rounded together: a
        # sum that is rounded before its noise may move by more than its sensitivity,
        # and noise that is coarser than the sum does not hide the sum's last digits.
        noisy[first : first + PORTION] = part + noise
    return noisy.view(total.shape)
