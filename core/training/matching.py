"""Pictures moved until their public features have the statistics of the real ones.

Gaussians give pictures without sharp edges and flat surfaces, whatever their noise. So,
once more, the records are asked for noisy sums: per class, the means and squares of
their wavelet features (`training.features`), as DP-MERF (Harder et al. 2021) and DP-
MEPF (Harder et al. 2023) have it for theirs. Pseudo-images then go downhill, a few
steps each, towards features of these means and spreads: the microcanonical model of
Bruna & Mallat (2018, arXiv 1801.02013), whose energy is over a whole class here. All
that follows the release is post-processing, and moves each picture by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diffusion.views import to_network
from core.events import Watcher
from core.parallel import Hardware, choose_hardware, workers
from core.privacy.accounting import Charge
from core.privacy.mechanism import Commit, private_sum
from core.privacy.moments import Contributions, sum_of_means
from core.training.features import Scattering, in_chunks, scattering
from core.training.units import UnitImages

REFERENCE = 6000
"""Pseudo-images that the way downhill is found on."""

NORM = 1.25 * 2**0.5
"""Clip norm of a record's features and squares, times the root of their number; both
have about a unit's spread there."""

STEP = 0.6 / 28
"""Mean length of a step, in units of [-1, 1], times the root of an image's values."""

FLOOR = 0.05
"""Least spread of a feature; most lie between 0.3 and 1."""

LEAST_VARIANCE = 0.1
GAINS = (0.5, 2.0)
CHUNK = 64
MOVED_PIXELS = 2**17
"""At a time: what leads to their gradients is held."""

