"""What the bundled starter checkpoint is."""

from __future__ import annotations

from core.diffusion.networks import NetworkConfig

STARTER_NETWORK = NetworkConfig(
    resolution=32,
    image_channels=3,
    fold=2,
    # Of its 32 groups each is one channel at the first level, which therefore heeds
    # neither timestep nor class. It was trained so; another one should have 8 groups.
    channels=(32, 64, 96),
    layers=1,
    head_channels=32,
    classes=21,
)
"""1.7 million parameters on a folded 16×16 grid: made for two CPU cores."""
