"""The layout of a diffusers folder: config.json and the weights beside it.

The config is data, checked field by field: a value that Sfumato's network could not
reproduce is refused, and diffusers' own loading code is not called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.checkpoints.layouts import (
    Hints,
    Layout,
    Shapes,
    Source,
    published_process,
)
from core.diffusion.networks import NetworkConfig
from core.diffusion.process import Parameterisation, Process
from core.diffusion.schedules import DiscreteSchedule
from core.errors import UserError

CONFIG = "config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
LARGEST_CONFIG = 2**20

# Fields whose other values would need another network; the first is diffusers' default.
_FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "class_embed_type": (None,),
    "num_train_timesteps": (None,),
}
# Fields that say nothing about what the network computes outside its training.
_IDLE = {"_class_name", "_diffusers_version", "_name_or_path", "dropout"}
_READ = {
    "sample_size": None, "in_channels": 3, "out_channels": 3, "freq_shift": 0,
    "flip_sin_to_cos": True, "block_out_channels": (224, 448, 672, 896),
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
    "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"), "layers_per_block": 2,
    "downsample_padding": 1, "downsample_type": "conv", "upsample_type": "conv",
    "attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": None,
    "norm_eps": 1e-5, "resnet_time_scale_shift": "default", "num_class_embeds": None,
}  # fmt: skip
"""Fields that are read, with diffusers' defaults."""

_ON_BETAS = {
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
}  # fmt: skip
"""Schedulers of networks that were trained on discrete steps with a schedule of β; what
the others say (flow matching, EDM, score SDE) means something else."""

_OLD_ATTENTION = {
    "query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0",
}  # fmt: skip


def is_diffusers(weights: Path) -> bool:
    """Whether a weights file lies in a diffusers folder, beside its config."""
    return weights.name in WEIGHTS and (weights.parent / CONFIG).is_file()


def find_weights(folder: Path) -> list[Path]:
    """The weights, in each form: in the folder, or in the "unet" of a pipeline.

    Raises:
        UserError: when they are not there.
    """
    for place in (folder, folder / "unet"):
        weights = [place / name for name in WEIGHTS if (place / name).is_file()]
        if weights and (place / CONFIG).is_file():
            return weights
    raise UserError(
        f"The folder {folder} is no diffusers checkpoint: it needs {CONFIG} and "
        f"{' or '.join(WEIGHTS)}, in itself or in a folder named unet."
    )


def scheduler_hint(folder: Path) -> str | None:
    """The process that the pipeline's scheduler says, None when there is none.

    Raises:
        UserError: when it says one that Sfumato does not know.
    """
    for path in (
        folder / "scheduler" / "scheduler_config.json",
        folder / "scheduler_config.json",
        folder.parent / "scheduler" / "scheduler_config.json",
    ):
        if path.is_file():
            content = _read(path)
            try:
                return _process(content, path)
            except (TypeError, ValueError) as error:
                raise _damaged(path, error) from None
    return None


def _process(content: Mapping[str, Any], path: Path) -> str:
    # The default of the first version, which had another field for it.
    prediction = content.get("prediction_type", "epsilon")
    if not content.get("predict_epsilon", True):
        prediction = "sample"
    kinds = {
        "epsilon": Parameterisation.NOISE,
        "v_prediction": Parameterisation.VELOCITY,
    }
    curves = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
    curve = curves.get(str(content.get("beta_schedule")))
    count = content.get("num_train_timesteps", 1000)
    scale = 1000 / count if type(count) is int and count > 0 else 0
    usual = curve == "cosine" or (
        abs(content.get("beta_start", 1e-4) - scale * 1e-4) < 1e-9
        and abs(content.get("beta_end", 0.02) - scale * 0.02) < 1e-9
    )
    if (
        content.get("_class_name") not in _ON_BETAS
        or prediction not in kinds
        or curve is None
        or not scale
        or not usual
        or content.get("trained_betas") is not None
        or content.get("rescale_betas_zero_snr", False)
    ):
        raise UserError(
            f"The noise schedule in {path} is none that Sfumato knows (linear with the "
            "usual β, or cosine, predicting noise or velocity): choose another "
            "checkpoint."
        )
    return Process(kinds[prediction], DiscreteSchedule(curve, count)).name


def understand(config_file: Path, shapes: Shapes, hints: Hints) -> Layout:
    """Read the architecture from the config, and the process from a scheduler.

    Raises:
        UserError: when the config holds a field or a value that is not known, or the
            hints contradict the scheduler.
    """
    config = _network(_read(config_file), config_file, hints)
    process = _agreed(scheduler_hint(config_file.parent), hints.process)
    sources = {f"unet.{_new_name(name)}": Source(name) for name in shapes}
    return Layout(config, process, sources, "diffusers layout")


