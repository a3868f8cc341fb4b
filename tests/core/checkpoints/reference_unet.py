"""The U-Net of improved-diffusion and guided-diffusion, written out for the tests.

From its description: Ho et al. 2020, appendix B; Nichol & Dhariwal 2021, sec. 3 and
appendix A; Dhariwal & Nichol 2021, sec. 3 and appendix; and the names in the published
files. It works on a dictionary of tensors alone, shares no line with `core` or
diffusers, and computes attention one head at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The model flags of the two projects, with their code's defaults."""

    image_size: int
    num_channels: int
    num_res_blocks: int
    channel_mult: tuple[int, ...]
    attention_resolutions: tuple[int, ...] = (16, 8)
    num_heads: int = 4
    num_head_channels: int = -1
    use_scale_shift_norm: bool = True
    learn_sigma: bool = True
    class_cond: int = 0
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    image_channels: int = 3

    def heads(self, width: int) -> int:
        if self.num_head_channels > 0:
            return width // self.num_head_channels
        return self.num_heads


@dataclass(frozen=True)
class Block:
    """One entry of input_blocks or output_blocks, in order."""

    name: str
    before: int
    after: int
    attends: bool
    sampling: str = ""
    """What follows (or, on the way down, replaces) the residual block."""


def plan(flags: Flags) -> tuple[list[Block], int, list[Block]]:
    """The blocks on the way down, the width of the middle, and those on the way up."""
    down: list[Block] = []
    size = flags.image_size
    width = flags.num_channels * flags.channel_mult[0]
    skips = [width]
    for level, times in enumerate(flags.channel_mult):
        for _ in range(flags.num_res_blocks):
            after = times * flags.num_channels
            name = f"input_blocks.{len(down) + 1}"
            down.append(Block(name, width, after, size in flags.attention_resolutions))
            width = after
            skips.append(width)
        if level < len(flags.channel_mult) - 1:
            down.append(
                Block(f"input_blocks.{len(down) + 1}", width, width, False, "down")
            )
            skips.append(width)
            size //= 2
    middle, up = width, []
    for level, times in reversed(list(enumerate(flags.channel_mult))):
        for index in range(flags.num_res_blocks + 1):
            after = times * flags.num_channels
            attends = size in flags.attention_resolutions
            last = level > 0 and index == flags.num_res_blocks
            up.append(
                Block(
                    f"output_blocks.{len(up)}", width + skips.pop(), after, attends,
                    "up" if last else "",
                )
            )  # fmt: skip
            width = after
            size *= 2 if last else 1
    return down, middle, up


