"""What the bundled starter checkpoint is."""

from __future__ import annotations

from core.diffusion.networks import NetworkConfig

STARTER_NETWORK = NetworkConfig(
    resolution=32,
    image_channels=3,
    fold=2,
    channels=(32, 64, 96),
    # With 32 each channel of the finest level would be normalised by itself, which
    # takes away what timestep and class add to it.
    groups=8,
    layers=1,
    head_channels=32,
    classes=21,
)
"""1.7 million parameters on a folded 16×16 grid: made for two CPU cores."""
