"""Pictures moved until their public features have the statistics of the real ones.

Gaussians give pictures without sharp edges and flat surfaces, whatever their noise. So,
once more, the records are asked for noisy sums: per class, the means and squares of
their wavelet features (`training.features`), as DP-MERF (Harder et al. 2021) and DP-
MEPF (Harder et al. 2023) have it for theirs. Pseudo-images then go downhill, some
steps each, towards features of these means and spreads: the microcanonical model of
Bruna & Mallat (2018, arXiv 1801.02013), whose energy is over a whole class here. All
that follows the release is post-processing, and moves each picture by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.events import Watcher
from core.parallel import choose_hardware
from core.privacy.accounting import Charge
from core.training.cell_matching import CELL_ROUNDS, CellMatching, release_cell_matching
from core.training.downhill import (
    Line,
    PrivateRecords,
    Statistics,
    along,
    gradient,
    length_of,
    line,
    statistics,
    step,
)
from core.training.features import Scattering, in_chunks, scattering
from core.training.rows import PseudoImages
from core.training.sums import NoisySums
from core.training.units import UnitImages

REFERENCE = 12000
"""Pseudo-images that the way downhill is found on."""

STEP, DECAY = 0.6 / 28, 0.88
"""Mean length of the first step, in units of [-1, 1], times the root of an image's
values; each next one is so much shorter, else the last ones overshoot."""


@dataclass(frozen=True, kw_only=True)
class FeatureRelease:
    """The constants of the release of features; all public.

    Attributes:
        classes: Number of classes.
        rounds: Steps that every picture is moved by towards its class.
        cells: Of each class; 1 for none.
        noise_multiplier: Of each sum.
    """

    classes: int
    rounds: int
    cells: int = 1
    noise_multiplier: float

    @property
    def steps(self) -> int:
        """That every picture is moved by in all."""
        return self.rounds + (CELL_ROUNDS if self.cells > 1 else 0)

    def charges(self) -> tuple[Charge, ...]:
        """What it costs, in order: the classes' sum, and that of the cells."""
        one = Charge(noise_multiplier=self.noise_multiplier, count=1)
        return (one, one) if self.cells > 1 else (one,)


@dataclass(frozen=True, kw_only=True)
class Matching:
    """The way downhill; safe to keep, it is a private output.

    Attributes:
        gains, offsets: float32 [rounds, classes, d]: features f are drawn towards
            gain·f + offset.
        lengths: float32 [rounds]: of a step, per unit of the gradient.
        cells: The way on from there, None for none.
    """

    gains: Tensor
    offsets: Tensor
    lengths: Tensor
    cells: CellMatching | None = None

    def move(self, images: Tensor, labels: Tensor) -> Tensor:
        """Pictures of these classes, moved: float32 [n, c, H, W] in [-1, 1]."""
        transform = scattering(images.shape[2], images.shape[1])
        ways = zip(self.gains, self.offsets, self.lengths, strict=True)
        for gains, offsets, length in ways:
            downhill = _down(transform, images, labels, (gains, offsets))
            images = step(images, downhill, length)
        return self.cells.move(images, labels) if self.cells else images


def release_matching(
    release: FeatureRelease,
    units: UnitImages,
    draw: PseudoImages,
    *,
    sums: NoisySums,
    watcher: Watcher,
) -> Matching:
    """Charge for and release the features' means and squares; find the way to them.

    Guarantee: the uses of the Gaussian mechanism that `release.charges()` lists, each
    charged before it reads a record; the second, of the cells, hangs on the output of
    the first. All else is computed from their outputs and from `draw`.

    Args:
        draw: Pseudo-images of what was released before.

    Raises:
        Stopped: on the way, when the watcher asks.
    """
    labels = torch.arange(REFERENCE) % release.classes
    images = draw(labels, torch.Generator().manual_seed(0))
    records = PrivateRecords(
        units=units,
        sums=sums,
        transform=scattering(images.shape[2], images.shape[1]),
        hardware=choose_hardware("cpu"),
        watcher=watcher,
    )
    charge, *further = release.charges()
    features = in_chunks(records.transform, images, records.hardware)
    around = statistics(features, labels, release.classes)
    del features
    wanted = records.noisy_statistics(around, _whole, charge)
    found, images = _way(release.rounds, wanted, images, labels, records)
    if not further:
        return found
    cells = release_cell_matching(
        release.cells, records, wanted, (images, labels), *further
    )
    return replace(found, cells=cells)


def _whole(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """All features are summed, by class."""
    return features, labels


def _way(
    rounds: int,
    wanted: Statistics,
    images: Tensor,
    labels: Tensor,
    records: PrivateRecords,
) -> tuple[Matching, Tensor]:
    """How pseudo-images come to features of the wanted statistics, and they there."""
    mean, made = STEP * images[0].numel() ** 0.5, []
    for number in range(rounds):
        records.watcher.stop_if_requested()
        records.watcher.progress("Finding the way to the features", number, rounds)
        features = in_chunks(records.transform, images, records.hardware)
        to = line(wanted, features, labels)
        del features
        downhill = _down(records.transform, images, labels, to)
        length = length_of(downhill, mean * DECAY**number)
        images = step(images, downhill, length)
        made.append((*to, length))
    gains, offsets, lengths = (torch.stack(part) for part in zip(*made, strict=True))
    return Matching(gains=gains, offsets=offsets, lengths=lengths), images


def _down(transform: Scattering, images: Tensor, labels: Tensor, to: Line) -> Tensor:
    """The gradient towards the own class's features."""

    def pull(features: Tensor, own: Tensor) -> Tensor:
        return along(to, features, own)

    return gradient(transform, images, labels, pull)
