"""Public pretraining: ordinary training on public images, without privacy.

`train` is also what the moment warm-up runs on its pseudo-images: both see only what is
public already.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.diffusion import ema
from core.diffusion.networks import DenoisingNetwork
from core.diffusion.objective import mean_loss
from core.diffusion.process import Process
from core.diffusion.timesteps import TimestepMixture
from core.diffusion.views import Views, make_views
from core.errors import Stopped
from core.events import Watcher
from core.files import write_atomically
from core.parallel import Hardware, Workers, workers
from core.training.distributed import LEADER, Crew
from core.training.kept import DAMAGED

Batch = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""(count, generator) → (images float32 [count, c, H, W] in [-1, 1], labels int64)."""

STATE_EVERY = 500
PIXELS_AT_ONCE = 128 * 32 * 32
"""Of the views that go through the network together; memory grows with it."""


@dataclass(frozen=True, kw_only=True)
class PublicTraining:
    """Hyper-parameters of a training run on public images.

    Attributes:
        steps: Optimiser steps.
        batch_size: Images per step.
        learning_rate: Adam's, at its highest.
        warmup_steps: Linear rise to it.
        decay: Whether a cosine then takes it down to zero at the end.
        ema_decay: Of the averaged weights that are kept.
        timesteps: Which noise levels are trained.
        flip: Whether images may be mirrored.
        crop: How many pixels they may be shifted.
        label_dropout: Share of them that is shown without its class.
        gradient_norm: What a larger norm of a step's gradient is reduced to; 0 leaves
            gradients as they are.
        seed: Public: makes the run repeatable.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    timesteps: TimestepMixture
    flip: bool
    crop: int = 0
    label_dropout: float = 0.0
    gradient_norm: float = 1.0
    decay: bool = True
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * rise * (fall if self.decay else 1.0)


def train(
    network: DenoisingNetwork,
    batch: Batch,
    training: PublicTraining,
    *,
    process: Process,
    hardware: Hardware,
    activity: str,
    watcher: Watcher,
    state: Path | None = None,
    crew: Crew | None = None,
) -> list[float]:
    """Train `network` in place on public images; it ends as the averaged weights.

    Args:
        batch: Gives images and labels, on any device; the same for the same generator.
        process: How the network is trained.
        crew: Processes that share each batch. All make the same updates; one of them
            keeps the state.
        state: A file to resume from, and to keep the state in every 500 steps and
            before a stop.

    Returns:
        The mean training loss of each hundredth of the run: public.

    Raises:
        Stopped: when the watcher asks.
    """
    crew = crew or Crew()
    # Processes exchange weights as they lie, so theirs lie in the usual way.
    layout = hardware.layout if crew.size == 1 else torch.contiguous_format
    network.to(hardware.device, memory_format=layout)
    parameters = [p for p in network.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.Adam(parameters, lr=training.learning_rate)
    leads = crew.rank == LEADER
    first, losses = _resume(state if leads else None, parameters, average, optimiser)
    first = _alike(crew, first, parameters, average, optimiser)

    with workers(hardware) as pool:
        for step in range(first, training.steps):
            generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
            images, labels = batch(training.batch_size, generator)
            loss, gradients = _gradients(
                network, parameters, images, labels, training,
                process, hardware, pool, generator, crew,
            )  # fmt: skip
            _update(parameters, gradients, optimiser, training, step)
            ema.update(average, parameters, step, training.ema_decay)
            losses.append(loss)
            watcher.progress(activity, step + 1, training.steps)
            stopping = crew.anybody(watcher.stop_requested())
            if state and leads and (stopping or (step + 1) % STATE_EVERY == 0):
                _keep(state, step + 1, losses, parameters, average, optimiser)
            if stopping:
                raise Stopped

    with torch.no_grad():
        for parameter, averaged in zip(parameters, average, strict=True):
            parameter.copy_(averaged)
            parameter.grad = None
    network.to(memory_format=torch.contiguous_format)
    return _by_hundredths(losses)


def _update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    optimiser: torch.optim.Adam,
    training: PublicTraining,
    step: int,
) -> None:
    """Step `step` of the optimiser, along gradients of the training's norm at most."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimiser.param_groups[0]["lr"] = training.rate_at(step)
    if training.gradient_norm:
        torch.nn.utils.clip_grad_norm_(parameters, training.gradient_norm)
    optimiser.step()


