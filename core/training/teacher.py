"""The private teacher: a classifier that names images, learned under the same budget.

A softmax regression on public features (`training.features`), projected on the
principal components of the pseudo-images' features, which the noisy moments gave: a
basis that fits the data and costs nothing more. T releases of the noisy gradient over
all units (`privacy.teacher`); all else here is post-processing. It may say afterwards
of which class a synthetic image really is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.diffusion.views import to_network
from core.events import Watcher
from core.files import write_atomically
from core.parallel import Hardware, workers
from core.privacy.accounting import Charge
from core.privacy.mechanism import Commit
from core.privacy.teacher import Lessons, noisy_gradient
from core.training.features import Scattering, in_chunks, scattering
from core.training.kept import reading_kept
from core.training.moments import ClassMoments
from core.training.points import principal_axes
from core.training.units import UnitImages, UnitRecords, equal_weights

PSEUDO_IMAGES = 6000
"""Of which the principal components are taken."""

FLOOR = 0.02
"""Of the largest spread: keeps small components from being blown up."""

BIAS = 0.3
MOMENTUM = 0.9
RISE = 5
SETTLED = 0.6
"""Share of the releases after which the rate is halved and the models are averaged."""

CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class TeacherRelease:
    """The constants of the teacher; all public.

    Attributes:
        classes: Number of classes.
        components: Principal components of the features that it sees, at most.
        steps: T, releases of the gradient.
        learning_rate: Of gradient descent with momentum.
        noise_multiplier: σ of each release, of sensitivity 1.
        declared_count: What each sum is divided by.
    """

    classes: int
    components: int
    steps: int
    learning_rate: float
    noise_multiplier: float
    declared_count: int

    def charge(self, steps: int) -> Charge:
        """What `steps` releases cost."""
        return Charge(noise_multiplier=self.noise_multiplier, count=steps)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A teacher with what it needs to go on; safe to keep, it is a private output.

    Attributes:
        centre: float32 [features]: the pseudo-images' mean.
        components: float32 [features, k], each divided by the root of its spread.
        model: float32 [classes, k + 1]; the last column is the bias.
        velocity: float32, of the same shape.
        summed: float32, of the same shape: models added up since they settled.
        settled: int64 []: how many those are.
        lessons: int64 []: releases that it has learned from.
    """

    centre: Tensor
    components: Tensor
    model: Tensor
    velocity: Tensor
    summed: Tensor
    settled: Tensor
    lessons: Tensor

    def see(self, images: Tensor, hardware: Hardware) -> Tensor:
        """What it knows of images: float32 [n, c, H, W] in [-1, 1] → [n, k + 1]."""
        transform = scattering(images.shape[2], images.shape[1])
        look = partial(self.look, transform=transform)
        return in_chunks(look, images, hardware)

    def look(self, images: Tensor, transform: Scattering) -> Tensor:
        """The same of a few images at once."""
        seen = (transform(images) - self.centre) @ self.components
        length = seen.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return torch.cat([seen / length, torch.full_like(length, BIAS)], dim=1)

    def name(self, images: Tensor, hardware: Hardware) -> Tensor:
        """The class it sees in each of these images: int64 [n]."""
        average = self.summed if int(self.settled) else self.model
        return (self.see(images, hardware) @ average.T).argmax(dim=1)


def new_teacher(
    release: TeacherRelease, moments: ClassMoments, hardware: Hardware
) -> Teacher:
    """One that knows nothing yet but how to look: post-processing of the moments."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(PSEUDO_IMAGES) % release.classes
    channels, resolution, _ = moments.shape
    transform = scattering(resolution, channels)
    images = moments.draw(labels, generator)
    features = in_chunks(transform, images, hardware)
    centre = features.mean(dim=0)
    features -= centre
    axes, lengths = principal_axes(features, release.components, generator)
    spread = lengths / len(features) ** 0.5
    scale = (spread + FLOOR * spread[0]).clamp(min=1e-12).sqrt()
    blank = torch.zeros(release.classes, len(axes) + 1)
    return Teacher(
        centre=centre,
        components=axes.T / scale,
        model=blank,
        velocity=blank,
        summed=blank,
        settled=torch.tensor(0),
        lessons=torch.tensor(0),
    )


def teach(
    release: TeacherRelease,
    teacher: Teacher,
    read: Callable[[], Lessons],
    *,
    step: int,
    commit: Commit,
) -> Teacher:
    """The teacher after one more release.

    Guarantee: one release of `privacy.teacher.noisy_gradient`, charged first.

    Args:
        read: Gives the private lessons; called after the charge.
        step: From 0: how many releases were charged before.
    """
    gradient = noisy_gradient(
        read,
        teacher.model,
        noise_multiplier=release.noise_multiplier,
        declared_count=release.declared_count,
        commit=commit,
    )
    settled = step >= int(SETTLED * release.steps)
    rate = release.learning_rate * min(1.0, (step + 1) / RISE) / (2 if settled else 1)
    velocity = MOMENTUM * teacher.velocity + gradient
    model = teacher.model - rate * velocity
    lessons = teacher.lessons + 1
    moved = replace(teacher, velocity=velocity, model=model, lessons=lessons)
    if not settled:
        return moved
    summed, number = teacher.summed + model, teacher.settled + 1
    return replace(moved, summed=summed, settled=number)


def read_lessons(
    units: UnitImages, teacher: Teacher, classes: int, hardware: Hardware,
    watcher: Watcher,
) -> Lessons:  # fmt: skip
    """What the teacher sees of every unit's images; a unit's weights add up to 1.

    Private: only `privacy.teacher` may use it.
    """
    _, resolution, _, channels = units.dataset.images.shape
    transform = scattering(resolution, channels)

    def seen(drawn: UnitRecords) -> Tensor:
        # PRIVACY: unit by unit, as for the wavelet features: a row is rounded by how
        # many images are looked at together, and must not hang on who else is there.
        return teacher.look(to_network(drawn[0]), transform)

    features, labels, weights, owners = [], [], [], []
    with workers(hardware) as pool:
        for first in range(0, units.present, CHUNK):
            last = min(first + CHUNK, units.present)
            drawn = [units.draw(unit) for unit in range(first, last)]
            features += pool.map(seen, drawn)
            for unit, (_, own) in enumerate(drawn, first):
                labels.append(own)
                weights.append(equal_weights(len(own)))
                owners.append(torch.full((len(own),), unit))
            watcher.progress("Showing images to the teacher", last, units.present)
    return Lessons(
        coefficients=torch.cat(features),
        labels=torch.cat(labels),
        weights=torch.cat(weights),
        units=torch.cat(owners),
        classes=classes,
    )


def save_teacher(teacher: Teacher, path: Path) -> None:
    """Keep what was learned so far: it was paid for and cannot be had again."""
    tensors = {f.name: getattr(teacher, f.name).contiguous() for f in fields(Teacher)}
    write_atomically(path, lambda file: save_file(tensors, file))


def load_teacher(path: Path) -> Teacher:
    """Read what `save_teacher` wrote, also in a version that did not count lessons.

    Raises:
        UserError: when the file is damaged or gone.
    """
    with reading_kept(path):
        # Copied, so that the file can be replaced while they are used.
        tensors = {name: kept.clone() for name, kept in load_file(path).items()}
        return Teacher(**{"lessons": tensors["settled"]} | tensors)
