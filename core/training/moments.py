"""The moment warm-up: noisy class moments, and pseudo-images drawn from them.

In the line of DP-FETA (noisy class means) and DP-MERF (noisy feature means): release,
once, the noisy mean and covariance of each class in a fixed public basis of low
frequencies, and, where the recipe asks for it, of cells within the classes; draw as
many pseudo-images as wanted from the Gaussians that they define; train the pretrained
network on those before DP-SGD starts. All that follows the release is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.events import Watcher
from core.files import write_atomically
from core.privacy.accounting import Charge
from core.privacy.exact import Grid, exact_product
from core.privacy.moments import (
    Contributions,
    sum_of_means,
    sum_of_squares,
    unstack,
)
from core.training.cell_matching import CellMatching
from core.training.cells import CellRelease, release_cells, square_root
from core.training.features import COLOUR_AXES
from core.training.kept import reading_kept
from core.training.matching import FeatureRelease, Matching, release_matching
from core.training.sums import NoisySums
from core.training.units import UnitImages, equal_weights

CHUNK = 4096

WAY = ("gains", "offsets", "lengths")
CELL_WAY = tuple(field.name for field in fields(CellMatching))

PIXELS = Grid(step=1.0, limit=255.0)
COEFFICIENTS = Grid(step=2.0**-12, limit=2.0**9)
DIRECTIONS = Grid(step=2.0**-16, limit=1.0)


@dataclass(frozen=True, kw_only=True)
class MomentRelease:
    """The constants of a moment release; all public.

    Attributes:
        classes: Number of classes.
        frequencies: Low frequencies per axis kept of the brightness and of each colour
            contrast.
        mean_norm, norm: Clip norms of the coefficients, and of their distance from the
            released mean.
        means_noise, squares_noise: Noise multipliers of the two sums.
        noise_edge: Eigenvalues below this multiple of the noise's edge are dropped.
        residual: Whether the variance that was dropped comes back frequency by
            frequency, independent of one another: right for textures.
        cells: The release of cells within the classes, None without.
        features: The release of features, None without.
    """

    classes: int
    frequencies: tuple[int, int]
    mean_norm: float
    norm: float
    means_noise: float
    squares_noise: float
    noise_edge: float
    residual: bool
    cells: CellRelease | None = None
    features: FeatureRelease | None = None

    def charges(self) -> tuple[Charge, ...]:
        """What all of it costs, in order."""
        return (
            Charge(noise_multiplier=self.means_noise, count=1),
            Charge(noise_multiplier=self.squares_noise, count=1),
            *(self.cells.charges() if self.cells else ()),
            *(self.features.charges() if self.features else ()),
        )


@dataclass(frozen=True, kw_only=True)
class ClassMoments:
    """Gaussians per class in the public basis; safe to keep, it is a private output.

    Attributes:
        basis: float32 [c·H·W, d], orthonormal columns.
        shares: float32 [classes, k], how often each of a class's k cells is drawn from.
        means: float32 [classes, k, d].
        factors: float32 [classes, k, d, r], with covariance = factor·factorᵀ.
        residuals: float32 [classes, d], standard deviations to add independently.
        shape: (c, H, W) of an image.
        matching: How a pseudo-image is moved once it is drawn, None for not at all.
    """

    basis: Tensor
    shares: Tensor
    means: Tensor
    factors: Tensor
    residuals: Tensor
    shape: tuple[int, int, int]
    matching: Matching | None = None

    def draw(
        self,
        labels: Tensor,
        generator: torch.Generator,
        name: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Pseudo-images of these classes: float32 [n, c, H, W] in [-1, 1].

        Args:
            name: Says, of images, which classes' features they are moved towards;
                otherwise those that they are drawn for.
        """
        number, d, rank = len(labels), *self.factors.shape[2:]
        random = torch.randn(number, rank, generator=generator)
        drawn = self.residuals[labels] * torch.randn(number, d, generator=generator)
        k = self.shares.shape[1]
        which = torch.multinomial(self.shares[labels], 1, generator=generator)[:, 0]
        cells = labels * k + which
        for cell in cells.unique().tolist():
            own, place = cells == cell, divmod(cell, k)
            drawn[own] += self.means[place] + random[own] @ self.factors[place].T
        pixels = drawn @ self.basis.T
        images = pixels.view(-1, *self.shape).clamp(-1, 1)
        if not self.matching:
            return images
        return self.matching.move(images, name(images) if name else labels)


