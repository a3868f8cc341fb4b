"""Dirac canaries through the real step: what an attacker who sees everything learns.

Half of the canaries take part, by fair coins, each with a gradient of ten clip norms on
a coordinate of its own. They are sampled, clipped, summed, noised and divided by the
code that trains. An attacker who sees every noisy sum measures the noise on coordinates
that no record touches, then guesses which canaries took part, in the best way there is.
Being right more often than `canaries.best_share` permits is a violation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.privacy import canaries
from core.privacy.budget import Relation
from core.privacy.mechanism import Mechanism
from core.privacy.noise import fresh_generator
from core.privacy.sampling import batch_cap
from core.privacy.selftest.engine import Engine, OneThread, no_charge
from core.privacy.selftest.findings import Conditions, Finding, Measurement

DELTA = 1e-5
CONFIDENCE = 0.999
"""Of the estimates that are shown; the alarm has its own, far stricter threshold."""

AT_ONCE = 1000
"""Canaries in one run of the mechanism; more canaries are more runs."""

UNTOUCHED = 250
"""Coordinates of noise alone: an attacker who measures it there makes the most of noise
that is too weak, and every guess stays independent of the others."""

TOO_LONG = 10.0
"""Length of a canary's gradient, in clip norms: the clip has to work."""

SUREST = 0.1
"""Share of the canaries that the one-run bound calls "in", and "out"."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """One claim to test.

    Attributes:
        name: Of the check.
        mechanism: With the claim's constants; its population is `AT_ONCE`.
    """

    name: str
    mechanism: Mechanism


def _mechanism(*, probability: float, noise_multiplier: float, steps: int) -> Mechanism:
    return Mechanism(
        population=AT_ONCE,
        sampling_probability=probability,
        batch_cap=batch_cap(AT_ONCE, probability),
        noise_multiplier=noise_multiplier,
        clip_norm=0.3,
        divisor=AT_ONCE * probability,
        steps=steps,
    )


# Many sampled steps; the noise is that of ε = 1 and of ε = 8 at δ = 1e-5.
STRICT = Audit(
    name="audit at epsilon 1",
    mechanism=_mechanism(probability=0.2, noise_multiplier=3.685, steps=20),
)
LOOSE = Audit(
    name="audit at epsilon 8",
    mechanism=_mechanism(probability=0.2, noise_multiplier=0.899, steps=20),
)
# Everyone takes part (the mechanism wants a probability below 1): the plain Gaussian
# mechanism, for which the Gaussian estimate is exact.
ONE_STEP = Audit(
    name="audit of one step",
    mechanism=_mechanism(probability=1 - 1e-9, noise_multiplier=0.5, steps=1),
)


def strict(engine: Engine, conditions: Conditions) -> Finding:
    """The audit at ε = 1."""
    return _finding(STRICT, engine, conditions, conditions.size.canaries)


def loose(engine: Engine, conditions: Conditions) -> Finding:
    """The audit at ε = 8."""
    return _finding(LOOSE, engine, conditions, conditions.size.canaries)


def one_step(engine: Engine, conditions: Conditions) -> Finding:
    """The audit of one step with everybody."""
    return _finding(ONE_STEP, engine, conditions, conditions.size.canaries_of_one_step)


def _finding(
    audit: Audit, engine: Engine, conditions: Conditions, count: int
) -> Finding:
    made = audit.mechanism
    charge = made.charge(made.steps)
    claim = engine.epsilon([charge], DELTA, Relation.ADD_OR_REMOVE_ONE)
    permitted = canaries.best_share(charge)
    scores, inside = _attack(made, engine, conditions, count)
    record = canaries.guesses(scores, inside)
    mu = canaries.least_mu(record, CONFIDENCE)
    estimate = canaries.gaussian_epsilon(mu, DELTA)
    sure = round(SUREST * len(scores))
    one_run = canaries.one_run_epsilon(
        canaries.surest(scores, inside, sure), 2 * sure, len(scores), DELTA, CONFIDENCE
    )
    visible = canaries.visible_noise(record.canaries, permitted)
    return Finding(
        check=audit.name,
        question="Does an attacker who sees everything learn no more than claimed?",
        measurements=(
            Measurement(
                name=f"share of right guesses on {record.canaries:,} planted records",
                value=record.right / record.canaries,
                high=canaries.most_right(record.canaries, permitted) / record.canaries,
            ),
        ),
        smallest_fault=f"noise at {visible:.2f} of its strength",
        note=f"Claimed: epsilon {claim:.2f} at delta 1e-5. Estimated from the "
        f"guesses: {estimate:.2f} or more, {100 * CONFIDENCE:g} % sure.",
        figures={
            "epsilon_claimed": claim,
            "epsilon_estimate_lower_limit": estimate,
            "epsilon_one_run_lower_limit": one_run,
            "confidence": CONFIDENCE,
            "delta": DELTA,
            "smallest_visible_noise_factor": visible,
        },
    )


def _attack(
    made: Mechanism, engine: Engine, conditions: Conditions, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all canaries, float64 [m], and their coins, bool [m]."""
    scores, coins = [], []
    runs = max(1, count // AT_ONCE)
    for number in range(runs):
        conditions.reached(number / runs)
        inside = fresh_generator().random(AT_ONCE) < 0.5
        sums = _observe(made, engine, np.flatnonzero(inside))
        measured = float(np.std(sums[:, AT_ONCE:]))
        ratios = canaries.log_likelihood_ratio(
            sums[:, :AT_ONCE],
            sampling_probability=made.sampling_probability,
            noise_multiplier=max(measured, 1e-9 * made.noise_multiplier),
        )
        scores.append(ratios.sum(axis=0))
        coins.append(inside)
    return np.concatenate(scores), np.concatenate(coins)


def _observe(made: Mechanism, engine: Engine, members: np.ndarray) -> np.ndarray:
    """All noisy sums of one run ÷ clip norm: float64 [steps, AT_ONCE + UNTOUCHED]."""
    gradients = TOO_LONG * made.clip_norm * torch.eye(AT_ONCE, AT_ONCE + UNTOUCHED)

    def sums(units: np.ndarray) -> Tensor:
        return engine.clipped_sum(
            members[units],
            lambda unit: [gradients[unit]],
            clip_norm=made.clip_norm,
            size=gradients.shape[1],
            pool=OneThread(),
        )

    noisy = [
        engine.step(made, present=len(members), clipped_sum=sums, commit=no_charge)
        for _ in range(made.steps)
    ]
    seen = torch.stack(noisy).double() * made.divisor / made.clip_norm
    return np.asarray(seen.numpy())
