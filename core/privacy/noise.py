"""The randomness that the bound rests on.

Every key comes from the operating system, is used for one draw, and is never stored,
logged or replayed. There is no seed argument.
"""

from __future__ import annotations

import secrets

import numpy as np
import torch
from torch import Tensor

DRAWS = 4
"""Independent normals summed into one: an observer who searches the floating-point
outputs for its inputs faces the product of all (Holohan & Braghin 2021, sec. 5.1)."""

STATEMENT = (
    "Philox4x64-10, keyed with 128 bits from the operating system for every draw; keys "
    "are never stored, logged or replayed. Each noise value is half the sum of four "
    "independent double-precision normals, added in double precision; only the noisy "
    "sum is rounded to single precision."
)


def fresh_generator() -> np.random.Generator:
    """A generator with a key from the operating system that nothing else has.

    Guarantee: 128 bits, new on every call, kept nowhere.
    """
    # PRIVACY: rule 2, the key is fresh and leaves this line nowhere.
    return np.random.Generator(np.random.Philox(key=secrets.randbits(128)))


def gaussian(size: int, standard_deviation: float) -> Tensor:
    """Independent normals of mean 0: float64 [size], on the CPU.

    Guarantee: fresh on every call, of the given standard deviation, drawn and summed in
    double precision, and not rounded: see `core.privacy.mechanism`.
    """
    generator = fresh_generator()
    noise = np.zeros(size)
    for _ in range(DRAWS):
        noise += generator.standard_normal(size)
    noise *= standard_deviation / DRAWS**0.5
    return torch.from_numpy(noise)
