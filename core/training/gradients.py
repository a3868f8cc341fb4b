"""The gradients of the training's units: what they are, and how fast they come.

Here the diffusion objective meets the privacy room: a unit's rows are the views of its
images, and its loss is their mean loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from core.checkpoints.store import load_checkpoint
from core.diffusion.adapters import choose
from core.diffusion.networks import DenoisingNetwork
from core.diffusion.objective import row_losses
from core.diffusion.process import Process
from core.diffusion.timesteps import TimestepMixture
from core.diffusion.views import Views, make_views, to_network
from core.parallel import Hardware, choose_hardware
from core.privacy.gradients.fitness import check_fitness
from core.privacy.gradients.rows import Network, Problem, UnitRows
from core.privacy.gradients.sums import Pace, clipped_sums
from core.privacy.gradients.tuner import choose_pace
from core.training.recipe import Recipe
from core.training.units import DrawUnit, UnitRecords


class Sum(Protocol):
    """The sum of the clipped gradients of units."""

    def __call__(
        self, units: np.ndarray, draw: DrawUnit, *, outer: bool = False
    ) -> Tensor:
        """Float64 [d].

        Args:
            units: int64 [n].
            draw: Gives a unit's records.
            outer: Whether they are public and shown at the outer timesteps.
        """
        ...


@contextmanager
def summing(
    recipe: Recipe,
    network: DenoisingNetwork,
    process: Process,
    hardware: Hardware,
    pace: Pace,
    *,
    images_per_unit: int,
    units: float,
    clip_norm: float,
) -> Iterator[Sum]:
    """The sum of clipped unit gradients, usable within the block.

    Guarantee: as `privacy.gradients.sums.clipped_sums`.

    Args:
        units: Of a sum, on average; public.
    """
    with clipped_sums(
        _problem(network, process, hardware),
        pace,
        hardware,
        rows=recipe.augmentation_multiplicity * images_per_unit,
        units=units,
        clip_norm=clip_norm,
    ) as total_of:

        def sum_of(units: np.ndarray, draw: DrawUnit, *, outer: bool = False) -> Tensor:
            shown = recipe.outer_timesteps if outer else recipe.shown_timesteps
            shown = shown.on(process.schedule)

            def rows_of(part: np.ndarray) -> UnitRows:
                records = [draw(int(unit)) for unit in part]
                return unit_rows(records, recipe, network, hardware.device, shown)

            return total_of(units, rows_of)

        yield sum_of


def _problem(
    network: DenoisingNetwork, process: Process, hardware: Hardware
) -> Problem:
    def losses(network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
        clean, labels, timesteps, noise = inputs
        views = Views(clean=clean, labels=labels, timesteps=timesteps, noise=noise)
        return row_losses(network, views, process, hardware.autocast())

    return Problem(network=network, losses=losses)


def unit_rows(
    units: Sequence[UnitRecords],
    recipe: Recipe,
    network: DenoisingNetwork,
    device: torch.device,
    timesteps: TimestepMixture,
) -> UnitRows:
    """Fresh views of all images of these units, on the device."""
    pixels = torch.cat([torch.as_tensor(pixels) for pixels, _ in units])
    labels = torch.cat([torch.as_tensor(labels) for _, labels in units])
    images = to_network(pixels).expand(-1, network.config.image_channels, -1, -1)
    # Views need not be secret: a generator of their own, seeded afresh.
    generator = torch.Generator(device)
    generator.seed()
    views = make_views(
        images.to(device),
        labels.to(device),
        multiplicity=recipe.augmentation_multiplicity,
        timesteps=timesteps,
        flip=recipe.flip,
        generator=generator,
        crop=recipe.crop,
        label_dropout=recipe.label_dropout,
        null_label=network.config.null_label,
    )
    counts = torch.tensor([len(own) for _, own in units], device=device)
    counts *= recipe.augmentation_multiplicity
    first = (counts.cumsum(0) - counts)[:, None]
    place = torch.arange(int(counts.max()), device=device)
    own = place < counts[:, None]
    # A unit of fewer images than another is filled up with copies of its first view.
    index = torch.where(own, first + place, first)
    inputs = (views.clean, views.labels, views.timesteps, views.noise)
    return UnitRows(
        inputs=tuple(tensor[index] for tensor in inputs),
        weights=own / counts[:, None],
    )


@dataclass(frozen=True, kw_only=True)
class Workload:
    """All that the speed of a training depends on, beside the machine.

    Attributes:
        checkpoint: Folder of the public network.
        multiplicity: Views of an image.
        images_per_unit: At most.
        trained, lora_rank: As the recipe has them.
        device: "auto", "cpu" or "cuda".
    """

    checkpoint: Path
    multiplicity: int
    images_per_unit: int
    trained: tuple[str, ...]
    lora_rank: int
    device: str


@lru_cache(maxsize=16)
def find_pace(workload: Workload) -> Pace:
    """How to compute the gradients on this machine as it is now; takes a few seconds.

    Looks at random images only. Remembered: it says something about the machine.

    Raises:
        UserError: when the network is not fit for it, or memory does not suffice.
    """
    checkpoint = load_checkpoint(workload.checkpoint)
    hardware = choose_hardware(workload.device)
    network = checkpoint.network.to(hardware.device)
    choose(network, workload.trained, workload.lora_rank)
    problem = _problem(network, checkpoint.card.predicts, hardware)
    rows = workload.multiplicity * workload.images_per_unit
    make_rows = _random_rows(network, rows, hardware.device)
    check_fitness(problem, make_rows(2))
    alike = workload.images_per_unit == 1
    return choose_pace(problem, make_rows, hardware, alike=alike)


def _random_rows(
    network: DenoisingNetwork, rows: int, device: torch.device
) -> Callable[[int], UnitRows]:
    config = network.config
    image = (config.image_channels, config.resolution, config.resolution)
    generator = torch.Generator(device)

    def make(units: int) -> UnitRows:
        place = {"generator": generator, "device": device}
        clean, noise = (torch.randn(units, rows, *image, **place) for _ in range(2))
        labels = torch.zeros(units, rows, dtype=torch.int64, device=device)
        timesteps = torch.rand(units, rows, **place).double() * 999
        return UnitRows(
            inputs=(clean, labels, timesteps, noise),
            weights=torch.full((units, rows), 1 / rows, device=device),
        )

    return make
