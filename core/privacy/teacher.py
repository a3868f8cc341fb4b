"""The private teacher's gradient: a softmax regression on public features of all units.

Full-batch gradient descent with noise (Song et al. 2013; Tramèr & Boneh 2021): each
step adds up a bounded gradient of every unit here, and `mechanism.private_sum` adds the
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.privacy.mechanism import Commit, private_sum
from core.privacy.moments import Contributions

CHUNK = 8192


@dataclass(frozen=True, kw_only=True)
class Lessons(Contributions):
    """The private input of the teacher: `coefficients` are features, a row per image.

    Attributes:
        units: int64 [n], ≥ 0: which unit each row is of.
    """

    units: Tensor


def sum_of_gradients(data: Lessons, model: Tensor) -> Tensor:
    """Σ over units of Σ weight·(p − y) fᵀ, each unit's shortened once to norm 1.

    f are the features of an image, p = softmax(model·f), y its label as a unit vector.
    A unit is shortened by a bound on its gradient's norm, Σ weight·‖p − y‖·‖f‖: exact
    for a unit of one image, and never too small.

    Guarantee: for a `model` released before (or public), one unit, added or removed,
    moves it by at most 1 in L2 norm, whatever its features, labels and weights: its
    gradient is a sum of terms of norm weight·‖p − y‖·‖f‖, multiplied by at most one
    over the sum of these norms. A row that is not finite contributes nothing.

    Args:
        data: Of all units; none at all gives zeros.
        model: float32 [classes, d].

    Returns:
        float64 [classes, d].
    """
    total = torch.zeros(model.shape, dtype=torch.float64)
    if not len(data.units):
        return total
    parts = [slice(k, k + CHUNK) for k in range(0, len(data.units), CHUNK)]
    lengths = torch.zeros(int(data.units.max()) + 1, dtype=torch.float64)
    for part in parts:
        _, _, bounds = _terms(data, part, model)
        lengths.index_add_(0, data.units[part], bounds)
    # PRIVACY: the sensitivity; all images of one unit are shortened together, once.
    scales = 1 / lengths.clamp(min=1.0)
    for part in parts:
        errors, rows, _ = _terms(data, part, model)
        total += (errors * scales[data.units[part], None]).T @ rows
    return total


def _terms(data: Lessons, part: slice, model: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted errors [n, classes], features [n, d] and the norms of their products.

    In double precision, where 1 is 1 and the largest single number has a square.
    """
    rows, labels = data.coefficients[part].double(), data.labels[part]
    errors = torch.softmax(rows @ model.double().T, dim=1)
    errors[torch.arange(len(labels)), labels] -= 1
    errors *= data.weights[part].double()[:, None]
    bounds = errors.norm(dim=1) * rows.norm(dim=1)
    # PRIVACY: a row that is not finite contributes nothing.
    finite = torch.isfinite(bounds)
    errors = torch.where(finite[:, None], errors, 0.0)
    rows = torch.where(finite[:, None], rows, 0.0)
    return errors, rows, torch.where(finite, bounds, 0.0)


def noisy_gradient(
    read: Callable[[], Lessons],
    model: Tensor,
    *,
    noise_multiplier: float,
    declared_count: int,
    commit: Commit,
) -> Tensor:
    """One release of the sum, over the declared number of units: float32 [classes, d].

    Guarantee: one use of the Gaussian mechanism with this noise multiplier, charged
    before `read` is called; what follows is post-processing.
    """
    noisy = private_sum(
        lambda: sum_of_gradients(read(), model),
        sensitivity=1.0,
        noise_multiplier=noise_multiplier,
        commit=commit,
    )
    # PRIVACY: a public constant, never the number of units that are there.
    return noisy / declared_count
