"""The denoising network: a diffusers U-Net, optionally on folded pixels.

On a CPU, convolutions at full resolution are what is slow. Folding f×f pixels into
channels before the U-Net, and unfolding after it, moves them to a smaller grid.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Everything that fixes a network's shape; all of it public.

    Attributes:
        resolution: Height and width of the images, in pixels.
        image_channels: 1 or 3.
        fold: Side of the pixel block folded into channels; 1 folds nothing.
        channels: Width of each level of the U-Net, from fine to coarse.
        layers: Residual blocks per level on the way down (one more on the way up).
        groups: Groups of the group normalisation.
        head_channels: Channels of an attention head.
        attention_levels: Levels that have attention; the middle block always has.
        classes: Rows of the label embedding.
    """

    resolution: int
    image_channels: int
    fold: int = 1
    channels: tuple[int, ...]
    layers: int
    groups: int = 32
    head_channels: int = 64
    attention_levels: tuple[int, ...] = ()
    classes: int

    def to_json(self) -> dict:
        """The fields as JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, fields: dict) -> NetworkConfig:
        """The inverse of `to_json`, strictly: unknown or missing fields are refused.

        Raises:
            UserError: when the fields are not exactly those of a network.
        """
        try:
            config = cls(
                **{
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in fields.items()
                }
            )
        except TypeError as error:
            raise UserError(
                "The checkpoint's config.json describes another architecture than "
                f"Sfumato's ({error}): choose one that Sfumato made or imported."
            ) from None
        _check(config)
        return config


def _check(config: NetworkConfig) -> None:
    channels, attention = config.channels, config.attention_levels
    lists = isinstance(channels, tuple) and isinstance(attention, tuple)
    sizes = (
        config.resolution,
        config.fold,
        config.layers,
        config.groups,
        config.head_channels,
        config.classes,
        *(channels if lists else ()),
    )
    sound = (
        lists
        and all(isinstance(size, int) and 1 <= size <= 4096 for size in sizes)
        and config.image_channels in (1, 3)
        and 1 <= len(channels) <= 8
        and config.resolution % (config.fold * 2 ** (len(channels) - 1)) == 0
        and all(channel % config.groups == 0 for channel in channels)
        and all(level in range(len(channels)) for level in attention)
        # The middle block attends at the width of the coarsest level.
        and all(
            channels[level] % config.head_channels == 0 for level in (*attention, -1)
        )
    )
    if not sound:
        raise UserError(
            "The checkpoint's config.json holds sizes that no network can have: "
            "choose another checkpoint, or copy this one again from its source."
        )


class DenoisingNetwork(nn.Module):
    """Predicts, from a noisy image, its timestep and its class, what the card says.

    `forward(noisy, timesteps, labels)`: noisy float [n, c, H, W], timesteps int64 [n]
    in [0, 1000), labels int64 [n] in [0, classes) → float [n, c, H, W].
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.config = config
        levels = range(len(config.channels))
        folded = config.image_channels * config.fold**2
        self.unet = UNet2DModel(
            sample_size=config.resolution // config.fold,
            in_channels=folded,
            out_channels=folded,
            block_out_channels=config.channels,
            layers_per_block=config.layers,
            down_block_types=tuple(
                "AttnDownBlock2D" if level in config.attention_levels else "DownBlock2D"
                for level in levels
            ),
            up_block_types=tuple(
                "AttnUpBlock2D" if level in config.attention_levels else "UpBlock2D"
                for level in reversed(levels)
            ),
            norm_num_groups=config.groups,
            attention_head_dim=config.head_channels,
            num_class_embeds=config.classes,
        )
        # Dropout or other training-time behaviour would couple or randomise units;
        # the network has none, and stays in evaluation mode.
        self.eval()

    def forward(self, noisy: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        folded = pixel_unshuffle(noisy, self.config.fold)
        predicted = self.unet(folded, timesteps, class_labels=labels).sample
        return pixel_shuffle(predicted.float(), self.config.fold)


def build_network(config: NetworkConfig) -> DenoisingNetwork:
    """A network of this shape, with fresh random weights.

    Raises:
        UserError: when the sizes cannot make a network.
    """
    _check(config)
    return DenoisingNetwork(config)


def parameter_count(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def adapt_classes(
    network: DenoisingNetwork, classes: int, *, generator: torch.Generator
) -> DenoisingNetwork:
    """The same network with a fresh label table of `classes` rows.

    Each new row is the mean of the public rows plus a tenth of their spread, so that
    every private class starts as an average public one, and no two are alike. The
    random part comes from a public generator.
    """
    from dataclasses import replace

    adapted = build_network(replace(network.config, classes=classes))
    state = dict(network.state_dict())
    table = state.pop("unet.class_embedding.weight")
    spread = table.std(dim=0, unbiased=False)
    fresh = torch.randn(classes, table.shape[1], generator=generator)
    state["unet.class_embedding.weight"] = table.mean(dim=0) + 0.1 * spread * fresh
    adapted.load_state_dict(state)
    return adapted
