"""The parts of the engine that the checks drive, and the made-up data they drive with.

Broken variants (`controls.py`) are values that wrap these functions. Nothing is ever
patched, so a training in the same process keeps its noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.privacy import accounting, clipping, mechanism
from core.privacy.accounting import Charge
from core.privacy.mechanism import Mechanism


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The functions under test; the real ones, or a variant broken on purpose.

    Attributes:
        step: As `mechanism.private_step`.
        release: As `mechanism.private_sum`.
        clipped_sum: As `clipping.clipped_sum`.
        epsilon: As `accounting.epsilon`.
    """

    step: Callable[..., Tensor]
    release: Callable[..., Tensor]
    clipped_sum: Callable[..., Tensor]
    epsilon: Callable[..., float]

    @classmethod
    def real(cls) -> Engine:
        """The engine that trains."""
        return cls(
            step=mechanism.private_step,
            release=mechanism.private_sum,
            clipped_sum=clipping.clipped_sum,
            epsilon=accounting.epsilon,
        )


class OneThread:
    """The pool of a clipped sum, without threads."""

    threads = 1

    def map(
        self, function: Callable[[np.ndarray], Tensor], *slices: Sequence[np.ndarray]
    ) -> Iterable[Tensor]:
        """Apply `function`, in order."""
        return map(function, *slices)


def made_up(**changes: Any) -> Mechanism:
    """A mechanism whose constants all differ, so that none can stand in for another."""
    constants: dict[str, Any] = {
        "population": 2000,
        "sampling_probability": 0.1,
        "batch_cap": 281,
        "noise_multiplier": 1.7,
        "clip_norm": 0.6,
        "divisor": 190.0,
        "steps": 20,
    }
    return Mechanism(**(constants | changes))


def no_charge(charge: Charge) -> None:
    """Commits nothing: made-up data costs nothing."""


def step_noise(engine: Engine, size: int, *, present: int = 2000) -> np.ndarray:
    """A step's noise in units of its promised standard deviation: float64 [size].

    All units contribute zero; with `present` 0 the sample is empty.
    """
    made = made_up()
    noisy = engine.step(
        made,
        present=present,
        clipped_sum=lambda units: torch.zeros(size),
        commit=no_charge,
    )
    promised = made.noise_multiplier * made.clip_norm / made.divisor
    return np.asarray(noisy.double().numpy() / promised)


def release_noise(engine: Engine, size: int) -> np.ndarray:
    """The same for a sum over all units that is released once: float64 [size]."""
    noisy = engine.release(
        lambda: torch.zeros(size),
        sensitivity=0.7,
        noise_multiplier=1.3,
        commit=no_charge,
    )
    return np.asarray(noisy.double().numpy() / (0.7 * 1.3))
