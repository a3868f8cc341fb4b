"""Are batches drawn as the accountant believes?"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from core.privacy.canaries import FALSE_ALARM, VISIBLE_SIGMAS
from core.privacy.mechanism import Mechanism
from core.privacy.selftest.engine import Engine, made_up, no_charge
from core.privacy.selftest.findings import Conditions, Finding, Measurement


def _draws(
    engine: Engine, made: Mechanism, present: int, count: int, conditions: Conditions
) -> list[np.ndarray]:
    """The units that `count` steps look at."""
    seen: list[np.ndarray] = []

    def look(units: np.ndarray) -> Tensor:
        seen.append(np.asarray(units))
        return torch.zeros(1)

    for number in range(count):
        conditions.reached(number / count)
        engine.step(made, present=present, clipped_sum=look, commit=no_charge)
    return seen


def sizes(engine: Engine, conditions: Conditions) -> Finding:
    """Sizes of batches against the binomial distribution."""
    made, count = made_up(), conditions.size.draws
    population, probability = made.population, made.sampling_probability
    seen = _draws(engine, made, population, count, conditions)
    found = np.array([len(drawn) for drawn in seen])
    law = stats.binom(population, probability)
    total = stats.binom(population * count, probability)
    risen = np.cumsum(np.bincount(found, minlength=population + 1)) / count
    return Finding(
        check="batch sizes",
        question="Are batches as large as fair draws make them?",
        measurements=(
            Measurement(
                name="mean size ÷ promise",
                value=float(found.sum() / total.mean()),
                low=total.ppf(FALSE_ALARM) / total.mean(),
                high=total.isf(FALSE_ALARM) / total.mean(),
            ),
            Measurement(
                name="variance ÷ binomial variance",
                value=float(np.mean((found - law.mean()) ** 2) / law.var()),
                low=stats.chi2.ppf(FALSE_ALARM, count) / count,
                high=stats.chi2.isf(FALSE_ALARM, count) / count,
            ),
            Measurement(
                name="distance from the binomial distribution",
                value=float(np.abs(risen - law.cdf(np.arange(len(risen)))).max()),
                # Dvoretzky, Kiefer and Wolfowitz, as for the shape of the noise.
                high=math.sqrt(math.log(2 / FALSE_ALARM) / (2 * count)),
            ),
        ),
        smallest_fault="a sampling rate "
        f"{100 * VISIBLE_SIGMAS * total.std() / total.mean():.2g} % off, or batches "
        "of one fixed size",
    )


def membership(engine: Engine, conditions: Conditions) -> Finding:
    """How often each unit is drawn, and how many of a batch are in the next one too."""
    made, count = made_up(), conditions.size.draws
    population, probability = made.population, made.sampling_probability
    seen = _draws(engine, made, population, count, conditions)
    often = np.bincount(np.concatenate(seen), minlength=population)
    variance = count * probability * (1 - probability)
    uneven = float(np.mean((often - count * probability) ** 2) / variance)
    # Pairs that have no batch in common, so that the sum is exactly binomial.
    pairs = list(zip(seen[::2], seen[1::2], strict=False))
    again = sum(len(np.intersect1d(first, second)) for first, second in pairs)
    overlap = stats.binom(population * len(pairs), probability**2)
    # Rates that differ by a share r add r²·(mean² ÷ variance) to the unevenness, whose
    # standard deviation is √(2 ÷ units).
    added = VISIBLE_SIGMAS * math.sqrt(2 / population)
    visible = math.sqrt(added * variance) / (count * probability)
    return Finding(
        check="who is drawn",
        question="Is everyone drawn equally often, and each time anew?",
        measurements=(
            Measurement(
                name="unevenness ÷ expectation",
                value=uneven,
                low=stats.chi2.ppf(FALSE_ALARM, population) / population,
                high=stats.chi2.isf(FALSE_ALARM, population) / population,
            ),
            Measurement(
                name="drawn in the next batch too ÷ expectation",
                value=float(again / overlap.mean()),
                low=overlap.ppf(FALSE_ALARM) / overlap.mean(),
                high=overlap.isf(FALSE_ALARM) / overlap.mean(),
            ),
            Measurement(
                name="drawn twice into a batch",
                value=float(sum(len(drawn) - len(np.unique(drawn)) for drawn in seen)),
                high=0.0,
            ),
        ),
        smallest_fault=f"units whose rates differ by {100 * visible:.2g} %, or batches "
        "dealt from a shuffled list",
    )


def limits(engine: Engine, conditions: Conditions) -> Finding:
    """The cap where it bites, and a folder that holds more than was declared."""
    made = made_up(batch_cap=150)
    seen = _draws(engine, made, 2 * made.population, 60, conditions)
    last = 1 + max(int(drawn.max(initial=-1)) for drawn in seen)
    return Finding(
        check="batch limit",
        question="Is no batch larger, and nobody drawn beyond, what was declared?",
        measurements=(
            Measurement(
                name="largest batch ÷ limit",
                value=max(len(drawn) for drawn in seen) / made.batch_cap,
                high=1.0,
            ),
            Measurement(
                name="last unit drawn ÷ declared number",
                value=last / made.population,
                high=1.0,
            ),
        ),
        smallest_fault="one unit too many",
    )