def public_basis(
    resolution: int, channels: int, frequencies: tuple[int, int]
) -> Tensor:
    """Low frequencies of the two-dimensional cosine transform: float32 [c·H·W, d].

    Colour images are split into brightness and two contrasts by a fixed rotation. The
    columns are orthonormal, so that coefficients are no longer than images.
    """
    positions = (np.arange(resolution) + 0.5) * math.pi / resolution
    waves = np.cos(np.arange(resolution)[:, None] * positions)
    waves *= np.sqrt(np.where(np.arange(resolution) == 0, 1, 2) / resolution)[:, None]

    def plane(count: int) -> np.ndarray:
        low = waves[: min(count, resolution)]
        return np.einsum("iy,jx->yxij", low, low).reshape(resolution**2, -1)

    if channels == 1:
        return torch.from_numpy(plane(frequencies[0])).float()
    rotation = COLOUR_AXES.numpy()
    counts = (frequencies[0], frequencies[1], frequencies[1])
    columns = [
        np.kron(rotation[axis][:, None], plane(count))
        for axis, count in enumerate(counts)
    ]
    return torch.from_numpy(np.concatenate(columns, axis=1)).float()


def release_moments(
    release: MomentRelease, units: UnitImages, *, sums: NoisySums, watcher: Watcher
) -> ClassMoments:
    """Charge for and release the noisy class moments, or what is missing of them.

    Guarantee: the uses of the Gaussian mechanism that `release.charges()` lists; the
    second is centred on the output of the first, the cells (`release_cells`) on both,
    and the features (`release_matching`) on what all of them give.

    Raises:
        Stopped: between two sums, when the watcher asks.
    """
    of_means, of_squares, *_ = release.charges()
    resolution, channels = units.dataset.images.shape[1], units.dataset.images.shape[3]
    basis = public_basis(resolution, channels, release.frequencies)
    prepared: list[Contributions] = []

    def contributions() -> Contributions:
        if not prepared:
            prepared.append(_contributions(units, basis, release.classes, watcher))
        return prepared[0]

    # PRIVACY: the records are read inside the calls, after the charge is on disk.
    noisy_means = sums.next(
        lambda: sum_of_means(contributions(), release.mean_norm), of_means
    )
    counts = (noisy_means[:, -1:] * 2**0.5).clamp(min=1.0)
    means = noisy_means[:, :-1] * 2**0.5 * release.mean_norm / counts
    noisy_squares = sums.next(
        lambda: sum_of_squares(contributions(), means, release.norm), of_squares
    )
    covariances = unstack(noisy_squares, basis.shape[1]) / counts[:, :, None]
    factors, residuals = _spreads(release, covariances, counts)
    found = ClassMoments(
        basis=basis,
        shares=torch.ones(release.classes, 1),
        means=means[:, None],
        factors=factors[:, None] * release.norm,
        residuals=residuals * release.norm * float(release.residual),
        shape=(channels, resolution, resolution),
    )
    if release.cells:
        watcher.stop_if_requested()
        found = _with_cells(release.cells, found, counts[:, 0], contributions, sums)
    if release.features is None:
        return found
    prepared.clear()
    matching = release_matching(
        release.features, units, found.draw, sums=sums, watcher=watcher
    )
    return replace(found, matching=matching)


