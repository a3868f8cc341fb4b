"""Three small classifiers of different make, so that no figure hangs on one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

CONVOLUTIONAL, RESIDUAL, GROUPED = "convolutional", "residual", "grouped"


def to_network(images: np.ndarray) -> Tensor:
    """uint8 [n, H, W, c] in 0 … 255 → float32 [n, c, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def build_classifier(
    channels: int, classes: int, kind: str = CONVOLUTIONAL
) -> nn.Module:
    """A classifier of images [n, channels, H, W], H and W at least 16 and alike.

    Args:
        kind: One of `CLASSIFIERS`.
    """
    return CLASSIFIERS[kind](channels, classes)


def _convolutional(channels: int, classes: int) -> nn.Module:
    """Three convolutional blocks and a linear layer, about 80,000 numbers."""
    blocks: list[nn.Module] = []
    width = channels
    for wider in (32, 64, 96):
        blocks += [
            nn.Conv2d(width, wider, 3, padding=1, bias=False),
            nn.GroupNorm(8, wider),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        width = wider
    return nn.Sequential(*blocks, *_answers(width, classes))


def _residual(channels: int, classes: int) -> nn.Module:
    """Three residual blocks (He et al. 2016), about 220,000 numbers."""
    return nn.Sequential(
        *_layer(channels, 24, 3, stride=2),
        nn.ReLU(),
        _Block(24, 32),
        _Block(32, 64, stride=2),
        _Block(64, 96, stride=2),
        *_answers(96, classes),
    )


def _grouped(channels: int, classes: int) -> nn.Module:
    """The same in groups, and wider (Xie et al. 2017), about 140,000 numbers."""
    return nn.Sequential(
        *_layer(channels, 32, 3, stride=2),
        nn.ReLU(),
        _Block(32, 64, inner=64),
        _Block(64, 128, stride=2, inner=96),
        _Block(128, 192, stride=2, inner=128),
        *_answers(192, classes),
    )


class _Block(nn.Module):
    """What is learned is added to what comes in."""

    def __init__(
        self, channels: int, wider: int, *, stride: int = 1, inner: int | None = None
    ) -> None:
        super().__init__()
        if inner is None:
            self.learned = nn.Sequential(
                *_layer(channels, wider, 3, stride=stride),
                nn.ReLU(),
                *_layer(wider, wider, 3),
            )
        else:
            self.learned = nn.Sequential(
                *_layer(channels, inner, 1),
                nn.ReLU(),
                *_layer(inner, inner, 3, stride=stride, groups=8),
                nn.ReLU(),
                *_layer(inner, wider, 1),
            )
        self.passed = nn.Conv2d(channels, wider, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.learned(features) + self.passed(features))


def _layer(
    channels: int, wider: int, size: int, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(
        channels, wider, size, stride, size // 2, groups=groups, bias=False
    )
    return convolution, nn.GroupNorm(8, wider)


def _answers(width: int, classes: int) -> tuple[nn.Module, ...]:
    return (
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, classes),
    )  # fmt: skip


CLASSIFIERS: dict[str, Callable[[int, int], nn.Module]] = {
    CONVOLUTIONAL: _convolutional,
    RESIDUAL: _residual,
    GROUPED: _grouped,
}
"""Kind → (image channels, classes) → a classifier with fresh weights."""
