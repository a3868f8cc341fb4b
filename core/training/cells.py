"""Cells within the classes: a mixture of Gaussians instead of one.

A class of real pictures is no Gaussian: dresses are long or short, not in between.
Its released Gaussian is cut into cells by k-means on pseudo-images, which costs
nothing; then the records are asked, a few rounds long, for the noisy mean of each cell
(k-means by Lloyd 1982 with noise, as Blum et al. 2005), and once for its noisy
covariance. A record lies in one cell, so that all cells together cost no more than one.
All of it is in the axes that the class's noisy covariance gave: fewer numbers, and less
noise on each whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.privacy.accounting import Charge
from core.privacy.exact import Grid, exact_product
from core.privacy.moments import Contributions, sum_of_means, sum_of_squares, unstack
from core.training.points import k_means
from core.training.sums import NoisySums

PSEUDO_RECORDS = 8000
"""Of each class, that its first cells are found on."""

ITERATIONS = 10
DEVIATIONS = 4
"""A cell whose count is not so many deviations of its noise above 0 may be empty."""

GRID = Grid(step=2.0**-10, limit=2.0**9)
"""On which records and centres are compared."""

ReadContributions = Callable[[], Contributions]
"""Gives the private records, centred on their class's mean and in its axes."""


@dataclass(frozen=True, kw_only=True)
class CellRelease:
    """The constants of the release of cells; all public.

    Attributes:
        classes: Number of classes.
        per_class: Cells of each class, at most.
        size: A class has as many cells as it has this many units, but one at least.
        axes: Directions of each class that they are described in, at most.
        rounds: Releases of the cells' means.
        mean_norm, norm: Clip norms of a record's distance from the class's mean, and
            from its cell's.
        means_noise, squares_noise: Noise multipliers of each round, and of the squares.
        noise_edge: As `MomentRelease` has it, of the cells' eigenvalues.
    """

    classes: int
    per_class: int
    size: int
    axes: int
    rounds: int
    mean_norm: float
    norm: float
    means_noise: float
    squares_noise: float
    noise_edge: float

    def charges(self) -> tuple[Charge, ...]:
        """What all of it costs."""
        return (
            Charge(noise_multiplier=self.means_noise, count=self.rounds),
            Charge(noise_multiplier=self.squares_noise, count=1),
        )


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A mixture of Gaussians per class, in the class's axes; a private output.

    Attributes:
        shares: float32 [classes, k], how often each cell is drawn from; 0 for never.
        means: float32 [classes, k, axes], from the class's mean.
        factors: float32 [classes, k, axes, axes], with covariance = factor·factorᵀ.
    """

    shares: Tensor
    means: Tensor
    factors: Tensor


def release_cells(
    release: CellRelease,
    read: ReadContributions,
    spread: Tensor,
    counts: Tensor,
    sums: NoisySums,
) -> Cells:
    """Charge for and release the cells.

    Guarantee: `rounds` + 1 uses of the Gaussian mechanism, with the noise multipliers
    of `release`. In each, a record is counted in one cell, which is told from itself
    and from what was released before; so a unit moves the sums of all cells together by
    at most 1 (`privacy.moments`).

    Args:
        read: Gives the private records in their classes' axes; called after a charge.
        spread: float32 [classes, axes], released before: deviations along the axes.
        counts: float32 [classes], released before: how many units there are of each.
    """
    centres, used = _first_centres(release, spread, counts)
    for _ in range(release.rounds):
        borders = centres
        sizes, centres = _release_means(release, read, borders, used, sums)
        centres = centres * (spread > 0)[:, None]
    full = used & (sizes > DEVIATIONS * 2**0.5 * release.means_noise)
    squares = _release_squares(release, read, borders, used, centres, sums)
    factors = _factors(release, squares, sizes.where(full, 0.0), spread > 0)
    # A class without a cell that stands above the noise stays one Gaussian.
    whole = ~full.any(dim=1)
    centres[whole, 0] = 0.0
    factors[whole, 0] = torch.diag_embed(spread[whole])
    shares = sizes.where(full, 0.0)
    shares[whole, 0] = 1.0
    return Cells(shares=shares, means=centres, factors=factors)


def _release_means(
    release: CellRelease,
    read: ReadContributions,
    centres: Tensor,
    used: Tensor,
    sums: NoisySums,
) -> tuple[Tensor, Tensor]:
    """One round: (noisy counts [classes, k], centres as moved)."""
    # PRIVACY: the records are read inside the call, after the charge is on disk.
    noisy = sums.next(
        lambda: sum_of_means(_sorted(read(), centres, used), release.mean_norm),
        release.charges()[0],
    ).view(*centres.shape[:2], -1)
    sizes = noisy[..., -1] * 2**0.5
    found = noisy[..., :-1] * 2**0.5 * release.mean_norm
    found = found / sizes.clamp(min=1.0)[..., None]
    full = sizes > DEVIATIONS * 2**0.5 * release.means_noise
    return sizes, torch.where(full[..., None], found, centres)


def _release_squares(
    release: CellRelease, read: ReadContributions, borders: Tensor, used: Tensor,
    centres: Tensor, sums: NoisySums,
) -> Tensor:  # fmt: skip
    """Noisy sums of squares around `centres`, of the cells that `borders` cut.

    The borders are those that the centres were told with: the same records.

    Returns:
        float32 [classes, k, axes, axes].
    """
    around = centres.flatten(0, 1)
    # PRIVACY: the records are read inside the call, after the charge is on disk.
    noisy = sums.next(
        lambda: sum_of_squares(_sorted(read(), borders, used), around, release.norm),
        release.charges()[1],
    )
    return unstack(noisy, around.shape[1]).view(*centres.shape, -1)


def _first_centres(
    release: CellRelease, spread: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Cells of each class's Gaussian, found on pseudo-records: post-processing.

    Returns:
        (float32 [classes, k, axes], bool [classes, k]: which of them there are).
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.zeros(release.classes, release.per_class, spread.shape[1])
    used = torch.zeros(release.classes, release.per_class, dtype=torch.bool)
    for label in range(release.classes):
        wanted = int(counts[label].item() // release.size)
        number = min(max(wanted, 1), release.per_class)
        drawn = torch.randn(PSEUDO_RECORDS, spread.shape[1], generator=generator)
        centres[label, :number] = k_means(drawn * spread[label], number, ITERATIONS)
        used[label, :number] = True
    return centres, used


def _sorted(records: Contributions, centres: Tensor, used: Tensor) -> Contributions:
    """The same records, labelled by the cell of their class that is nearest."""
    cells = torch.zeros_like(records.labels)
    number = centres.shape[1]
    for label in range(records.classes):
        own = records.labels == label
        # ‖z − c‖² without ‖z‖², which is the same for all c.
        half = (GRID.steps(centres[label]) * GRID.step).square().sum(dim=1) / 2
        half = half.masked_fill(~used[label], math.inf)
        # PRIVACY: one cell for each record, by itself and by what is released.
        alike = exact_product(records.coefficients[own], centres[label].T, GRID, GRID)
        cells[own] = label * number + (half - alike).argmin(dim=1)
    return replace(records, labels=cells, classes=records.classes * number)


def _factors(
    release: CellRelease, squares: Tensor, sizes: Tensor, axes: Tensor
) -> Tensor:
    """Square roots of what stands above the noise in each cell's covariance.

    Args:
        squares: float32 [classes, k, axes, axes], noisy sums.
        sizes: float32 [classes, k], noisy counts; 0 for a cell that is not drawn from.
        axes: bool [classes, axes]: which a class has.
    """
    factors = torch.zeros_like(squares)
    for label, cell in torch.cartesian_prod(*map(torch.arange, sizes.shape)):
        size, own = float(sizes[label, cell]), axes[label].nonzero()[:, 0]
        if size < 1 or not len(own):
            continue
        edge = math.sqrt(2 * len(own)) * release.squares_noise / size
        covariance = squares[label, cell][own][:, own] / size
        root = square_root(covariance, release.noise_edge * edge)
        factors[label, cell, own[:, None], own] = root * release.norm
    return factors


def square_root(covariance: Tensor, threshold: float) -> Tensor:
    """A square root of the part of a noisy covariance that stands above its noise."""
    values, vectors = torch.linalg.eigh(covariance.double())
    kept = torch.where(values > threshold, values, torch.zeros_like(values))
    return (vectors * kept.sqrt()).float()