def _spreads(
    release: MomentRelease, covariances: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """What stands above the noise of each class's covariance, in clip norms.

    Args:
        covariances: float32 [classes, d, d], noisy.
        counts: float32 [classes, 1], noisy.

    Returns:
        (factors float32 [classes, d, d], residuals float32 [classes, d]).
    """
    edge = math.sqrt(2 * covariances.shape[1]) * release.squares_noise / counts
    factors = torch.stack(
        [
            square_root(covariance, release.noise_edge * float(bound))
            for covariance, bound in zip(covariances, edge, strict=True)
        ]
    )
    kept = factors.square().sum(dim=2)
    dropped = covariances.diagonal(dim1=1, dim2=2) - kept
    # Twice the noise of a diagonal entry: what is below it may be noise alone.
    dropped = dropped.where(dropped > 2 * release.squares_noise / counts, 0.0)
    return factors, dropped.sqrt()


def _with_cells(
    release: CellRelease, classes: ClassMoments, counts: Tensor,
    read: Callable[[], Contributions], sums: NoisySums,
) -> ClassMoments:  # fmt: skip
    """The classes as mixtures, each in the axes of its own noisy covariance."""
    # Columns of a factor are scaled eigenvectors, the longest last.
    number = min(release.axes, classes.factors.shape[3])
    longest = classes.factors[:, 0, :, -number:]
    spread = longest.norm(dim=1)
    axes = longest / spread.clamp(min=1e-12)[:, None]
    prepared: list[Contributions] = []

    def centred() -> Contributions:
        if not prepared:
            prepared.append(_centred(read(), classes.means[:, 0], axes))
        return prepared[0]

    cells = release_cells(release, centred, spread, counts, sums)
    return replace(
        classes,
        shares=cells.shares,
        means=classes.means + torch.einsum("cdr,ckr->ckd", axes, cells.means),
        factors=torch.einsum("cdr,ckrs->ckds", axes, cells.factors),
    )


def _centred(data: Contributions, means: Tensor, axes: Tensor) -> Contributions:
    """The same records from the mean of their class, along its axes."""
    moved = torch.zeros(len(data.labels), axes.shape[2])
    for label in range(data.classes):
        own = data.labels == label
        centred = data.coefficients[own] - means[label]
        # PRIVACY: exact, as in `_contributions`, and the difference is a record's own:
        # cells are told from it.
        along = exact_product(centred, axes[label], COEFFICIENTS, DIRECTIONS)
        moved[own] = along.float()
    return replace(data, coefficients=moved)


def _contributions(
    units: UnitImages, basis: Tensor, classes: int, watcher: Watcher
) -> Contributions:
    """Coefficients of every unit's images; a unit's weights add up to 1."""
    coefficients, labels, weights = [], [], []
    shift = (DIRECTIONS.steps(basis) * DIRECTIONS.step).sum(dim=0)
    for first in range(0, units.present, CHUNK):
        last = min(first + CHUNK, units.present)
        drawn = [units.draw(unit) for unit in range(first, last)]
        pixels = torch.cat([pixels for pixels, _ in drawn])
        # PRIVACY: exact, so that a record's coefficients are its own affair.
        planes = pixels.movedim(-1, 1).flatten(1)
        product = exact_product(planes, basis, PIXELS, DIRECTIONS)
        # To [-1, 1], as `to_network` does.
        coefficients.append((product / 127.5 - shift).float())
        labels.extend(label for _, label in drawn)
        weights.extend(equal_weights(len(own)) for _, own in drawn)
        watcher.progress("Measuring noisy class moments", last, units.present)
    return Contributions(
        coefficients=torch.cat(coefficients),
        labels=torch.cat(labels),
        weights=torch.cat(weights),
        classes=classes,
    )


def save_moments(moments: ClassMoments, path: Path) -> None:
    """Keep a release: it was paid for once and cannot be had again."""
    tensors = {
        "basis": moments.basis.contiguous(),
        "shares": moments.shares.contiguous(),
        "means": moments.means.contiguous(),
        "factors": moments.factors.contiguous(),
        "residuals": moments.residuals.contiguous(),
        "shape": torch.tensor(moments.shape),
    }
    way = moments.matching
    if way:
        tensors |= {name: getattr(way, name).contiguous() for name in WAY}
    if way and way.cells:
        for name in CELL_WAY:
            tensors[f"cell way {name}"] = getattr(way.cells, name).contiguous()
    write_atomically(path, lambda file: save_file(tensors, file))


def load_moments(path: Path) -> ClassMoments:
    """Read what `save_moments` wrote, also in a version that knew no cells.

    Raises:
        UserError: when the file is damaged or gone.
    """
    with reading_kept(path):
        tensors = load_file(path)
        way = {name: tensors.pop(name) for name in WAY if name in tensors}
        cells = {
            name: tensors.pop(f"cell way {name}")
            for name in CELL_WAY
            if f"cell way {name}" in tensors
        }
        shape = tuple(int(size) for size in tensors.pop("shape"))
        if "shares" not in tensors:
            tensors["shares"] = torch.ones(len(tensors["means"]), 1)
            for name in ("means", "factors"):
                tensors[name] = tensors[name][:, None]
        inner = CellMatching(**cells) if cells else None
        matching = Matching(**way, cells=inner) if way else None
        return ClassMoments(shape=shape, matching=matching, **tensors)
