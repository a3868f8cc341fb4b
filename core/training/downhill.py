"""What features pictures have and records have, and how pictures get from one to other.

Shared by the moves towards the features of classes (`training.matching`) and of cells
within them (`training.cell_matching`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diffusion.views import to_network
from core.events import Watcher
from core.parallel import Hardware, Workers, workers
from core.privacy.accounting import Charge
from core.privacy.moments import Contributions, sum_of_means
from core.training.features import Scattering
from core.training.sums import NoisySums
from core.training.units import UnitImages, equal_weights

NORM = 2.0 * 2**0.5
"""Clip norm of a record's features and squares, times the root of their number; both
have about a unit's spread there, with long tails: at 1.25 most records are shortened,
which draws the means towards the pseudo-images'."""

FLOOR = 0.05
"""Least spread of a feature; most lie between 0.3 and 1."""

LEAST_COUNT = 50
"""Fewer units than this draw pictures less far: theirs are noisier means."""

LEAST_VARIANCE = 0.1
GAINS = (0.5, 2.0)
CHUNK = 64
MOVED_PIXELS = 2**17
"""At a time: what leads to their gradients is held."""

Statistics = tuple[Tensor, Tensor]
"""Means and deviations of features: float32 [groups, d] each."""

Line = tuple[Tensor, Tensor]
"""Gains and offsets, float32 [groups, d] each: f is drawn towards gain·f + offset."""

See = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(features float32 [n, d], int64 [n] classes) → (float32 [n, w], int64 [n] groups)."""

Pull = Callable[[Tensor, Tensor], Tensor]
"""(features float32 [n, d], int64 [n] groups) → where to, from there: [n, d]."""


@dataclass(frozen=True, kw_only=True)
class PrivateRecords:
    """The private records, as their features are asked for."""

    units: UnitImages
    sums: NoisySums
    transform: Scattering
    hardware: Hardware
    watcher: Watcher

    def noisy_statistics(
        self, around: Statistics, see: See, charge: Charge
    ) -> Statistics:
        """Release the means and deviations of what is seen of the records, by group.

        Guarantee: one use of the Gaussian mechanism, charged before any record is
        read. `see` gives each image one group, by itself and by what was released
        before; so a unit moves the sums of all groups together by at most 1.

        Args:
            around: The pseudo-images', which records are told from.

        Raises:
            Stopped: before anything is charged, when the watcher asks.
        """
        centres, spreads = around
        width = centres.shape[1]
        norm = NORM * width**0.5

        def bounded_sum() -> Tensor:
            total = torch.zeros(len(centres), 2 * width + 1, dtype=torch.float64)
            with workers(self.hardware) as pool:
                for part in self._contributions(around, see, pool):
                    total += sum_of_means(part, norm)
            return total

        self.watcher.stop_if_requested()
        # PRIVACY: the records are read inside the call, after the charge is on disk.
        noisy = self.sums.next(bounded_sum, charge)
        counts = (noisy[:, -1:] * 2**0.5).clamp(min=LEAST_COUNT)
        found = noisy[:, :-1] * 2**0.5 * norm / counts
        means, squares = found[:, :width], 1 + 2 * found[:, width:]
        deviations = (squares - means.square()).clamp(min=LEAST_VARIANCE).sqrt()
        return centres + means * spreads, deviations * spreads

    def _contributions(
        self, around: Statistics, see: See, pool: Workers
    ) -> Iterator[Contributions]:
        """Features of every unit's images and their squares, a few units at a time.

        They are told from the centre of their group, in its spreads; a square is less
        1, halved.
        """
        centres, spreads = around

        def seen(drawn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            pixels, own = drawn
            # PRIVACY: unit by unit: features are rounded by how many images are looked
            # at together, and must not hang on who else is there.
            features, groups = see(self.transform(to_network(pixels)), own)
            told = (features - centres[groups]) / spreads[groups]
            return torch.cat([told, (told.square() - 1) / 2], dim=1), groups

        for first in range(0, self.units.present, CHUNK):
            last = min(first + CHUNK, self.units.present)
            drawn = [self.units.draw(unit) for unit in range(first, last)]
            rows, groups = zip(*pool.map(seen, drawn), strict=True)
            weights = [equal_weights(len(own)) for own in groups]
            yield Contributions(
                coefficients=torch.cat(rows),
                labels=torch.cat(groups),
                weights=torch.cat(weights),
                classes=len(centres),
            )
            self.watcher.progress("Measuring noisy features", last, self.units.present)


def statistics(features: Tensor, groups: Tensor, number: int) -> Statistics:
    """Of each of so many groups; an empty one has means 0."""
    means = torch.zeros(number, features.shape[1])
    deviations = torch.full_like(means, FLOOR)
    for group in groups.unique().tolist():
        own = features[groups == group]
        means[group] = own.mean(dim=0)
        deviations[group] = own.std(dim=0, correction=0).clamp(min=FLOOR)
    return means, deviations


def line(wanted: Statistics, features: Tensor, groups: Tensor) -> Line:
    """From the statistics that these features have to those that they should have.

    Feature by feature, each is shifted and stretched.
    """
    means, deviations = wanted
    have, spreads = statistics(features, groups, len(means))
    gains = (deviations / spreads).clamp(*GAINS)
    return gains, means - gains * have


def along(to: Line, features: Tensor, groups: Tensor) -> Tensor:
    """How far it is to where the line leads: float32 [n, d]."""
    gains, offsets = to
    return (gains[groups] - 1) * features + offsets[groups]


def gradient(
    transform: Scattering, images: Tensor, groups: Tensor, pull: Pull
) -> Tensor:
    """Minus the gradient of ‖features − target‖² / 2, the target held fast.

    Args:
        pull: From the features to the target.
    """
    size = max(1, MOVED_PIXELS // (images.shape[-1] * images.shape[-2]))
    found = []
    for part, own in zip(images.split(size), groups.split(size), strict=True):
        with torch.enable_grad():
            part = part.detach().requires_grad_(True)
            features = transform.features(part)
            force = pull(features.detach(), own)
            found += torch.autograd.grad((force * features).sum(), part)
    return torch.cat(found)


def step(images: Tensor, downhill: Tensor, length: Tensor) -> Tensor:
    """Pictures one step on, within [-1, 1]."""
    return (images + length * downhill).clamp(-1, 1)


def length_of(downhill: Tensor, mean: float) -> Tensor:
    """What a gradient is multiplied by, for steps of this mean length: float32 []."""
    return mean / downhill.flatten(1).norm(dim=1).mean().clamp(min=1e-12)
