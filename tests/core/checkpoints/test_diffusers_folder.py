"""diffusers folders: what comes in computes what diffusers computes."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from core.checkpoints import conversion
from core.checkpoints.diffusers_folder import find_weights
from core.checkpoints.store import load_checkpoint
from core.errors import UserError
from tests.core.checkpoints.test_openai import CARD

SMALL = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
# As google/ddpm-cifar10-32 has it, but smaller.
OLD = {
    "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False,
    "freq_shift": 1, "norm_eps": 1e-6,
}  # fmt: skip
HINTS = {"process": "eps"}


def make(folder, *, safe=True, scheduler=None, **changes) -> UNet2DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(**(SMALL | changes)).eval()
    place = folder / "unet" if scheduler else folder
    unet.save_pretrained(place, safe_serialization=safe)
    if scheduler:
        scheduler.save_pretrained(folder / "scheduler")
    return unet


def convert(folder, made, hints, card) -> None:
    """As an import does it: the weights are found first, then read by themselves."""
    conversion.convert(find_weights(folder)[0], made, hints, card)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        OLD,
        {"num_class_embeds": 4, "attention_head_dim": 16},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32},
        {
            "downsample_type": "resnet", "upsample_type": "resnet",
            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        },
        {"in_channels": 1, "out_channels": 1, "norm_num_groups": 16, "dropout": 0.5},
    ],
    ids=lambda changes: "-".join(list(changes)[:2]) or "defaults",
)  # fmt: skip
@pytest.mark.parametrize("safe", [True, False])
def test_output_equals_diffusers(tmp_path, changes, safe):
    unet = make(tmp_path / "theirs", safe=safe, **changes)
    convert(tmp_path / "theirs", tmp_path / "made", HINTS, CARD)
    checkpoint = load_checkpoint(tmp_path / "made")
    channels = changes.get("in_channels", 3)
    images = torch.randn(
        2, channels, 16, 16, generator=torch.Generator().manual_seed(1)
    )
    times, labels = torch.tensor([3, 800]), torch.tensor([0, 1])
    given = {"class_labels": labels} if "num_class_embeds" in changes else {}
    with torch.no_grad():
        expected = unet(images, times, **given).sample
        found = checkpoint.network(images, times, labels)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert checkpoint.network.config.classes == changes.get("num_class_embeds", 0)


def test_attention_under_its_old_names(tmp_path):
    unet = make(tmp_path / "theirs")
    path = tmp_path / "theirs" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, tensor in load_file(path).items():
        for new, old in names.items():
            name = name.replace(f".{new}.", f".{old}.")
        weights[name] = tensor
    assert any(".proj_attn." in name for name in weights)
    save_file(weights, path)
    convert(tmp_path / "theirs", tmp_path / "made", HINTS, CARD)
    made = load_checkpoint(tmp_path / "made").network.unet.state_dict()
    for name, tensor in unet.state_dict().items():
        assert torch.equal(made[name], tensor)


@pytest.mark.parametrize(
    ("scheduler", "process"),
    [
        (DDPMScheduler(), "eps"),
        (DDIMScheduler(prediction_type="v_prediction"), "v"),
        (DDPMScheduler(beta_schedule="squaredcos_cap_v2"), "eps-cosine-1000"),
        (
            DDPMScheduler(num_train_timesteps=4000, beta_start=2.5e-5, beta_end=0.005),
            "eps-linear-4000",
        ),
    ],
)
def test_a_pipeline_says_its_schedule(tmp_path, scheduler, process):
    make(tmp_path / "theirs", scheduler=scheduler)
    convert(tmp_path / "theirs", tmp_path / "made", {}, CARD)
    assert load_checkpoint(tmp_path / "made").card.parameterisation == process
    # And in the folder of the network alone, beside its scheduler.
    convert(tmp_path / "theirs" / "unet", tmp_path / "again", {}, CARD)
    assert load_checkpoint(tmp_path / "again").card.parameterisation == process


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_start": 0.001},
        {"beta_schedule": "scaled_linear"},
        {"prediction_type": "sample"},
        {"trained_betas": [0.1]},
        {"rescale_betas_zero_snr": True},
        {"num_train_timesteps": "many"},
        {"beta_end": "x"},
        {"beta_schedule": None},
        {"predict_epsilon": False},
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "EDMEulerScheduler"},
        {"_class_name": None},
    ],
)
def test_a_schedule_that_is_not_ours_is_refused(tmp_path, changes):
    make(tmp_path / "theirs", scheduler=DDPMScheduler())
    edit(tmp_path / "theirs" / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(UserError, match="scheduler_config"):
        convert(tmp_path / "theirs", tmp_path / "made", {}, CARD)


def test_what_is_said_of_a_pipeline_may_not_contradict_it(tmp_path):
    make(tmp_path / "theirs", scheduler=DDPMScheduler())
    convert(tmp_path / "theirs", tmp_path / "made", {"process": "eps"}, CARD)
    with pytest.raises(UserError, match=r"scheduler says 'eps', .* say 'v'"):
        convert(tmp_path / "theirs", tmp_path / "again", {"process": "v"}, CARD)


def test_noise_levels_that_a_file_does_not_say_are_refused(tmp_path):
    make(tmp_path / "theirs")
    with pytest.raises(UserError, match="'edm' cannot be imported"):
        convert(tmp_path / "theirs", tmp_path / "made", {"process": "edm"}, CARD)


def test_weights_without_their_config_are_told_where_it_belongs(tmp_path):
    make(tmp_path / "theirs", safe=False)
    weights = find_weights(tmp_path / "theirs")[0]
    alone = tmp_path / weights.name
    weights.rename(alone)
    with pytest.raises(UserError, match=r"part of a diffusers folder.* config\.json"):
        conversion.convert(alone, tmp_path / "made", HINTS, CARD)


def test_without_a_scheduler_the_process_must_be_said(tmp_path):
    make(tmp_path / "theirs")
    with pytest.raises(UserError, match="parameterisation"):
        convert(tmp_path / "theirs", tmp_path / "made", {}, CARD)


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": "UNet2DConditionModel"},
        {"trust_remote_code": True},
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"act_fn": "gelu"},
        {"center_input_sample": True},
        {"time_embedding_type": "fourier"},
        {"class_embed_type": "identity"},
        {"add_attention": False},
        {"mid_block_scale_factor": 2},
        {"out_channels": 6},
        {"upsample_type": "resnet"},
        {"downsample_padding": 2},
        {"resnet_time_scale_shift": "spatial"},
        {"attn_norm_num_groups": 8},
        {"resnet_time_scale_shift": "scale_shift"},
        {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]},
        {"up_block_types": ["UpBlock2D", "UpBlock2D"]},
        {"up_block_types": 3},
        {"block_out_channels": 32},
        {"block_out_channels": [32, 10**9]},
        {"layers_per_block": 2.5},
        {"norm_eps": "small"},
        {"sample_size": None},
        {"num_class_embeds": -4},
        {"attention_head_dim": 7},
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()),
)
def test_a_config_that_our_network_cannot_be_is_refused(tmp_path, changes):
    make(tmp_path / "theirs")
    edit(tmp_path / "theirs" / "config.json", **changes)
    with pytest.raises(UserError, match=r"config\.json"):
        convert(tmp_path / "theirs", tmp_path / "made", HINTS, CARD)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_config_that_is_none_is_the_users_to_replace(tmp_path, content):
    make(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        convert(tmp_path / "theirs", tmp_path / "made", HINTS, CARD)


def test_a_huge_config_is_not_read(tmp_path):
    make(tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    path.write_text(path.read_text() + " " * 2**21)
    with pytest.raises(UserError, match="too large"):
        convert(tmp_path / "theirs", tmp_path / "made", HINTS, CARD)


def test_weights_of_another_network_are_refused(tmp_path):
    make(tmp_path / "theirs")
    edit(tmp_path / "theirs" / "config.json", block_out_channels=[32, 32])
    with pytest.raises(UserError, match="another architecture"):
        convert(tmp_path / "theirs", tmp_path / "made", HINTS, CARD)


def test_a_folder_of_something_else_is_named(tmp_path):
    (tmp_path / "theirs").mkdir()
    with pytest.raises(UserError, match="no diffusers checkpoint"):
        convert(tmp_path / "theirs", tmp_path / "made", HINTS, CARD)
