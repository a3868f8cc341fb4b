"""The denoising network: a diffusers U-Net, optionally on folded pixels.

On a CPU, convolutions at full resolution are what is slow. Folding f×f pixels into
channels before the U-Net, and unfolding after it, moves them to a smaller grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from core.errors import UserError

LABEL_TABLE = "unet.class_embedding.weight"


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Everything that fixes a network's shape and function; all of it public.

    Attributes:
        resolution: Height and width of the images, in pixels.
        image_channels: 1 or 3.
        fold: Side of the pixel block folded into channels; 1 folds nothing.
        channels: Width of each level of the U-Net, from fine to coarse.
        layers: Residual blocks per level on the way down (one more on the way up).
        groups: Groups of the group normalisation.
        head_channels: Channels of an attention head, where `heads` is 0.
        heads: Attention heads of every level, whatever its width.
        attention_levels: Levels that have attention; the middle block always has.
        classes: Rows of the label embedding; 0 for a network without labels.
        null_class: Whether one more row stands for "no label" (Ho & Salimans 2022).
        scale_shift: Whether timestep and label also scale the features of a residual
            block (adaptive group normalisation), not only shift them.
        residual_resampling: Whether a residual block changes the resolution, instead
            of a convolution.
        norm_epsilon: Of the group normalisation.
        sine_first, frequency_shift: Order and spacing of the timestep's sinusoids.
        pad_after: Whether a downsampling convolution pads right and below only.
    """

    resolution: int
    image_channels: int
    fold: int = 1
    channels: tuple[int, ...]
    layers: int
    groups: int = 32
    head_channels: int = 64
    heads: int = 0
    attention_levels: tuple[int, ...] = ()
    classes: int
    null_class: bool = False
    scale_shift: bool = False
    residual_resampling: bool = False
    norm_epsilon: float = 1e-5
    sine_first: bool = False
    frequency_shift: int = 0
    pad_after: bool = False

    @property
    def null_label(self) -> int | None:
        """The label that stands for "no label"; None when the network knows none."""
        return self.classes if self.null_class else None

    @property
    def label_rows(self) -> int:
        """Rows of the label table."""
        return self.classes + self.null_class

    def to_json(self) -> dict:
        """The fields as JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: dict) -> NetworkConfig:
        """The inverse of `to_json`, strictly; a field added later has its default.

        Raises:
            UserError: when the fields are not exactly those of a network.
        """
        try:
            config = cls(
                **{
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in content.items()
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
    if not (_kinds_are_right(config) and _sizes_are_right(config)):
        raise UserError(
            "The checkpoint's config.json holds sizes that no network can have: "
            "choose another checkpoint, or copy this one again from its source."
        )


def _kinds_are_right(config: NetworkConfig) -> bool:
    kinds = {"int": int, "bool": bool, "float": float, "tuple[int, ...]": tuple}
    return all(
        type(getattr(config, field.name)) is kinds[str(field.type)]
        for field in fields(config)
    ) and all(type(size) is int for size in config.channels + config.attention_levels)


def _sizes_are_right(config: NetworkConfig) -> bool:
    channels, attention = config.channels, config.attention_levels
    sizes = (
        config.resolution, config.fold, config.groups, config.head_channels, *channels,
    )  # fmt: skip
    # The middle block attends at the width of the coarsest level.
    widths = [w for level, w in enumerate(channels) if level in attention]
    widths += channels[-1:]
    return (
        all(1 <= size <= 4096 for size in sizes)
        and 1 <= config.layers <= 16
        and 0 <= config.classes <= 100_000
        and (config.classes > 0 or not config.null_class)
        and config.image_channels in (1, 3)
        and 1 <= len(channels) <= 8
        and config.resolution % (config.fold * 2 ** (len(channels) - 1)) == 0
        and all(channel % config.groups == 0 for channel in channels)
        and all(level in range(len(channels)) for level in attention)
        and 0 <= config.heads <= 64
        and all(width % (config.heads or config.head_channels) == 0 for width in widths)
        and 0 < config.norm_epsilon < 0.1
        and config.frequency_shift in (0, 1)
    )


class DenoisingNetwork(nn.Module):
    """Predicts, from a noisy image, its timestep and its class, what the card says.

    `forward(noisy, timesteps, labels)`: noisy float [n, c, H, W], timesteps [n], whole
    or not, as `Process.time` gives them, labels int64 [n] in [0, label_rows), unread by
    a network without labels → float [n, c, H, W].
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.config = config
        folded = config.image_channels * config.fold**2
        down, up = _blocks(config)
        resampling = "resnet" if config.residual_resampling else "conv"
        self.unet = UNet2DModel(
            sample_size=config.resolution // config.fold,
            in_channels=folded,
            out_channels=folded,
            block_out_channels=config.channels,
            layers_per_block=config.layers,
            down_block_types=down,
            up_block_types=up,
            downsample_type=resampling,
            upsample_type=resampling,
            downsample_padding=0 if config.pad_after else 1,
            norm_num_groups=config.groups,
            attn_norm_num_groups=config.groups,
            norm_eps=config.norm_epsilon,
            attention_head_dim=1 if config.heads else config.head_channels,
            resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
            flip_sin_to_cos=not config.sine_first,
            freq_shift=config.frequency_shift,
            num_class_embeds=config.label_rows or None,
        )
        if config.heads:
            self._set_heads(config.heads)
        # Dropout or other training-time behaviour would couple or randomise units;
        # the network has none, and stays in evaluation mode.
        self.eval()

    def _set_heads(self, heads: int) -> None:
        """Give every level as many heads; diffusers knows only heads of one width."""
        from diffusers.models.attention_processor import Attention

        for module in self.unet.modules():
            if isinstance(module, Attention):
                module.heads = heads
                module.scale = (module.inner_dim // heads) ** -0.5

    def forward(self, noisy: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        folded = pixel_unshuffle(noisy, self.config.fold)
        known = labels if self.config.label_rows else None
        predicted = self.unet(folded, timesteps, class_labels=known).sample
        return pixel_shuffle(predicted.float(), self.config.fold)


def _blocks(config: NetworkConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """diffusers' names of the levels, on the way down and on the way up."""
    plain = ("DownBlock2D", "UpBlock2D")
    if config.residual_resampling:
        plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    attending = ("AttnDownBlock2D", "AttnUpBlock2D")
    levels = [
        attending if level in config.attention_levels else plain
        for level in range(len(config.channels))
    ]
    return tuple(down for down, _ in levels), tuple(up for _, up in reversed(levels))


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
    network: DenoisingNetwork,
    classes: int,
    *,
    generator: torch.Generator,
    public_rows: Sequence[Sequence[int]] = (),
    spread: float = 0.1,
    null_class: bool = False,
) -> DenoisingNetwork:
    """The same network with a label table for `classes` private classes.

    A private class starts as the mean of the public rows named for it (label-embedding
    swap), or else as the mean of all public rows plus `spread` times their spread, so
    that no two are alike; the random part comes from a public generator. A network
    that knew no labels starts with rows of zeros: it computes what it did.

    Args:
        public_rows: For each private class the public classes that it resembles, or
            nothing at all.
        null_class: Whether a row for "no label" is needed; it is the public one, or
            else the mean of all public rows.

    Raises:
        UserError: when `public_rows` fit neither the private classes nor the table.
    """
    keeps_null = null_class or network.config.null_class
    config = replace(network.config, classes=classes, null_class=keeps_null)
    adapted = build_network(config)
    state = dict(network.state_dict())
    width = adapted.state_dict()[LABEL_TABLE].shape[1]
    table = state.pop(LABEL_TABLE, torch.zeros(1, width))
    known = table[: network.config.classes] if network.config.classes else table
    if public_rows:
        rows = _named_rows(known, public_rows, classes)
    else:
        fresh = torch.randn(classes, width, generator=generator)
        rows = known.mean(dim=0) + spread * known.std(dim=0, unbiased=False) * fresh
    if keeps_null:
        null = table[-1] if network.config.null_class else known.mean(dim=0)
        rows = torch.cat([rows, null[None]])
    adapted.load_state_dict(state | {LABEL_TABLE: rows})
    return adapted


def _named_rows(
    known: Tensor, public_rows: Sequence[Sequence[int]], classes: int
) -> Tensor:
    """The mean of the public rows named for each class: float [classes, width]."""
    if len(public_rows) != classes or not all(
        named and all(0 <= row < len(known) for row in named) for named in public_rows
    ):
        raise UserError(
            f"The label rows must name, for each of the {classes} classes, at least "
            f"one of the checkpoint's {len(known)} public classes, counted from 0: "
            "correct them, or leave them out."
        )
    return torch.stack([known[list(named)].mean(dim=0) for named in public_rows])
