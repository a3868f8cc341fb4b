"""Trains a classifier as a `ClassifierRecipe` has it: the networks, and the descent."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from core.evaluation.networks import to_network
from core.evaluation.recipe import (
    COLOUR,
    COSINE,
    CROP,
    FLIP,
    WIDE_RESNET,
    ClassifierRecipe,
)
from core.events import Watcher
from core.parallel import Hardware

PADDING = 4
"""Pixels on each side before a random crop, as is usual for 32×32 (He et al. 2016)."""

JITTER = 0.25
"""The most by which brightness, contrast and saturation change; the paper has none."""


def train_published(
    recipe: ClassifierRecipe,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    learning_rate: float,
    weight_decay: float,
    classes: int,
    hardware: Hardware,
    activity: str,
    watcher: Watcher,
    seed: int = 0,
) -> nn.Module:
    """The averaged weights after all iterations, ready to answer.

    Args:
        recipe: All settings but two.
        images: uint8 [n, H, W, c], H and W at least 16 and alike.
        labels: int64 [n].
        learning_rate, weight_decay: One pair of `recipe.settings()`.

    Raises:
        Stopped: between two iterations.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_published(recipe, images.shape[3], classes).to(hardware.device)
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=weight_decay,
        )
        end = 0.0 if recipe.schedule == COSINE else learning_rate
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimiser, recipe.iterations, eta_min=end
        )
        average = copy.deepcopy(network)
        for step in range(recipe.iterations):
            chosen = torch.randint(
                len(labels), (recipe.batch_size,), generator=generator
            ).numpy()
            batch = random_views(images[chosen], recipe, generator).to(hardware.device)
            answers = torch.from_numpy(labels[chosen]).to(hardware.device)
            answers = answers.repeat_interleave(recipe.augmentation_multiplicity)
            with hardware.autocast():
                scores = network(batch)
            loss = cross_entropy(
                scores.float(), answers, label_smoothing=recipe.label_smoothing
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            follow(average, network, recipe, step)
            watcher.progress(activity, step + 1, recipe.iterations)
            watcher.stop_if_requested()
    return average.eval()


@torch.no_grad()
def follow(
    average: nn.Module, network: nn.Module, recipe: ClassifierRecipe, step: int
) -> None:
    """Move the averaged weights towards the newest; what was counted is copied."""
    decay = min(recipe.ema_decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for kept, new in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(new)


def build_published(recipe: ClassifierRecipe, channels: int, classes: int) -> nn.Module:
    """The network of a recipe with fresh weights, for small images [n, c, H, W].

    The large networks lose their first reduction, which is meant for photographs of
    224 pixels.
    """
    if recipe.network == WIDE_RESNET:
        return WideResNet(channels, classes, recipe.depth, recipe.width, recipe.dropout)
    from torchvision.models import resnet50
    from torchvision.models.vgg import cfgs, make_layers

    if recipe.network == "resnet50":
        network = resnet50(num_classes=classes)
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        return network
    features = make_layers(cfgs["D"], batch_norm=True)  # of 16 layers
    features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    # The fifth reduction would leave nothing of 16 pixels.
    features[-1] = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, classes))


class WideResNet(nn.Module):
    """Zagoruyko & Komodakis 2016 (arXiv 1605.07146), sec. 2 and Table 1.

    Three groups of (depth - 4) / 6 pre-activated blocks with 16, 32 and 64 channels
    times `width`. Group normalisation stands for that over the batch, as in De et al.
    2022 (arXiv 2204.13650), whose training the paper follows.
    """

    def __init__(
        self, channels: int, classes: int, depth: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
        before = 16
        for group, wide in enumerate((16 * width, 32 * width, 64 * width)):
            for block in range((depth - 4) // 6):
                stride = 2 if group and block == 0 else 1
                layers.append(_WideBlock(before, wide, stride, dropout))
                before = wide
        self.layers = nn.Sequential(
            *layers,
            *(_norm(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(before, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class _WideBlock(nn.Module):
    def __init__(self, before: int, wide: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.active = nn.Sequential(_norm(before), nn.ReLU())
        self.learned = nn.Sequential(
            nn.Conv2d(before, wide, 3, stride, padding=1, bias=False),
            *(_norm(wide), nn.ReLU(), nn.Dropout(dropout)),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
        )
        alike = before == wide and stride == 1
        self.passed = None if alike else nn.Conv2d(before, wide, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        active = self.active(features)
        passed = features if self.passed is None else self.passed(active)
        return passed + self.learned(active)


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(16, channels)


def random_views(
    images: np.ndarray, recipe: ClassifierRecipe, generator: torch.Generator
) -> Tensor:
    """float32 [n K, c, H, W] in [-1, 1]: each image K times, each changed by itself."""
    copies = recipe.augmentation_multiplicity
    views = to_network(images).repeat_interleave(copies, dim=0)
    if CROP in recipe.augmentations:
        views = _cropped(views, generator)
    if FLIP in recipe.augmentations:
        mirrored = torch.rand(len(views), 1, 1, 1, generator=generator) < 0.5
        views = torch.where(mirrored, views.flip(-1), views)
    if COLOUR in recipe.augmentations:
        views = _recoloured(views, generator)
    return views


def _cropped(views: Tensor, generator: torch.Generator) -> Tensor:
    """A window of the old size out of each image with a mirrored border."""
    count, _, side, _ = views.shape
    wide = pad(views, (PADDING,) * 4, mode="reflect")
    starts = torch.randint(0, 2 * PADDING + 1, (2, count, 1), generator=generator)
    rows, columns = starts + torch.arange(side)
    which = torch.arange(count)[:, None, None]
    return wide[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _recoloured(views: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each by a factor near 1."""
    factors = 1 + JITTER * (
        2 * torch.rand(3, len(views), 1, 1, 1, generator=generator) - 1
    )
    brightness, contrast, saturation = factors
    shown = (views + 1) / 2 * brightness
    mean = shown.mean(dim=(1, 2, 3), keepdim=True)
    shown = mean + contrast * (shown - mean)
    grey = shown.mean(dim=1, keepdim=True)
    shown = grey + saturation * (shown - grey)
    return shown.clamp(0, 1) * 2 - 1
