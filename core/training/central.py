"""The warm-up on central images: a few noisy mean images of every class (DP-FETA).

Poisson draws, each charged as a step of a mechanism of its own; all that follows a draw
is post-processing. It helps where a class looks like its mean, as digits do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate, pad

from core.diffusion.views import to_network
from core.files import write_atomically
from core.privacy.central import sum_of_images
from core.privacy.mechanism import Commit, Mechanism, private_step
from core.privacy.moments import Contributions
from core.training.kept import reading_kept
from core.training.units import UnitImages, equal_weights

BLUR = 3
"""Side of the window of the median that takes single noisy pixels away."""


@dataclass(frozen=True, kw_only=True)
class CentralRelease:
    """The constants of the central images; all public.

    Attributes:
        mechanism: Of the draws: as many as it has steps, of sensitivity 1. Its divisor
            is the public number of images expected of a class, were all alike in size.
        classes: Number of classes.
        reduce: By how much an image's sides are reduced before it is added up.
    """

    mechanism: Mechanism
    classes: int
    reduce: int

    @classmethod
    def poisson(
        cls,
        *,
        population: int,
        batch_size: int,
        noise_multiplier: float,
        draws: int,
        classes: int,
        reduce: int,
    ) -> CentralRelease:
        """Draws of `batch_size` expected units from at most `population`."""
        mechanism = Mechanism.poisson(
            population=population,
            batch_size=batch_size,
            noise_multiplier=noise_multiplier,
            clip_norm=1.0,
            steps=draws,
        )
        # PRIVACY: public numbers only, never how many images a class has.
        divisor = batch_size / classes
        fields = vars(mechanism) | {"divisor": divisor}
        return cls(mechanism=Mechanism(**fields), classes=classes, reduce=reduce)


def draw_central(
    release: CentralRelease, units: UnitImages, *, commit: Commit
) -> Tensor:
    """One noisy mean image of every class: float32 [classes, c, h, w], reduced.

    A class of less than its even share comes out fainter, and a larger one stronger.

    Guarantee: one step of `release.mechanism`, charged before a record is read.
    """
    _, resolution, _, channels = units.dataset.images.shape
    side = max(1, resolution // release.reduce)
    # Pixels within [-1, 1] over √d make a vector no longer than 1: nothing is cut off.
    longest = (channels * side * side) ** 0.5

    def sums(drawn: np.ndarray) -> Tensor:
        vectors, labels = [torch.zeros(0, channels * side * side)], []
        weights = [torch.zeros(0, dtype=torch.float64)]
        for unit in drawn:
            pixels, own = units.draw(int(unit))
            small = interpolate(to_network(pixels), size=(side, side), mode="area")
            vectors.append(small.flatten(1) / longest)
            labels += own.tolist()
            weights.append(equal_weights(len(own)))
        return sum_of_images(
            Contributions(
                coefficients=torch.cat(vectors),
                labels=torch.tensor(labels, dtype=torch.long),
                weights=torch.cat(weights),
                classes=release.classes,
            )
        )

    noisy = private_step(
        release.mechanism, present=units.present, clipped_sum=sums, commit=commit
    )
    return noisy.view(release.classes, channels, side, side) * longest


def finished(noisy: Tensor, resolution: int) -> Tensor:
    """Noisy means as images to train on: post-processing.

    Args:
        noisy: float32 [draws, classes, c, h, w], as `draw_central` gives them.

    Returns:
        float32 [draws, classes, c, resolution, resolution] in [-1, 1].
    """
    images = noisy.flatten(0, 1).clamp(-1, 1)
    size = (resolution, resolution)
    images = interpolate(images, size=size, mode="bilinear", align_corners=False)
    edge = BLUR // 2
    windows = pad(images, (edge,) * 4, mode="replicate")
    windows = windows.unfold(2, BLUR, 1).unfold(3, BLUR, 1).flatten(4)
    return windows.median(dim=-1).values.unflatten(0, noisy.shape[:2])


def save_central(noisy: Tensor, path: Path) -> None:
    """Keep the draws made so far: they were paid for and cannot be had again."""
    tensors = {"noisy": noisy.contiguous()}
    write_atomically(path, lambda file: save_file(tensors, file))


def load_central(path: Path) -> Tensor:
    """Read what `save_central` wrote.

    Raises:
        UserError: when the file is damaged or gone.
    """
    with reading_kept(path):
        # Copied, so that the file can be replaced while they are used.
        return load_file(path)["noisy"].clone()
