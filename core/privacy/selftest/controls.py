"""Engines broken on purpose: a check that overlooks one of them is worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.privacy.accounting import Charge
from core.privacy.mechanism import Mechanism
from core.privacy.noise import fresh_generator
from core.privacy.selftest.engine import Engine

Break = Callable[[Engine], Engine]


@dataclass(frozen=True, kw_only=True)
class Control:
    """One fault, and the checks that must see it.

    Attributes:
        name: The fault in words.
        broken: The engine with the fault.
        checks: Names of the checks.
    """

    name: str
    broken: Break
    checks: tuple[str, ...]


def _weakened(engine: Engine, factor: float) -> Engine:
    """The same claims, with noise of so many times the strength."""

    def step(mechanism: Mechanism, **inputs: Any) -> Tensor:
        weak = replace(mechanism, noise_multiplier=mechanism.noise_multiplier * factor)
        return engine.step(weak, **inputs)

    def release(bounded_sum: Any, *, noise_multiplier: float, **inputs: Any) -> Tensor:
        weak = noise_multiplier * factor
        return engine.release(bounded_sum, noise_multiplier=weak, **inputs)

    return replace(engine, step=step, release=release)


def without_noise(engine: Engine) -> Engine:
    """A millionth of the noise: none that anyone would notice."""
    return _weakened(engine, 1e-6)


def half_noise(engine: Engine) -> Engine:
    """Half the noise."""
    return _weakened(engine, 0.5)


def coarse_noise(engine: Engine) -> Engine:
    """Noise of the right strength, rounded to bfloat16."""

    def step(mechanism: Mechanism, **inputs: Any) -> Tensor:
        return engine.step(mechanism, **inputs).bfloat16().float()

    return replace(engine, step=step)


def fixed_key(engine: Engine) -> Engine:
    """The same noise in every step."""
    quiet = without_noise(engine)
    kept: dict[int, Tensor] = {}

    def step(mechanism: Mechanism, **inputs: Any) -> Tensor:
        total = quiet.step(mechanism, **inputs)
        size = total.numel()
        if size not in kept:
            kept[size] = torch.from_numpy(fresh_generator().standard_normal(size))
        noise = mechanism.noise_multiplier * mechanism.clip_norm * kept[size]
        return (total + noise / mechanism.divisor).float()

    return replace(engine, step=step)


def shuffled_batches(engine: Engine) -> Engine:
    """Batches of one size, dealt from a list that is shuffled anew for each epoch."""
    waiting: list[np.ndarray] = []

    def step(
        mechanism: Mechanism,
        *,
        present: int,
        clipped_sum: Callable[[np.ndarray], Tensor],
        **inputs: Any,
    ) -> Tensor:
        if not waiting:
            batches = round(1 / mechanism.sampling_probability)
            order = fresh_generator().permutation(present)
            waiting.extend(np.array_split(order, batches))
        batch = waiting.pop()
        return engine.step(
            mechanism,
            present=present,
            clipped_sum=lambda units: clipped_sum(batch),
            **inputs,
        )

    return replace(engine, step=step)


def without_limit(engine: Engine) -> Engine:
    """The cap on the batch forgotten."""

    def step(mechanism: Mechanism, **inputs: Any) -> Tensor:
        whole = replace(mechanism, batch_cap=mechanism.population)
        return engine.step(whole, **inputs)

    return replace(engine, step=step)


def without_clipping(engine: Engine) -> Engine:
    """A clip norm that never applies."""

    def clipped_sum(*units: Any, clip_norm: float, **inputs: Any) -> Tensor:
        return engine.clipped_sum(*units, clip_norm=1e6 * clip_norm, **inputs)

    return replace(engine, clipped_sum=clipped_sum)


def charged_afterwards(engine: Engine) -> Engine:
    """The ledger hears of a step when it is over."""

    def step(
        mechanism: Mechanism, *, commit: Callable[[Charge], None], **inputs: Any
    ) -> Tensor:
        owed: list[Charge] = []
        noisy = engine.step(mechanism, commit=owed.append, **inputs)
        for charge in owed:
            commit(charge)
        return noisy

    return replace(engine, step=step)


def understated(engine: Engine) -> Engine:
    """An accountant that counts every second step."""

    def epsilon(charges: Any, *conditions: Any) -> float:
        half = [replace(charge, count=max(1, charge.count // 2)) for charge in charges]
        return engine.epsilon(half, *conditions)

    return replace(engine, epsilon=epsilon)


AUDITS = ("audit of one step", "audit at epsilon 1", "audit at epsilon 8")

CONTROLS = (
    Control(name="no noise", broken=without_noise, checks=("noise strength", *AUDITS)),
    Control(
        name="half the noise",
        broken=half_noise,
        checks=("noise strength", "audit of one step", "audit at epsilon 8"),
    ),
    Control(name="coarse noise", broken=coarse_noise, checks=("noise shape",)),
    Control(
        name="one key for all steps", broken=fixed_key, checks=("noise freshness",)
    ),
    Control(
        name="shuffled batches",
        broken=shuffled_batches,
        checks=("batch sizes", "who is drawn"),
    ),
    Control(name="no batch limit", broken=without_limit, checks=("batch limit",)),
    Control(
        name="no clipping",
        broken=without_clipping,
        checks=("clipping", "audit of one step", "audit at epsilon 8"),
    ),
    Control(
        name="charged afterwards", broken=charged_afterwards, checks=("charge first",)
    ),
    Control(
        name="half the steps accounted", broken=understated, checks=("accountant",)
    ),
)
