"""What is trained is what was chosen, and the checkpoint's format stays the same."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from core.checkpoints.starter import STARTER_NETWORK
from core.diffusion.adapters import ALL, PARTS, choose, merge
from core.diffusion.networks import build_network, parameter_count
from core.errors import UserError
from tests.core.tiny import CONFIG, make_network


def inputs():
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(4, 3, 8, 8, generator=generator)
    return noisy, torch.tensor([0, 3, 500, 999]), torch.tensor([0, 1, 2, 0])


def trained(network) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad}


def stirred(network, seed: int = 1):
    """Every trained weight moved at random, as a training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 0.1 * noise.to(parameter)
    return network


@pytest.mark.parametrize(
    ("part", "inside", "outside"),
    [
        ("attention", "unet.mid_block.attentions.0.to_q.weight", "unet.mid_block.resn"),
        ("label embedding", "unet.class_embedding.weight", "unet.time_embedding"),
        ("time embedding", "unet.time_embedding.linear_1.bias", "unet.class_embed"),
        ("first convolution", "unet.conv_in.weight", "unet.conv_out"),
        ("last convolution", "unet.conv_norm_out.weight", "unet.conv_in"),
        ("down blocks", "unet.down_blocks.1.resnets.0.conv1.weight", "unet.up_blocks"),
        ("middle block", "unet.mid_block.resnets.0.conv1.weight", "unet.down_blocks"),
        ("up blocks", "unet.up_blocks.0.resnets.0.conv1.weight", "unet.mid_block"),
    ],
)
def test_a_part_is_what_its_name_says(part, inside, outside):
    network = make_network()
    choose(network, (part,), 0)
    names = trained(network)
    assert inside in names and 0 < parameter_count(network)
    assert not any(name.startswith(outside) for name in names)


def test_norms_and_biases_are_all_of_them_and_nothing_else():
    network = make_network()
    choose(network, ("norms and biases",), 0)
    expected = set()
    for name, module in network.named_modules():
        if getattr(module, "bias", None) is not None:
            expected.add(f"{name}.bias")
        if isinstance(module, torch.nn.GroupNorm):
            expected.add(f"{name}.weight")
    assert trained(network) == expected


def test_all_is_everything_and_the_parts_together_are_too():
    whole = parameter_count(make_network())
    for parts in ((ALL,), tuple(part for part in PARTS if part != ALL)):
        network = make_network()
        choose(network, parts, 0)
        assert parameter_count(network) == whole


def test_two_parts_are_both_trained():
    network = make_network()
    choose(network, ("label embedding", "attention"), 0)
    one, other = make_network(), make_network()
    choose(one, ("label embedding",), 0)
    choose(other, ("attention",), 0)
    assert trained(network) == trained(one) | trained(other)


@torch.no_grad()
@pytest.mark.parametrize("rank", [1, 4, 8])
def test_adapters_change_nothing_at_first_and_are_all_that_is_trained(rank):
    network = make_network()
    before = network(*inputs())
    choose(network, (), rank)
    torch.testing.assert_close(network(*inputs()), before, rtol=0, atol=1e-6)
    # Query, key, value and output of the one attention, 16 wide.
    assert parameter_count(network) == 4 * 2 * 16 * rank
    assert all(name.endswith(("down.weight", "up.weight")) for name in trained(network))


def test_every_attention_of_a_larger_network_is_adapted():
    config = replace(CONFIG, attention_levels=(1,))
    network = build_network(config)
    choose(network, ("label embedding",), 2)
    attentions = {
        name.split(".attentions.")[0] + name.split(".attentions.")[1][:1]
        for name in trained(network)
        if ".attentions." in name
    }
    assert len(attentions) == 4  # One on the way down, the middle, two on the way up.
    assert len(trained(network)) == 4 * 4 * 2 + 1


def test_the_starter_has_one_attention_to_adapt():
    with torch.device("meta"):
        network = build_network(STARTER_NETWORK)
    choose(network, (), 4)
    assert parameter_count(network) == 4 * 2 * 96 * 4


def test_a_gradient_reaches_every_trained_weight_and_no_other():
    network = make_network()
    choose(network, ("label embedding",), 4)
    stirred(network)
    chosen = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(network(*inputs()).square().mean(), chosen)
    assert all(float(gradient.norm()) > 0 for gradient in gradients)
    assert parameter_count(network) == sum(gradient.numel() for gradient in gradients)


@torch.no_grad()
@pytest.mark.parametrize("parts", [(), ("label embedding", "norms and biases")])
def test_merged_it_is_the_same_function_in_the_old_format(parts):
    network = make_network()
    original = copy.deepcopy(network.state_dict())
    choose(network, parts, 4)
    stirred(network)
    adapted = network(*inputs())
    merge(network)
    torch.testing.assert_close(network(*inputs()), adapted, rtol=1e-4, atol=1e-5)
    merged = network.state_dict()
    assert list(merged) == list(original)
    assert {k: v.shape for k, v in merged.items()} == {
        k: v.shape for k, v in original.items()
    }
    fresh = make_network()
    fresh.load_state_dict(merged)
    torch.testing.assert_close(fresh(*inputs()), adapted, rtol=1e-4, atol=1e-5)
    for part, moved in (("attentions.0.to_q.weight", True), ("conv_in.weight", False)):
        name = next(name for name in merged if name.endswith(part))
        assert torch.equal(merged[name], original[name]) != moved


def test_the_adapters_start_the_same_in_every_process():
    starts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = make_network()
        choose(network, (), 2)
        starts.append([p.detach().clone() for p in network.parameters()])
    assert all(map(torch.equal, *starts))


def test_merging_without_adapters_changes_nothing():
    network = make_network()
    before = copy.deepcopy(network.state_dict())
    merge(network)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_a_part_that_the_network_has_not_is_refused():
    network = make_network()
    network.unet.class_embedding = None
    with pytest.raises(UserError, match="label embedding"):
        choose(network, ("label embedding",), 0)
    network.unet.mid_block.attentions = torch.nn.ModuleList()
    with pytest.raises(UserError, match="no attention"):
        choose(network, ("up blocks",), 4)
    with pytest.raises(UserError, match="trains nothing"):
        choose(make_network(), (), 0)


@pytest.mark.parametrize(
    ("part", "twice"),
    [("middle block", True), ("down blocks", True), ("up blocks", True),
     ("norms and biases", False), ("label embedding", False)],
)  # fmt: skip
def test_no_weight_is_trained_by_itself_and_by_an_adapter(part, twice):
    network = build_network(replace(CONFIG, attention_levels=(1,)))
    if twice:
        with pytest.raises(UserError, match=f"attention in the {part} itself"):
            choose(network, (part,), 4)
        assert len(trained(network)) == len(list(network.parameters()))
        return
    choose(network, (part,), 4)
    assert not any(name.endswith("layer.weight") for name in trained(network))


def test_a_part_without_attention_may_be_trained_beside_adapters():
    network = make_network()
    choose(network, ("down blocks",), 4)
    assert any("mid_block.attentions.0.to_q.up" in name for name in trained(network))
