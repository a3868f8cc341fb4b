"""The layout of OpenAI's improved-diffusion and guided-diffusion state dictionaries.

The U-Net of Nichol & Dhariwal 2021 and Dhariwal & Nichol 2021 has the same parts as
diffusers' `UNet2DModel` under other names: `input_blocks` counts the first convolution,
then for each level its residual blocks and one more that halves the resolution;
`output_blocks` counts residual blocks only, the last of a level also doubling it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from torch import Tensor

from core.checkpoints.layouts import (
    Hints,
    Layout,
    Shapes,
    Source,
    published_process,
    unchanged,
)
from core.diffusion.networks import LABEL_TABLE, NetworkConfig
from core.errors import UserError

_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def is_openai(shapes: Shapes) -> bool:
    """Whether the names are those of an OpenAI diffusion network."""
    needed = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
    return all(name in shapes for name in needed)


def understand(shapes: Shapes, hints: Hints) -> Layout:
    """Read the architecture from names and shapes; the rest must be among the hints.

    Raises:
        UserError: when a hint is missing, or the network is of another kind.
    """
    _check(hints)
    config = _config(shapes, hints)
    assert hints.process is not None
    cut = _learns_sigma(shapes, config)
    sources = dict(_sources(shapes, config, hints.attention_order == "legacy", cut))
    notes = [
        "OpenAI layout",
        f"{hints.attention_order} attention order",
        f"{hints.heads} heads" if hints.heads else f"{hints.head_channels} per head",
        "with scale-shift" if config.scale_shift else "without scale-shift",
    ]
    if cut:
        notes.append("the learned variance was left out")
    return Layout(config, hints.process, sources, ", ".join(notes))


def _check(hints: Hints) -> None:
    needed = {
        "the parameterisation and noise schedule": hints.process,
        "the resolution": hints.resolution,
        "the attention order": hints.attention_order,
        "the number of heads, or channels per head": hints.heads or hints.head_channels,
    }
    if missing := [what for what, value in needed.items() if not value]:
        raise UserError(
            f"A file of this kind does not say {', '.join(missing)}: say so, or name "
            "the catalogue's checkpoint that it is."
        )
    if hints.heads and hints.head_channels:
        raise UserError(
            "Give the number of heads or the channels per head, not both: they say the "
            "same in two ways."
        )
    if hints.attention_order not in ("legacy", "new"):
        raise UserError(
            f"The attention order {hints.attention_order!r} is unknown: use legacy "
            "(improved-diffusion, and guided-diffusion's usual one) or new."
        )
    published_process(hints.process or "")


def _config(shapes: Shapes, hints: Hints) -> NetworkConfig:
    blocks = _count(shapes, "input_blocks")
    by_convolution = [n for n in shapes if re.fullmatch(r"input_.*\.op\.weight", n)]
    by_block = [
        n for n in shapes if re.fullmatch(r"output_.*\.[12]\.in_layers\.2\.weight", n)
    ]
    levels = len(by_convolution or by_block) + 1
    if blocks % levels or _count(shapes, "output_blocks") != blocks:
        raise UserError(
            "The file holds a network of another shape than a U-Net with as many "
            "blocks at every level: choose another checkpoint."
        )
    layers = blocks // levels - 1
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    try:
        channels = tuple(
            shapes[f"input_blocks.{first}.0.in_layers.2.weight"][0] for first in firsts
        )
        modulation = shapes["input_blocks.1.0.emb_layers.1.weight"][0]
        image_channels = shapes["input_blocks.0.0.weight"][1]
        classes = shapes.get("label_emb.weight", (0,))[0]
    except (KeyError, IndexError):
        raise UserError(
            "The file is only a part of a diffusion network, or damaged: copy it again "
            "from its source."
        ) from None
    if image_channels not in (1, 3):
        raise UserError(
            f"The network in the file takes {image_channels} channels, so it is no "
            "image generator (an upsampler takes 6): choose another checkpoint."
        )
    assert hints.resolution is not None
    try:
        return NetworkConfig.from_json(
            {
                "resolution": hints.resolution,
                "image_channels": image_channels,
                "channels": channels,
                "layers": layers,
                "attention_levels": tuple(
                    level
                    for level, first in enumerate(firsts)
                    if f"input_blocks.{first}.1.qkv.weight" in shapes
                ),
                "heads": hints.heads or 0,
                "head_channels": hints.head_channels or 1,
                "classes": classes - hints.null_class,
                "null_class": hints.null_class,
                "scale_shift": modulation == 2 * channels[0],
                "residual_resampling": levels > 1 and not by_convolution,
            }
        )
    except UserError:
        said = (
            f"{hints.heads} heads" if hints.heads else f"{hints.head_channels} per head"
        )
        raise UserError(
            f"No network has {channels} channels, {classes} labels, {hints.resolution} "
            f"pixels per side and {said}: correct what was said of the file."
        ) from None


def _count(shapes: Shapes, list_name: str) -> int:
    """How many blocks a list of the network has."""
    found = (re.match(rf"{list_name}\.(\d+)\.", name) for name in shapes)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _learns_sigma(shapes: Shapes, config: NetworkConfig) -> bool:
    return shapes["out.2.weight"][0] == 2 * config.image_channels


def _sources(
    shapes: Shapes, config: NetworkConfig, legacy: bool, cut: bool
) -> Iterator[tuple[str, Source]]:
    """Each of our tensors and where it comes from."""
    for ours, theirs in _parts(config):
        if ours.endswith("conv_out") and cut:
            # Mean channels first, then those of the variance, which is not used.
            yield from _plain(ours, theirs, lambda t: t[: config.image_channels])
        elif ".attentions." in ours:
            yield from _attention(ours, theirs, config, legacy)
        elif ".resnets." in ours or ("samplers" in ours and not ours.endswith(".conv")):
            yield from _residual(shapes, ours, theirs)
        else:
            yield from _plain(ours, theirs)
    if config.label_rows:
        yield LABEL_TABLE, Source("label_emb.weight")


def _parts(config: NetworkConfig) -> Iterator[tuple[str, str]]:
    """The parts of the network, by our name and theirs."""
    yield "unet.time_embedding.linear_1", "time_embed.0"
    yield "unet.time_embedding.linear_2", "time_embed.2"
    yield "unet.conv_in", "input_blocks.0.0"
    yield "unet.mid_block.resnets.0", "middle_block.0"
    yield "unet.mid_block.attentions.0", "middle_block.1"
    yield "unet.mid_block.resnets.1", "middle_block.2"
    yield "unet.conv_norm_out", "out.0"
    yield "unet.conv_out", "out.2"
    for level in range(len(config.channels)):
        yield from _down_parts(config, level)
        yield from _up_parts(config, level)


def _down_parts(config: NetworkConfig, level: int) -> Iterator[tuple[str, str]]:
    ours, first = f"unet.down_blocks.{level}", 1 + level * (config.layers + 1)
    for layer in range(config.layers):
        theirs = f"input_blocks.{first + layer}"
        yield f"{ours}.resnets.{layer}", f"{theirs}.0"
        if level in config.attention_levels:
            yield f"{ours}.attentions.{layer}", f"{theirs}.1"
    if level < len(config.channels) - 1:
        theirs = f"input_blocks.{first + config.layers}.0"
        if config.residual_resampling:
            yield f"{ours}.downsamplers.0", theirs
        else:
            yield f"{ours}.downsamplers.0.conv", f"{theirs}.op"


def _up_parts(config: NetworkConfig, level: int) -> Iterator[tuple[str, str]]:
    """On the way up the coarsest level comes first."""
    place = len(config.channels) - 1 - level
    ours, first = f"unet.up_blocks.{place}", place * (config.layers + 1)
    attends = level in config.attention_levels
    for layer in range(config.layers + 1):
        theirs = f"output_blocks.{first + layer}"
        yield f"{ours}.resnets.{layer}", f"{theirs}.0"
        if attends:
            yield f"{ours}.attentions.{layer}", f"{theirs}.1"
    if level > 0:
        theirs = f"output_blocks.{first + config.layers}.{1 + attends}"
        if config.residual_resampling:
            yield f"{ours}.upsamplers.0", theirs
        else:
            yield f"{ours}.upsamplers.0.conv", f"{theirs}.conv"


def _plain(
    ours: str, theirs: str, change: Callable[[Tensor], Tensor] = unchanged
) -> Iterator[tuple[str, Source]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", Source(f"{theirs}.{kind}", change)


def _residual(shapes: Shapes, ours: str, theirs: str) -> Iterator[tuple[str, Source]]:
    for mine, other in _RESIDUAL.items():
        if mine != "conv_shortcut" or f"{theirs}.{other}.weight" in shapes:
            yield from _plain(f"{ours}.{mine}", f"{theirs}.{other}")


def _attention(
    ours: str, theirs: str, config: NetworkConfig, legacy: bool
) -> Iterator[tuple[str, Source]]:
    yield from _plain(f"{ours}.group_norm", f"{theirs}.norm")
    yield from _plain(f"{ours}.to_out.0", f"{theirs}.proj_out", _flat)
    for index, name in enumerate(("to_q", "to_k", "to_v")):

        def part(tensor: Tensor, index: int = index) -> Tensor:
            """One third of the rows: (head, q/k/v, channel) or (q/k/v, head, …)."""
            tensor = _flat(tensor)
            width = len(tensor) // 3
            if not legacy:
                return tensor[index * width : (index + 1) * width]
            heads = config.heads or width // config.head_channels
            by_head = tensor.view(heads, 3, width // heads, *tensor.shape[1:])
            return by_head[:, index].reshape(width, *tensor.shape[1:])

        yield from _plain(f"{ours}.{name}", f"{theirs}.qkv", part)


def _flat(tensor: Tensor) -> Tensor:
    """A convolution of width 1 as the matrix that it is."""
    return tensor.squeeze(-1) if tensor.ndim == 3 else tensor
