"""What an imported file must say, whatever its layout, and how its weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.diffusion.networks import NetworkConfig, build_network
from core.diffusion.process import Process
from core.diffusion.schedules import DiscreteSchedule
from core.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
"""Names and shapes of the tensors in a file."""


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a file of weights cannot tell about itself; None where it was not said.

    Attributes:
        process: What the network predicts, as `Process.parse` reads it.
        resolution: Pixels per side of the images.
        heads: Attention heads, the same number at every level.
        head_channels: Channels of a head, the same at every level.
        attention_order: How queries, keys and values lie in one matrix: "legacy", head
            by head, or "new", all queries first.
        null_class: Whether the last label means "no label".
    """

    process: str | None = None
    resolution: int | None = None
    heads: int | None = None
    head_channels: int | None = None
    attention_order: str | None = None
    null_class: bool = False

    def over(self, other: Hints) -> Hints:
        """These, and the other's where these say nothing."""
        mine = {
            name: value for name, value in vars(self).items() if value not in (None, "")
        }
        if not self.null_class:
            del mine["null_class"]
        return replace(other, **mine)


def published_process(name: str) -> str:
    """The process of this name, where a file of weights from elsewhere can have it.

    Networks of continuous noise levels are published with constants that ours have not
    (σ_data = 0.5, other times), and nothing in a file would tell.

    Raises:
        UserError: when it is unknown, or one of those.
    """
    process = Process.parse(name)
    if not isinstance(process.schedule, DiscreteSchedule):
        raise UserError(
            f"Networks that predict {name!r} cannot be imported, as a file does not "
            "say their σ_data, which is √(1/3) here and another elsewhere: choose a "
            "checkpoint that was trained on discrete steps (eps or v)."
        )
    return process.name


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor as it is in the file."""
    return tensor


@dataclass(frozen=True)
class Source:
    """Where one of our tensors comes from.

    Attributes:
        name: The tensor in the file.
        change: What is done to it.
    """

    name: str
    change: Callable[[Tensor], Tensor] = unchanged


@dataclass(frozen=True)
class Layout:
    """A file that was understood.

    Attributes:
        config: Of the network that its weights belong to.
        process: What it predicts.
        sources: For each of our tensors, where it comes from.
        notes: What was read from the file, for the card.
    """

    config: NetworkConfig
    process: str
    sources: dict[str, Source]
    notes: str


def assembled(
    layout: Layout, shapes: Shapes, read: Callable[[str], Tensor]
) -> dict[str, Tensor]:
    """All our weights, float32, after the names and shapes were found to be complete.

    Args:
        read: Gives a tensor of the file by its name.

    Raises:
        UserError: when the file lacks a tensor, holds one more, or one does not fit.
    """
    with torch.device("meta"):
        expected = build_network(layout.config).state_dict()
    used = {source.name for source in layout.sources.values()}
    if missing := sorted(used - shapes.keys()):
        raise _other_architecture(f"it lacks {missing[0]}")
    if unused := sorted(shapes.keys() - used):
        raise _other_architecture(f"it also holds {unused[0]}")
    if layout.sources.keys() != expected.keys():
        raise _other_architecture("its levels differ from one another")
    weights = {}
    for name, source in layout.sources.items():
        tensor = source.change(read(source.name)).float().contiguous()
        if tensor.shape != expected[name].shape:
            raise _other_architecture(
                f"{source.name} has the shape {shapes[source.name]}"
            )
        weights[name] = tensor
    return weights


def _other_architecture(what: str) -> UserError:
    return UserError(
        f"The file belongs to another architecture than Sfumato can run ({what}): "
        "choose another checkpoint."
    )
