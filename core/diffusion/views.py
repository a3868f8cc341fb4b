"""Views: the (timestep, noise, flip, crop) copies of an image that a gradient averages.

Augmentation multiplicity (Ghalebikesabi et al. 2023, sec. 4; noise multiplicity in
Dockhorn et al. 2022, sec. 3.2): a unit's gradient is the gradient of the mean loss over
its views, so that only the unit, not the view, costs privacy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from core.diffusion.timesteps import TimestepMixture


@dataclass(frozen=True, kw_only=True)
class Views:
    """K noisy copies of a few images, ready for the network.

    Attributes:
        clean: float32 [n·K, c, H, W] in [-1, 1].
        labels: int64 [n·K].
        timesteps: float64 [n·K] in [0, 1000).
        noise: float32 [n·K, c, H, W], standard normal.
    """

    clean: Tensor
    labels: Tensor
    timesteps: Tensor
    noise: Tensor


def to_network(images: Tensor) -> Tensor:
    """uint8 [n, H, W, c] in 0 … 255 → float32 [n, c, H, W] in [-1, 1].

    The constants are public: nothing is fitted to the images.
    """
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """float [n, c, H, W] → uint8 [n, H, W, c], clipped to the pixel range."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


def make_views(
    images: Tensor,
    labels: Tensor,
    *,
    multiplicity: int,
    timesteps: TimestepMixture,
    flip: bool,
    generator: torch.Generator,
    crop: int = 0,
    label_dropout: float = 0.0,
    null_label: int | None = None,
) -> Views:
    """Draw `multiplicity` views of each image.

    Args:
        images: float32 [n, c, H, W] in [-1, 1].
        labels: int64 [n].
        flip: Whether each view is mirrored left to right with probability ½.
        crop: How many pixels a view may be shifted, in each direction: a random crop
            of the image continued by its mirror image (De et al. 2022, sec. 3.2).
        label_dropout: Share of the images all of whose views carry `null_label`
            instead of theirs (Dockhorn et al. 2022, appendix C: 0.1).
        null_label: `NetworkConfig.null_label` of the network.
        generator: May be public: views are no part of the privacy argument.
    """
    place = {"generator": generator, "device": images.device}
    if label_dropout:
        assert null_label is not None, "the network has no null class"
        # Once for an image, before it is repeated, as DPDM does: its gradient is then
        # that of one class, or of none. Drawn for each view, every gradient would be
        # a tenth about no class, and the clip would cut both parts down together.
        dropped = torch.rand(len(labels), **place) < label_dropout
        labels = labels.masked_fill(dropped, null_label)
    clean = images.repeat_interleave(multiplicity, dim=0)
    labels = labels.repeat_interleave(multiplicity)
    if flip:
        mirrored = torch.rand(len(clean), 1, 1, 1, **place) < 0.5
        clean = torch.where(mirrored, clean.flip(-1), clean)
    if crop:
        clean = _shifted(clean, crop, generator)
    return Views(
        clean=clean,
        labels=labels,
        timesteps=timesteps.sample(len(clean), generator),
        noise=torch.randn(clean.shape, **place),
    )


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `most` pixels down or up, and right or left."""
    count, _, height, width = images.shape
    place = {"generator": generator, "device": images.device}
    down = torch.randint(0, 2 * most + 1, (count, 1, 1), **place)
    right = torch.randint(0, 2 * most + 1, (count, 1, 1), **place)
    continued = pad(images, (most,) * 4, mode="reflect").permute(0, 2, 3, 1)
    index = torch.arange(max(count, height, width), device=images.device)
    rows = down + index[:height].view(1, -1, 1)
    columns = right + index[:width].view(1, 1, -1)
    cut = continued[index[:count].view(-1, 1, 1), rows, columns]
    return cut.permute(0, 3, 1, 2).contiguous()