def _by_hundredths(losses: list[float]) -> list[float]:
    stride = max(1, len(losses) // 100)
    chunks = [losses[i : i + stride] for i in range(0, len(losses), stride)]
    return [sum(chunk) / len(chunk) for chunk in chunks]


def _gradients(
    network: DenoisingNetwork,
    parameters: list[Tensor],
    images: Tensor,
    labels: Tensor,
    training: PublicTraining,
    process: Process,
    hardware: Hardware,
    pool: Workers,
    generator: torch.Generator,
    crew: Crew,
) -> tuple[float, list[Tensor]]:
    """Mean loss and its gradient, the batch dealt out to the crew and its workers."""
    views = make_views(
        images, labels, multiplicity=1, timesteps=training.timesteps,
        flip=training.flip, generator=generator, crop=training.crop,
        label_dropout=training.label_dropout, null_label=network.config.null_label,
    )  # fmt: skip
    own = [
        tensor.tensor_split(crew.size)[crew.rank].to(hardware.device)
        for tensor in (views.clean, views.labels, views.timesteps, views.noise)
    ]
    # A batch smaller than the workers are many leaves some of them without work.
    parts = [
        tensor.tensor_split(min(pool.threads, max(1, len(own[0])))) for tensor in own
    ]

    at_once = max(1, PIXELS_AT_ONCE // network.config.resolution**2)

    def work(*part: Tensor) -> tuple[float, list[Tensor]]:
        """Of a part, a portion at a time, so that the batch may be of any size."""
        told, total = 0.0, []
        for portion in zip(*(tensor.split(at_once) for tensor in part), strict=True):
            piece = Views(**dict(zip(_FIELDS, portion, strict=True)))
            share = len(piece.clean) / len(views.clean)
            loss = share * mean_loss(network, piece, process, hardware.autocast())
            gradients = list(torch.autograd.grad(loss, parameters))
            if total:
                torch._foreach_add_(total, gradients)
            else:
                total = gradients
            told += loss.item()
        return told, total

    results = list(pool.map(work, *parts)) if len(own[0]) else []
    total = results[0][1] if results else [torch.zeros_like(p) for p in parameters]
    for _, gradients in results[1:]:
        torch._foreach_add_(total, gradients)
    loss = torch.tensor([sum(loss for loss, _ in results)], device=hardware.device)
    crew.add_up_for_all([*total, loss])
    return loss.item(), total


_FIELDS = ("clean", "labels", "timesteps", "noise")
_KEPT = ("weight", "average", "first", "second")
"""What is kept of each parameter: it, its moving average, Adam's two moments."""


def _keep(
    path: Path,
    step: int,
    losses: list[float],
    parameters: list[Tensor],
    average: list[Tensor],
    optimiser: torch.optim.Adam,
) -> None:
    tensors = {"step": torch.tensor(step), "losses": torch.tensor(losses)}
    for index, parameter in enumerate(parameters):
        moments = optimiser.state[parameter]
        own = (
            parameter.detach(), average[index], moments["exp_avg"],
            moments["exp_avg_sq"],
        )  # fmt: skip
        for name, tensor in zip(_KEPT, own, strict=True):
            tensors[f"{index}.{name}"] = tensor
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda file: save_file(tensors, file))


@torch.no_grad()
def _resume(
    path: Path | None,
    parameters: list[Tensor],
    average: list[Tensor],
    optimiser: torch.optim.Adam,
) -> tuple[int, list[float]]:
    if path is None or not path.is_file():
        return 0, []
    try:
        tensors = load_file(path)
        step, losses = int(tensors["step"]), tensors["losses"].tolist()
        kept = [
            [tensors[f"{index}.{name}"].view_as(parameter) for name in _KEPT]
            for index, parameter in enumerate(parameters)
        ]
    except DAMAGED:
        return 0, []  # Begun again: it costs time only.
    for parameter, averaged, own in zip(parameters, average, kept, strict=True):
        weight, mean, first, second = own
        parameter.copy_(weight)
        averaged.copy_(mean)
        optimiser.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": first.to(parameter.device),
            "exp_avg_sq": second.to(parameter.device),
        }
    return step, losses


@torch.no_grad()
def _alike(
    crew: Crew,
    step: int,
    parameters: list[Tensor],
    average: list[Tensor],
    optimiser: torch.optim.Adam,
) -> int:
    """Give the whole crew what the leader begins with; the step it has come to."""
    if crew.size == 1:
        return step
    at = torch.tensor([step])
    crew.share([at])
    moments = []
    for parameter in parameters if int(at) else ():
        own = optimiser.state[parameter]
        if not own:
            own["step"] = torch.tensor(float(at))
            own["exp_avg"] = torch.zeros_like(parameter)
            own["exp_avg_sq"] = torch.zeros_like(parameter)
        moments += [own["exp_avg"], own["exp_avg_sq"]]
    crew.share([*parameters, *average, *moments])
    return int(at)


def write_log(path: Path, losses: list[float], training: PublicTraining) -> None:
    """Keep the public training log beside the checkpoint."""
    log = {"steps": training.steps, "mean_loss_per_hundredth": losses}
    write_atomically(path, lambda file: file.write_text(json.dumps(log) + "\n"))
