"""Is the noise as strong, as normal and as fresh as the bound assumes?"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from core.privacy.canaries import FALSE_ALARM, POWER, VISIBLE_SIGMAS
from core.privacy.selftest.engine import Engine, release_noise, step_noise
from core.privacy.selftest.findings import SIGMAS, Conditions, Finding, Measurement

_POWER_SIGMAS = float(stats.norm.ppf(POWER))


def strength(engine: Engine, conditions: Conditions) -> Finding:
    """Root mean square of the noise ÷ the promise."""
    size = conditions.size.coordinates
    deviation = 1 / math.sqrt(2 * size)
    drawn = {
        "of a step": step_noise(engine, size),
        "of a step without units": step_noise(engine, size, present=0),
        "of a class sum": release_noise(engine, size),
    }
    return Finding(
        check="noise strength",
        question="Is the noise as strong as the budget demands?",
        measurements=tuple(
            Measurement(
                name=f"noise ÷ promise {which}",
                value=math.sqrt(np.mean(values**2)),
                low=1 - SIGMAS * deviation,
                high=1 + SIGMAS * deviation,
            )
            for which, values in drawn.items()
        ),
        smallest_fault=f"noise {100 * VISIBLE_SIGMAS * deviation:.2g} % too weak or "
        "too strong",
    )


def shape(engine: Engine, conditions: Conditions) -> Finding:
    """Distance from the normal distribution, and how many values are different."""
    size = conditions.size.coordinates
    root = math.sqrt(size)
    values = np.sort(step_noise(engine, size))
    law = stats.norm.cdf(values)
    above, below = np.arange(1, size + 1) / size - law, law - np.arange(size) / size
    centred = (values - values.mean()) / max(float(values.std()), 1e-300)
    # Dvoretzky, Kiefer and Wolfowitz with Massart's constant: holds for any size.
    furthest = math.sqrt(math.log(2 / FALSE_ALARM) / (2 * size))
    return Finding(
        check="noise shape",
        question="Has the noise the shape that the proof assumes?",
        measurements=(
            Measurement(
                name="mean",
                value=float(values.mean()),
                low=-SIGMAS / root,
                high=SIGMAS / root,
            ),
            Measurement(
                name="distance from the normal distribution",
                value=float(max(above.max(), below.max())),
                high=furthest,
            ),
            Measurement(
                name="excess kurtosis",
                value=float(np.mean(centred**4) - 3),
                low=-SIGMAS * math.sqrt(24) / root,
                # Its own distribution leans to the right.
                high=1.3 * SIGMAS * math.sqrt(24) / root,
            ),
            Measurement(
                name="share of different values",
                value=len(np.unique(values)) / size,
                low=0.9,
            ),
        ),
        smallest_fault="probabilities "
        f"{100 * (furthest + _POWER_SIGMAS / (2 * root)):.2g} % off, or values "
        "coarser than single precision",
    )


def freshness(engine: Engine, conditions: Conditions) -> Finding:
    """Correlations at every shift, within a vector and between any two."""
    size = conditions.size.shifts
    here = [step_noise(engine, size), step_noise(engine, size)]
    elsewhere = conditions.elsewhere()
    vectors = [*here, release_noise(engine, size), *elsewhere]
    spectra = [np.fft.rfft(vector) for vector in vectors]
    lengths = [max(float(np.linalg.norm(vector)), 1e-300) for vector in vectors]

    def strongest(first: int, second: int) -> float:
        found = np.fft.irfft(spectra[first] * spectra[second].conj(), size)
        found /= lengths[first] * lengths[second]
        return float(np.abs(found[1:] if first == second else found).max())

    numbers = range(len(vectors))
    # The largest of as many correlations as there are shifts.
    furthest = float(stats.norm.isf(FALSE_ALARM / size)) / math.sqrt(size)
    visible = furthest + _POWER_SIGMAS / math.sqrt(size)
    return Finding(
        check="noise freshness",
        question="Is every piece of noise new, in every step and every process?",
        measurements=(
            Measurement(
                name="correlation within a vector",
                value=max(strongest(number, number) for number in numbers),
                high=furthest,
            ),
            Measurement(
                name=f"correlation between {len(vectors)} vectors of "
                f"{1 + len(elsewhere)} processes",
                value=max(
                    strongest(first, second)
                    for first in numbers
                    for second in range(first)
                ),
                high=furthest,
            ),
        ),
        smallest_fault=f"a key used twice, or {100 * visible:.2g} % of the values "
        "repeated",
    )
