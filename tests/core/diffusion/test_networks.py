"""The network: its size, its label table, and that images do not see one another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.checkpoints.starter import STARTER_NETWORK
from core.diffusion.networks import (
    NetworkConfig,
    adapt_classes,
    build_network,
    parameter_count,
)
from core.diffusion.objective import mean_loss
from core.diffusion.process import Parameterisation, diffuse
from core.diffusion.timesteps import UNIFORM
from core.diffusion.views import make_views
from core.errors import UserError
from tests.core.tiny import CONFIG, make_network


@pytest.fixture(scope="module")
def network():
    return make_network()


def inputs(count: int = 3):
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(count, 3, 8, 8, generator=generator)
    return noisy, torch.tensor([3, 500, 999])[:count], torch.arange(count)


def test_the_starter_has_the_size_that_its_card_states():
    with torch.device("meta"):
        network = build_network(STARTER_NETWORK)
    assert parameter_count(network) == 1_701_836
    assert parameter_count(network) * 4 < 8 * 2**20


@torch.no_grad()
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_folding_gives_back_images_of_the_same_shape(fold):
    config = replace(CONFIG, fold=fold)
    assert make_network(config)(*inputs()).shape == (3, 3, 8, 8)


@torch.no_grad()
def test_fold_and_unfold_are_inverse(network, monkeypatch):
    class Same:
        def __init__(self, sample):
            self.sample = sample

    monkeypatch.setattr(
        network.unet, "forward", lambda folded, times, class_labels: Same(folded)
    )
    noisy, times, labels = inputs()
    assert torch.equal(network(noisy, times, labels), noisy)


@torch.no_grad()
def test_an_image_is_untouched_by_the_others(network):
    """Batch statistics would make one person's gradient depend on another's."""
    noisy, times, labels = inputs()
    alone = network(noisy, times, labels)[0]
    others = noisy.clone()
    others[1:] = 100.0
    assert torch.equal(network(others, times, labels)[0], alone)
    assert not network.training


@torch.no_grad()
def test_timestep_and_class_are_heeded(network):
    noisy, times, labels = inputs(1)
    base = network(noisy, times, labels)
    assert not torch.allclose(network(noisy, times + 400, labels), base)
    assert not torch.allclose(network(noisy, times, labels + 1), base)


def test_new_label_table_is_an_average_public_one(network):
    adapted = adapt_classes(network, 5, generator=torch.Generator().manual_seed(0))
    again = adapt_classes(network, 5, generator=torch.Generator().manual_seed(0))
    old = network.unet.class_embedding.weight
    new = adapted.unet.class_embedding.weight
    assert adapted.config.classes == 5 and new.shape == (5, old.shape[1])
    assert torch.equal(new, again.unet.class_embedding.weight)
    assert len({tuple(row.tolist()) for row in new}) == 5
    distance = (new - old.mean(dim=0)) / old.std(dim=0, unbiased=False)
    assert 0.05 < float(distance.detach().std()) < 0.15
    theirs = dict(adapted.state_dict())
    for name, tensor in network.state_dict().items():
        if "class_embedding" not in name:
            assert torch.equal(theirs[name], tensor), name


def test_config_survives_json():
    assert NetworkConfig.from_json(CONFIG.to_json()) == CONFIG


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 9},
        {"image_channels": 2},
        {"channels": []},
        {"channels": [8, 10]},
        {"channels": 8},
        {"channels": [10**6, 10**6]},
        {"layers": 0},
        {"fold": 2.5},
        {"groups": "4"},
        {"attention_levels": [7]},
        {"attention_levels": ["0"]},
        {"head_channels": 64},
        {"head_channels": 3},
        {"dropout": 0.5},
    ],
)
def test_shapes_that_no_network_has_are_the_users_to_change(changes):
    with pytest.raises(UserError, match="checkpoint"):
        build_network(NetworkConfig.from_json(CONFIG.to_json() | changes))


@pytest.mark.parametrize("parameterisation", list(Parameterisation))
def test_loss_is_the_mean_over_views_and_pixels(network, parameterisation):
    views = make_views(
        inputs(2)[0], torch.tensor([0, 1]), multiplicity=3, timesteps=UNIFORM,
        flip=False, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    off = torch.autocast("cpu", enabled=False)
    with torch.no_grad():
        loss = mean_loss(network, views, parameterisation, off)
        each = [
            mean_loss(network, view, parameterisation, off) for view in views.split(1)
        ]
        noisy, target = diffuse(
            views.clean, views.noise, views.timesteps, parameterisation
        )
        answer = network(noisy, views.timesteps, views.labels)
    torch.testing.assert_close(loss, torch.stack(each).mean())
    torch.testing.assert_close(loss, ((answer - target) ** 2).mean())
