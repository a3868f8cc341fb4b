"""A small convolutional classifier: the yardstick of usefulness.

Trained on synthetic images only and tested on real held-out ones, beside the same
network trained on the real images. Its settings are fixed beforehand; nothing is chosen
by looking at real test images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from core.evaluation.networks import CONVOLUTIONAL, build_classifier, to_network
from core.events import Watcher
from core.parallel import Hardware, Workers, workers

BATCH = 128
LEARNING_RATE = 2e-3


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    updates: int,
    flip: bool,
    hardware: Hardware,
    activity: str,
    watcher: Watcher,
    seed: int = 0,
    kind: str = CONVOLUTIONAL,
) -> nn.Module:
    """Train for a fixed number of updates.

    Args:
        images: uint8 [n, H, W, c].
        labels: int64 [n].
        flip: Mirror images at random.
        kind: One of `networks.CLASSIFIERS`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_classifier(images.shape[3], classes, kind).to(hardware.device)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=LEARNING_RATE, total_steps=updates
    )
    with workers(hardware) as pool:
        for update in range(updates):
            chosen = torch.randint(len(labels), (BATCH,), generator=generator).numpy()
            batch = _prepare(images[chosen], flip, generator).to(hardware.device)
            answers = torch.from_numpy(labels[chosen]).to(hardware.device)
            _set_gradients(network, batch, answers, pool, hardware)
            optimiser.step()
            schedule.step()
            if update % 20 == 0 or update + 1 == updates:
                watcher.progress(activity, update + 1, updates)
                watcher.stop_if_requested()
    return network


def _set_gradients(
    network: nn.Module,
    images: Tensor,
    answers: Tensor,
    pool: Workers,
    hardware: Hardware,
) -> None:
    """Gradient of the mean loss of a batch, dealt out to the workers."""
    parameters = list(network.parameters())

    def work(part: Tensor, wanted: Tensor) -> list[Tensor]:
        with hardware.autocast():
            scores = network(part)
        loss = nn.functional.cross_entropy(
            scores.float(), wanted, label_smoothing=0.05, reduction="sum"
        )
        return list(torch.autograd.grad(loss / len(images), parameters))

    parts = [tensor.tensor_split(pool.threads) for tensor in (images, answers)]
    found = list(pool.map(work, *parts))
    for parameter, *gradients in zip(parameters, *found, strict=True):
        parameter.grad = torch.stack(gradients).sum(dim=0)


def _prepare(images: np.ndarray, flip: bool, generator: torch.Generator) -> Tensor:
    """uint8 [n, H, W, c] → float32 [n, c, H, W] in [-1, 1], shifted by up to 2 px."""
    batch = to_network(images)
    if flip:
        mirrored = torch.rand(len(batch), 1, 1, 1, generator=generator) < 0.5
        batch = torch.where(mirrored, batch.flip(-1), batch)
    shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(batch, shifts=shift, dims=(2, 3))


@torch.no_grad()
def accuracy(
    network: nn.Module, images: np.ndarray, labels: np.ndarray, hardware: Hardware
) -> float:
    """Share of right answers in [0, 1]."""
    right = 0
    for first in range(0, len(labels), 1000):
        batch = to_network(images[first : first + 1000]).to(hardware.device)
        answers = network(batch).argmax(dim=1).cpu().numpy()
        right += int((answers == labels[first : first + 1000]).sum())
    return right / len(labels)