def shapes(flags: Flags) -> dict[str, Shape]:
    """Names and shapes of the published state dictionary."""
    found: dict[str, Shape] = {}
    embedding = 4 * flags.num_channels

    def layer(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = shape
        found[f"{name}.bias"] = shape[:1]

    def residual(name: str, before: int, after: int) -> None:
        layer(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", after, before, 3, 3)
        layer(
            f"{name}.emb_layers.1", after * (1 + flags.use_scale_shift_norm), embedding
        )
        layer(f"{name}.out_layers.0", after)
        layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            layer(f"{name}.skip_connection", after, before, 1, 1)

    def attention(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    down, middle, up = plan(flags)
    first = flags.num_channels * flags.channel_mult[0]
    layer("time_embed.0", embedding, flags.num_channels)
    layer("time_embed.2", embedding, embedding)
    if flags.class_cond:
        found["label_emb.weight"] = (flags.class_cond, embedding)
    layer("input_blocks.0.0", first, flags.image_channels, 3, 3)
    for block in [*down, *up]:
        if block.sampling == "down" and not flags.resblock_updown:
            layer(f"{block.name}.0.op", block.after, block.after, 3, 3)
            continue
        residual(f"{block.name}.0", block.before, block.after)
        if block.attends:
            attention(f"{block.name}.1", block.after)
        if block.sampling == "up":
            last = f"{block.name}.{1 + block.attends}"
            if flags.resblock_updown:
                residual(last, block.after, block.after)
            else:
                layer(f"{last}.conv", block.after, block.after, 3, 3)
    residual("middle_block.0", middle, middle)
    attention("middle_block.1", middle)
    residual("middle_block.2", middle, middle)
    layer("out.0", first)
    layer("out.2", flags.image_channels * (1 + flags.learn_sigma), first, 3, 3)
    return found


def random_state(flags: Flags, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under which every part matters to the output."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(flags).items():
        values = torch.randn(shape, generator=generator)
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
        scale = 0.3 if len(shape) == 1 else fan_in**-0.5
        # Norms around 1, the rest around 0.
        norm = len(shape) == 1 and name.endswith("weight")
        state[name] = values * scale + norm
    return state


def run(
    flags: Flags,
    state: dict[str, Tensor],
    images: Tensor,
    times: Tensor,
    labels: Tensor,
) -> Tensor:
    """The network's output, with the variance's channels if it has them."""

    def apply(function, name: str, x: Tensor, **more) -> Tensor:
        return function(x, state[f"{name}.weight"], state[f"{name}.bias"], **more)

    def norm(name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def conv(name: str, x: Tensor, **more) -> Tensor:
        padding = state[f"{name}.weight"].shape[-1] // 2
        return apply(F.conv2d, name, x, padding=padding, **more)

    def resample(way: str, x: Tensor) -> Tensor:
        if way == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if way == "up" else x

    def residual(name: str, x: Tensor, way: str = "") -> Tensor:
        h = resample(way, F.silu(norm(f"{name}.in_layers.0", x)))
        x = resample(way, x)
        h = conv(f"{name}.in_layers.2", h)
        told = apply(F.linear, f"{name}.emb_layers.1", F.silu(embedding))[
            ..., None, None
        ]
        if flags.use_scale_shift_norm:
            scale, shift = told[:, : h.shape[1]], told[:, h.shape[1] :]
            h = norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = norm(f"{name}.out_layers.0", h + told)
        h = conv(f"{name}.out_layers.3", F.silu(h))
        if f"{name}.skip_connection.weight" in state:
            x = conv(f"{name}.skip_connection", x)
        return x + h

    def attention(name: str, x: Tensor) -> Tensor:
        count, width = x.shape[:2]
        flat = norm(f"{name}.norm", x).reshape(count, width, -1)
        qkv = apply(F.conv1d, f"{name}.qkv", flat)
        d, results = width // flags.heads(width), []
        for head in range(flags.heads(width)):
            if flags.use_new_attention_order:
                starts = [part * width + head * d for part in range(3)]
            else:
                starts = [(head * 3 + part) * d for part in range(3)]
            q, k, v = (qkv[:, start : start + d] for start in starts)
            scores = torch.einsum("bct,bcs->bts", q, k) / math.sqrt(d)
            results.append(torch.einsum("bts,bcs->bct", scores.softmax(dim=-1), v))
        mixed = apply(F.conv1d, f"{name}.proj_out", torch.cat(results, dim=1))
        return x + mixed.reshape(x.shape)

    half = flags.num_channels // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half) / half)
    angles = times.float()[:, None] * rates
    told = torch.cat([angles.cos(), angles.sin()], dim=1)
    told = apply(F.linear, "time_embed.0", told)
    embedding = apply(F.linear, "time_embed.2", F.silu(told))
    if flags.class_cond:
        embedding = embedding + state["label_emb.weight"][labels]

    down, _, up = plan(flags)
    x = conv("input_blocks.0.0", images)
    skips = [x]
    for block in down:
        if block.sampling == "down" and not flags.resblock_updown:
            x = conv(f"{block.name}.0.op", x, stride=2)
        else:
            x = residual(f"{block.name}.0", x, block.sampling)
        if block.attends:
            x = attention(f"{block.name}.1", x)
        skips.append(x)
    x = residual("middle_block.0", x)
    x = attention("middle_block.1", x)
    x = residual("middle_block.2", x)
    for block in up:
        x = residual(f"{block.name}.0", torch.cat([x, skips.pop()], dim=1))
        if block.attends:
            x = attention(f"{block.name}.1", x)
        if block.sampling == "up":
            last = f"{block.name}.{1 + block.attends}"
            if flags.resblock_updown:
                x = residual(last, x, "up")
            else:
                x = conv(f"{last}.conv", resample("up", x))
    return conv("out.2", F.silu(norm("out.0", x)))
