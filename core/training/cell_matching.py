"""Moved pictures moved on, towards the features of cells within their class.

What the features of a class are on average does not say which go together. So the
pictures that were moved are cut into cells, by k-means in a few components of their
features, which costs nothing; the records are asked once for the means and squares of
these components in each cell. A record lies in one cell, so that all of them together
cost no more than one. Each picture then goes a few steps towards its own cell's, and
towards its class's as before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.parallel import choose_hardware
from core.privacy.accounting import Charge
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
from core.training.points import k_means, principal_axes

CELL_ROUNDS = 6
STEP, DECAY = 0.4 / 28, 0.85
"""As in `training.matching`."""

COMPONENTS = 64
"""Of the features within the classes, that cells are told apart and moved in."""

ITERATIONS = 15
PART = 1024
"""Pictures whose features are held at a time."""


@dataclass(frozen=True, kw_only=True)
class CellMatching:
    """The way to the cells; safe to keep, it is a private output.

    Attributes:
        components: float32 [d, w]: directions of features.
        scales: float32 [w]: by which components are multiplied to tell cells apart.
        centres: float32 [classes, k, w], so multiplied: a picture is of the cell of
            the nearest one, once it has come to its class's features.
        class_gains, class_offsets: float32 [rounds, classes, d]: features f are drawn
            towards gain·f + offset;
        cell_gains, cell_offsets: float32 [rounds, classes·k, w]: and components too.
        lengths: float32 [rounds]: of a step, per unit of the gradient.
    """

    components: Tensor
    scales: Tensor
    centres: Tensor
    class_gains: Tensor
    class_offsets: Tensor
    cell_gains: Tensor
    cell_offsets: Tensor
    lengths: Tensor

    def move(self, images: Tensor, labels: Tensor) -> Tensor:
        """Pictures of these classes, moved: float32 [n, c, H, W] in [-1, 1]."""
        transform = scattering(images.shape[2], images.shape[1])
        own = self.cells_of(transform, images, labels)
        ways = zip(self.class_gains, self.class_offsets, self.cell_gains,
                   self.cell_offsets, self.lengths, strict=True)  # fmt: skip
        for gains, offsets, cell_gains, cell_offsets, length in ways:
            to, into = (gains, offsets), (cell_gains, cell_offsets)
            downhill = _down(transform, images, own, to, into, self.components)
            images = step(images, downhill, length)
        return images

    def cells_of(self, transform: Scattering, images: Tensor, labels: Tensor) -> Tensor:
        """Which cells pictures lie in, counted through all classes: int64 [n]."""
        hardware = choose_hardware("cpu")
        points = [
            in_chunks(transform, part, hardware) @ self.components
            for part in images.split(PART)
        ]
        return nearest(torch.cat(points) * self.scales, labels, self.centres)


def nearest(points: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of the own class, counted through all classes: int64 [n]."""
    own = centres[labels]
    # ‖z − c‖² without ‖z‖², which is the same for all c.
    far = own.square().sum(dim=2) / 2 - torch.einsum("nw,nkw->nk", points, own)
    return labels * centres.shape[1] + far.argmin(dim=1)


def release_cell_matching(
    number: int,
    records: PrivateRecords,
    wanted: Statistics,
    moved: tuple[Tensor, Tensor],
    charge: Charge,
) -> CellMatching:
    """Charge for and release the cells' statistics; find the way to them.

    Guarantee: one use of the Gaussian mechanism, `charge`, before which no record is
    read; all else is computed from its output and from what was released before.

    Args:
        number: Of cells of each class.
        wanted: Of the classes, released before.
        moved: Pseudo-images that have come to these, and their classes.
    """
    images, labels = moved
    classes = len(wanted[0])
    features = in_chunks(records.transform, images, records.hardware)
    components, scales = _components(features, labels, classes)
    points = features @ components
    del features
    own = [points[labels == label] * scales for label in range(classes)]
    centres = torch.stack([k_means(part, number, ITERATIONS) for part in own])
    cells = nearest(points * scales, labels, centres)

    def see(features: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        seen = features @ components
        # PRIVACY: one cell for each image, by itself and by what is released.
        return seen, nearest(seen * scales, own, centres)

    around = statistics(points, cells, classes * number)
    inner = records.noisy_statistics(around, see, charge)
    ways = _ways(records, (images, labels, cells), wanted, inner, components)
    return CellMatching(components=components, scales=scales, centres=centres, **ways)


def _ways(
    records: PrivateRecords, moved: tuple[Tensor, Tensor, Tensor], wanted: Statistics,
    inner: Statistics, components: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """The steps that bring pseudo-images near to both statistics, as `CellMatching`."""
    images, labels, cells = moved
    mean = STEP * images[0].numel() ** 0.5
    made = []
    for number in range(CELL_ROUNDS):
        records.watcher.stop_if_requested()
        records.watcher.progress("Finding the way to the cells", number, CELL_ROUNDS)
        features = in_chunks(records.transform, images, records.hardware)
        to = line(wanted, features, labels)
        into = line(inner, features @ components, cells)
        del features
        downhill = _down(records.transform, images, cells, to, into, components)
        length = length_of(downhill, mean * DECAY**number)
        images = step(images, downhill, length)
        made.append((*to, *into, length))
    names = "class_gains", "class_offsets", "cell_gains", "cell_offsets", "lengths"
    parts = zip(*made, strict=True)
    return {name: torch.stack(part) for name, part in zip(names, parts, strict=True)}


def _down(
    transform: Scattering, images: Tensor, cells: Tensor, to: Line, into: Line,
    components: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient towards the own class's features and the own cell's components."""
    per_class = len(into[0]) // len(to[0])

    def pull(features: Tensor, own: Tensor) -> Tensor:
        inner = along(into, features @ components, own)
        return along(to, features, own // per_class) + inner @ components.T

    return gradient(transform, images, cells, pull)


def _components(
    features: Tensor, labels: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Principal directions of the features about their classes' means, and scales.

    A component is scaled by the root of its deviation, told from the first one's.
    """
    means = statistics(features, labels, classes)[0]
    centred = features - means[labels]
    generator = torch.Generator().manual_seed(0)
    axes, lengths = principal_axes(centred, COMPONENTS, generator)
    lengths = lengths.clamp(min=1e-6)
    return axes.T.contiguous(), (lengths[0] / lengths).sqrt()