Draw = Callable[[Tensor, torch.Generator], Tensor]
"""(int64 [n] classes, random numbers) → float32 [n, c, H, W] in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class FeatureRelease:
    """The constants of the release of features; all public.

    Attributes:
        classes: Number of classes.
        rounds: Steps that every picture is moved by.
        noise_multiplier: Of the one sum.
    """

    classes: int
    rounds: int
    noise_multiplier: float

    def charge(self) -> Charge:
        """What it costs."""
        return Charge(noise_multiplier=self.noise_multiplier, count=1)


@dataclass(frozen=True, kw_only=True)
class Matching:
    """The way downhill; safe to keep, it is a private output.

    Attributes:
        gains, offsets: float32 [rounds, classes, d]: features f are drawn towards
            gain·f + offset.
        lengths: float32 [rounds]: of a step, per unit of the gradient.
    """

    gains: Tensor
    offsets: Tensor
    lengths: Tensor

    def move(self, images: Tensor, labels: Tensor) -> Tensor:
        """Pictures of these classes, moved: float32 [n, c, H, W] in [-1, 1]."""
        transform = scattering(images.shape[2], images.shape[1])
        for gains, offsets, length in zip(
            self.gains, self.offsets, self.lengths, strict=True
        ):
            pull = _pull(transform, images, labels, gains, offsets)
            images = (images + length * pull).clamp(-1, 1)
        return images


def _pull(
    transform: Scattering, images: Tensor, labels: Tensor, gains: Tensor,
    offsets: Tensor,
) -> Tensor:  # fmt: skip
    """Minus the gradient of ‖features − target‖² / 2, the target held fast."""
    size = max(1, MOVED_PIXELS // (images.shape[-1] * images.shape[-2]))
    pulls = []
    for part, own in zip(images.split(size), labels.split(size), strict=True):
        with torch.enable_grad():
            part = part.detach().requires_grad_(True)
            features = transform.features(part)
            pull = (gains[own] - 1) * features.detach() + offsets[own]
            pulls += torch.autograd.grad((pull * features).sum(), part)
    return torch.cat(pulls)


def release_matching(
    release: FeatureRelease,
    units: UnitImages,
    draw: Draw,
    *,
    commit: Commit,
    watcher: Watcher,
) -> Matching:
    """Charge for and release the features' means and squares; find the way to them.

    Guarantee: one use of the Gaussian mechanism with the noise multiplier of `release`,
    charged before any record is read; all else is computed from its output and from
    `draw`.

    Args:
        draw: Pseudo-images of what was released before.
    """
    hardware = choose_hardware("cpu")
    labels = torch.arange(REFERENCE) % release.classes
    images = draw(labels, torch.Generator().manual_seed(0))
    transform = scattering(images.shape[2], images.shape[1])
    centres, spreads = _statistics(transform, images, labels, release.classes, hardware)
    width = centres.shape[1]
    norm = NORM * width**0.5

    def bounded_sum() -> Tensor:
        total = torch.zeros(release.classes, 2 * width + 1, dtype=torch.float64)
        for part in _contributions(
            units, transform, centres, spreads, hardware, watcher
        ):
            total += sum_of_means(part, norm)
        return total

    # PRIVACY: the records are read inside the call, after the charge is on disk.
    noisy = private_sum(
        bounded_sum,
        sensitivity=1.0,
        noise_multiplier=release.noise_multiplier,
        commit=commit,
    )
    counts = (noisy[:, -1:] * 2**0.5).clamp(min=1.0)
    found = noisy[:, :-1] * 2**0.5 * norm / counts
    means, squares = found[:, :width], 1 + 2 * found[:, width:]
    deviations = (squares - means.square()).clamp(min=LEAST_VARIANCE).sqrt()
    wanted = centres + means * spreads, deviations * spreads
    return _way(release.rounds, wanted, images, labels, hardware, watcher)


def _contributions(
    units: UnitImages, transform: Scattering, centres: Tensor, spreads: Tensor,
    hardware: Hardware, watcher: Watcher,
) -> Iterator[Contributions]:  # fmt: skip
    """Features of every unit's images and their squares, a few units at a time.

    They are told from the centre of their class, in its spreads; a square is less 1,
    halved.
    """

    def seen(drawn: tuple[Tensor, Tensor]) -> Tensor:
        pixels, own = drawn
        # PRIVACY: unit by unit: features are rounded by how many images are looked at
        # together, and must not hang on who else is there.
        features = (transform(to_network(pixels)) - centres[own]) / spreads[own]
        return torch.cat([features, (features.square() - 1) / 2], dim=1)

    for first in range(0, units.present, CHUNK):
        last = min(first + CHUNK, units.present)
        drawn = [units.draw(unit) for unit in range(first, last)]
        with workers(hardware) as pool:
            rows = list(pool.map(seen, drawn))
        weights = [torch.full((len(own),), 1 / len(own)) for _, own in drawn]
        yield Contributions(
            coefficients=torch.cat(rows),
            labels=torch.cat([own for _, own in drawn]),
            weights=torch.cat(weights),
            classes=len(centres),
        )
        watcher.progress("Measuring noisy features", last, units.present)


def _statistics(
    transform: Scattering, images: Tensor, labels: Tensor, classes: int,
    hardware: Hardware,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Means and deviations of pseudo-images' features: float32 [classes, d] each."""
    features = in_chunks(transform, images, hardware)
    own = [features[labels == label] for label in range(classes)]
    deviations = torch.stack([rows.std(dim=0, correction=0) for rows in own])
    return torch.stack([rows.mean(dim=0) for rows in own]), deviations.clamp(min=FLOOR)


def _way(
    rounds: int, wanted: tuple[Tensor, Tensor], images: Tensor, labels: Tensor,
    hardware: Hardware, watcher: Watcher,
) -> Matching:  # fmt: skip
    """How pseudo-images come to features of the wanted means and deviations.

    In each round, a class's features are shifted and stretched, one by one, from what
    they have to what they should have.
    """
    transform = scattering(images.shape[2], images.shape[1])
    step = STEP * images[0].numel() ** 0.5
    means, deviations = wanted
    made = []
    for number in range(rounds):
        watcher.progress("Finding the way to the features", number, rounds)
        have, spreads = _statistics(transform, images, labels, len(means), hardware)
        gains = (deviations / spreads).clamp(*GAINS)
        offsets = means - gains * have
        pull = _pull(transform, images, labels, gains, offsets)
        length = step / pull.flatten(1).norm(dim=1).mean().clamp(min=1e-12)
        images = (images + length * pull).clamp(-1, 1)
        made.append((gains, offsets, length))
    gains, offsets, lengths = (torch.stack(part) for part in zip(*made, strict=True))
    return Matching(gains=gains, offsets=offsets, lengths=lengths)