def _agreed(scheduler: str | None, said: str | None) -> str:
    """What the network predicts, as the scheduler and the hints say alike."""
    if said is None and scheduler is None:
        raise UserError(
            "The folder holds no scheduler, so it does not say the parameterisation "
            "and noise schedule: say so, or name the catalogue's checkpoint that it is."
        )
    if said is None:
        return str(scheduler)
    process = published_process(said)
    if scheduler not in (None, process):
        raise UserError(
            f"The folder's scheduler says {scheduler!r}, and you or the catalogue say "
            f"{process!r}: leave --process out, or choose the checkpoint that is meant."
        )
    return process


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no fields")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The file {path} cannot be read ({error}).") from None
    return content


def _network(content: dict[str, Any], path: Path, hints: Hints) -> NetworkConfig:
    if content.get("_class_name") != "UNet2DModel":
        raise UserError(
            f"{path} describes a {content.get('_class_name')!r}, and Sfumato imports "
            "unconditional or class-conditional image networks (UNet2DModel) only."
        )
    if unknown := sorted(content.keys() - _FIXED.keys() - _IDLE - _READ.keys()):
        raise UserError(
            f"{path} has fields that Sfumato does not know ({', '.join(unknown)}), so "
            "it could not run this network as it was trained: choose another."
        )
    for name, values in _FIXED.items():
        if content.get(name, values[0]) not in values:
            raise _unsupported(path, name, content[name])
    fields = _READ | {name: content[name] for name in _READ if name in content}
    try:
        return NetworkConfig.from_json(_our_fields(fields, path, hints))
    except (TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _our_fields(fields: dict[str, Any], path: Path, hints: Hints) -> dict[str, Any]:
    residual = fields["downsample_type"] == "resnet"
    attention = _attention_levels(fields, path, residual)
    if fields["upsample_type"] != fields["downsample_type"]:
        raise _unsupported(path, "upsample_type", fields["upsample_type"])
    if fields["out_channels"] != fields["in_channels"]:
        raise _unsupported(path, "out_channels", fields["out_channels"])
    scale_shift = fields["resnet_time_scale_shift"] == "scale_shift"
    middle = fields["attn_norm_num_groups"]
    if middle != fields["norm_num_groups"] and (scale_shift or middle is not None):
        raise _unsupported(path, "attn_norm_num_groups", middle)
    for name, values in (
        ("downsample_type", ("conv", "resnet")),
        ("resnet_time_scale_shift", ("default", "scale_shift")),
        ("downsample_padding", (0, 1)),
        ("flip_sin_to_cos", (True, False)),
    ):
        if fields[name] not in values:
            raise _unsupported(path, name, fields[name])
    rows = fields["num_class_embeds"] or 0
    head_width = fields["attention_head_dim"]
    return {
        "resolution": hints.resolution or fields["sample_size"],
        "image_channels": fields["in_channels"],
        "channels": fields["block_out_channels"],
        "layers": fields["layers_per_block"],
        "groups": fields["norm_num_groups"],
        # Without a width, diffusers gives every level a single head.
        "heads": 1 if head_width is None else 0,
        "head_channels": 1 if head_width is None else head_width,
        "attention_levels": attention,
        "classes": rows - hints.null_class if type(rows) is int else rows,
        "null_class": hints.null_class,
        "scale_shift": scale_shift,
        "residual_resampling": residual,
        "norm_epsilon": float(fields["norm_eps"]),
        "sine_first": not fields["flip_sin_to_cos"],
        "frequency_shift": fields["freq_shift"],
        "pad_after": fields["downsample_padding"] == 0,
    }


def _attention_levels(fields: dict[str, Any], path: Path, residual: bool) -> list[int]:
    """The levels with attention, the same on the way down and on the way up."""
    down, up = list(fields["down_block_types"]), list(fields["up_block_types"])
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    if not residual:
        plain = ("DownBlock2D", "UpBlock2D")
    known_down = {plain[0]: False, "AttnDownBlock2D": True}
    known_up = {plain[1]: False, "AttnUpBlock2D": True}
    try:
        attends = [known_down[name] for name in down]
        same = [known_up[name] for name in reversed(up)]
    except (KeyError, TypeError):
        raise _unsupported(
            path, "down_block_types and up_block_types", [down, up]
        ) from None
    if attends != same:
        raise _unsupported(path, "down_block_types and up_block_types", [down, up])
    return [level for level, attending in enumerate(attends) if attending]


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} holds a value of another kind than it should ({error}): copy it again."
    )


def _unsupported(path: Path, name: str, value: object) -> UserError:
    return UserError(
        f"{path} has the value {value!r} for {name}, which Sfumato's network does not "
        "have: choose another checkpoint."
    )


def _new_name(name: str) -> str:
    """Today's name of a tensor; attention was named otherwise before diffusers 0.17."""
    old = re.fullmatch(r"(.*\.attentions\.\d+)\.(\w+)\.(weight|bias)", name)
    if old and old[2] in _OLD_ATTENTION:
        return f"{old[1]}.{_OLD_ATTENTION[old[2]]}.{old[3]}"
    return name
