"""Converted OpenAI networks compute what the published architecture computes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.checkpoints.conversion import convert
from core.checkpoints.layouts import Hints
from core.checkpoints.openai import is_openai, understand
from core.checkpoints.published import find_published, published
from core.checkpoints.store import load_checkpoint
from core.diffusion.networks import build_network
from core.errors import UserError
from tests.core.checkpoints.reference_unet import Flags, random_state, run, shapes

SMALL = Flags(
    image_size=16,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 2, 2),
    attention_resolutions=(8, 4),
    class_cond=5,
)
CARD = {
    "name": "small", "title": "Small", "description": "For tests.", "licence": "MIT",
    "pretraining_data": "nothing", "pretraining_licences": "none", "steps": 0,
    "batch_size": 0, "command": "none",
}  # fmt: skip


def hints(flags: Flags, **changes):
    by_width = flags.num_head_channels > 0
    return {
        "process": "eps-cosine-4000",
        "resolution": flags.image_size,
        "heads": None if by_width else flags.num_heads,
        "head_channels": flags.num_head_channels if by_width else None,
        "attention_order": "new" if flags.use_new_attention_order else "legacy",
    } | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_new_attention_order": True},
        {"use_scale_shift_norm": False, "num_heads": 1},
        {"resblock_updown": True, "num_head_channels": 16},
        {
            "resblock_updown": True, "num_head_channels": 32, "num_res_blocks": 2,
            "use_new_attention_order": True, "learn_sigma": False, "class_cond": 0,
        },
        {"channel_mult": (1, 3), "attention_resolutions": (16,), "image_channels": 1},
        {"channel_mult": (1,), "attention_resolutions": ()},
    ],
    ids=lambda changes: "-".join(changes) or "improved",
)  # fmt: skip
def test_output_equals_the_published_architecture(tmp_path, changes):
    flags = replace(SMALL, **changes)
    state = random_state(flags)
    torch.save(state, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "made", hints(flags), CARD)
    checkpoint = load_checkpoint(tmp_path / "made")

    generator = torch.Generator().manual_seed(1)
    size = flags.image_size
    images = torch.randn(3, flags.image_channels, size, size, generator=generator)
    times, labels = torch.tensor([0, 417, 3999]), torch.tensor([0, 3, 4])
    with torch.no_grad():
        expected = run(flags, state, images, times, labels)[:, : flags.image_channels]
        found = checkpoint.network(images, times, labels)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    assert checkpoint.card.predicts.name == "eps-cosine-4000"
    assert ("variance" in checkpoint.card.conversion) == flags.learn_sigma
    assert checkpoint.network.config.classes == flags.class_cond
    dropped = flags.learn_sigma * flags.image_channels * (9 * 32 + 1)
    total = sum(math.prod(shape) for shape in shapes(flags).values())
    assert checkpoint.card.parameters == total - dropped


@pytest.mark.parametrize(
    "wrong",
    [{"attention_order": "new"}, {"heads": 2}, {"heads": None, "head_channels": 32}],
    ids=str,
)
def test_what_the_file_cannot_tell_changes_the_output(tmp_path, wrong):
    """So the comparison above would notice a wrong hint."""
    flags, images = SMALL, torch.randn(2, 3, 16, 16)
    state = random_state(flags)
    torch.save(state, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "made", hints(flags, **wrong), CARD)
    times, labels = torch.tensor([5, 900]), torch.tensor([0, 1])
    with torch.no_grad():
        expected = run(flags, state, images, times, labels)[:, :3]
        found = load_checkpoint(tmp_path / "made").network(images, times, labels)
    assert (found - expected).abs().max() > 1e-2


def test_a_last_label_that_means_none_is_kept_apart(tmp_path):
    torch.save(random_state(SMALL), tmp_path / "model.pt")
    wish = hints(SMALL, null_class=True)
    convert(tmp_path / "model.pt", tmp_path / "made", wish, CARD)
    config = load_checkpoint(tmp_path / "made").network.config
    assert (config.classes, config.null_label) == (4, 4)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(tmp_path, half):
    state = {name: tensor.to(half) for name, tensor in random_state(SMALL).items()}
    torch.save(state, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "made", hints(SMALL), CARD)
    kept = load_checkpoint(tmp_path / "made").network.state_dict()
    expected = state["input_blocks.0.0.weight"].float()
    assert torch.equal(kept["unet.conv_in.weight"], expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"process": None}, "parameterisation"),
        ({"resolution": None}, "resolution"),
        ({"heads": None}, "heads"),
        ({"attention_order": None}, "attention order"),
        ({"attention_order": "other"}, "attention order 'other'"),
        ({"head_channels": 32}, "not both"),
        ({"process": "x0"}, "parameterisation 'x0'"),
        ({"process": "edm"}, "'edm' cannot be imported, as a file does not say"),
        ({"process": "vp"}, "'vp' cannot be imported"),
        ({"resolution": 17}, "17 pixels per side .* correct what was said of the file"),
        ({"heads": 7}, "and 7 heads: correct what was said of the file"),
    ],
)
def test_hints_that_are_missing_or_wrong_are_named(changes, named):
    with pytest.raises(UserError, match=named):
        understand(shapes(SMALL), Hints(**hints(SMALL, **changes)))


def without(found, ending):
    return {name: shape for name, shape in found.items() if not name.endswith(ending)}


@pytest.mark.parametrize(
    "broken",
    [
        without(shapes(SMALL), "input_blocks.1.0.emb_layers.1.weight"),
        without(shapes(SMALL), "input_blocks.0.0.bias"),
        shapes(SMALL) | {"more.weight": (1,)},
        shapes(SMALL) | {"out.2.weight": (9, 32, 3, 3)},
        shapes(SMALL) | {"output_blocks.9.0.in_layers.0.weight": (1,)},
        shapes(replace(SMALL, image_channels=6)),
        shapes(replace(SMALL, channel_mult=(2, 2))),
    ],
)
def test_parts_of_a_network_are_refused(tmp_path, broken):
    state = {name: torch.zeros(shape) for name, shape in broken.items()}
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"choose another|copy it again"):
        convert(tmp_path / "model.pt", tmp_path / "made", hints(SMALL), CARD)
    assert not (tmp_path / "made").exists()


def test_a_classifier_is_no_generator():
    generator_only = {
        name: shape
        for name, shape in shapes(SMALL).items()
        if not name.startswith("output_blocks")
    }
    assert not is_openai(without(generator_only, "out.2.weight"))


# Flags in the README files of the three projects; where they give none, the code's
# default for the image size.
IMPROVED_64 = Flags(
    image_size=64, num_channels=128, num_res_blocks=3, channel_mult=(1, 2, 3, 4)
)
CIFAR = replace(IMPROVED_64, image_size=32, channel_mult=(1, 2, 2, 2))
ADM = {
    "attention_resolutions": (32, 16, 8), "resblock_updown": True,
    "num_head_channels": 64,
}  # fmt: skip
ADM_256 = Flags(
    image_size=256, num_channels=256, num_res_blocks=2,
    channel_mult=(1, 1, 2, 2, 4, 4), **ADM,
)  # fmt: skip
ADM_IP = replace(
    CIFAR, resblock_updown=True, num_head_channels=32, use_new_attention_order=True
)
PUBLISHED = {
    "imagenet64-cond-270m": replace(IMPROVED_64, num_channels=192, class_cond=1000),
    "imagenet64-uncond-100m": IMPROVED_64,
    "imagenet64-uncond-vlb-100m": IMPROVED_64,
    "cifar10-uncond-50m": CIFAR,
    "cifar10-uncond-vlb-50m": CIFAR,
    "lsun-bedroom-1200k": Flags(
        image_size=256, num_channels=128, num_res_blocks=2, num_heads=1,
        channel_mult=(1, 1, 2, 2, 4, 4), attention_resolutions=(16,),
        use_scale_shift_norm=False,
    ),
    "adm-imagenet64": replace(
        IMPROVED_64, num_channels=192, class_cond=1000, use_new_attention_order=True,
        **ADM,
    ),
    "adm-imagenet128": replace(
        ADM_256, image_size=128, channel_mult=(1, 1, 2, 3, 4), class_cond=1000,
        num_heads=4, num_head_channels=-1,
    ),
    "adm-imagenet256": replace(ADM_256, class_cond=1000),
    "adm-imagenet256-uncond": ADM_256,
    "adm-lsun-bedroom": ADM_256,
    "adm-lsun-cat": ADM_256,
    "adm-lsun-horse": ADM_256,
    "adm-lsun-horse-nodropout": ADM_256,
    "adm-ip-imagenet32": ADM_IP,
    "adm-ip-cifar10": ADM_IP,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_understood_and_of_their_published_size(name):
    entry, flags = find_published(name), PUBLISHED[name]
    found = shapes(flags)
    assert sum(math.prod(shape) for shape in found.values()) == entry.parameters
    layout = understand(found, entry.hints)
    assert layout.config.classes == flags.class_cond
    assert layout.config.resolution == flags.image_size
    order = "new" if flags.use_new_attention_order else "legacy"
    assert f"{order} attention" in layout.notes
    assert {source.name for source in layout.sources.values()} == found.keys()
    with torch.device("meta"):
        state = build_network(layout.config).state_dict()
    assert layout.sources.keys() == state.keys()
    assert sum(tensor.numel() for tensor in state.values()) == entry.parameters_kept


def test_every_openai_entry_of_the_catalogue_is_checked_here():
    assert {
        entry.name
        for entry in published()
        if not entry.refused and entry.hints.attention_order
    } == PUBLISHED.keys()
