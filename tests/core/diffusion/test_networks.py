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
from core.diffusion.presets import PAPER_COLOUR, PRESETS
from core.diffusion.process import Process
from core.diffusion.timesteps import UNIFORM
from core.diffusion.views import Views, make_views
from core.errors import UserError
from core.training.pretraining import NETWORKS
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


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # Ghalebikesabi et al. 2023, Tables 1 and 3: "80.4M" and "4.2M".
        (PAPER_COLOUR, 80_390_403),
        (replace(PAPER_COLOUR, classes=0), 80_382_723),
        (replace(PAPER_COLOUR, classes=2), 80_384_259),
        (replace(PAPER_COLOUR, classes=1000), 81_150_723),
        (PRESETS["paper-digits"], 4_239_041),
        # Dockhorn et al. 2022: 1.75 million, in blocks of their own.
        (PRESETS["dpdm-grey"], 1_774_401),
        (PRESETS["dpdm-colour"], 1_775_555),
    ],
)
def test_the_papers_networks_have_the_papers_sizes(config, count):
    with torch.device("meta"):
        assert parameter_count(build_network(config)) == count


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


@pytest.mark.parametrize("name", NETWORKS)
def test_every_block_heeds_timestep_and_class(name):
    """A norm of one channel alone would take away what they add to it."""
    network = make_network(NETWORKS[name])
    told = {
        name: weight
        for name, weight in network.named_parameters()
        if "time_emb_proj.weight" in name or "class_embedding" in name
    }
    generator = torch.Generator().manual_seed(0)
    channels = network.config.image_channels
    noisy = torch.randn(2, channels, 8, 8, generator=generator)
    answer = network(noisy, torch.tensor([100.0, 500.0]), torch.tensor([0, 1]))
    weighed = answer * torch.randn(answer.shape, generator=generator)
    gradients = torch.autograd.grad(weighed.mean(), list(told.values()))
    norms = {k: float(g.norm()) for k, g in zip(told, gradients, strict=True)}
    assert len(norms) > 10 and min(norms.values()) > 1e-5, norms


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


def rows(network) -> torch.Tensor:
    return network.unet.class_embedding.weight.detach()


def test_private_classes_start_from_the_public_ones_they_resemble(network):
    adapted = adapt_classes(
        network, 2, generator=torch.Generator(), public_rows=[[2], [0, 1]]
    )
    old, new = rows(network), rows(adapted)
    assert torch.equal(new[0], old[2])
    torch.testing.assert_close(new[1], (old[0] + old[1]) / 2)


@pytest.mark.parametrize(
    "public_rows", [[[0]], [[0], [3]], [[0], [-1]], [[0], []], [[0], [1], [2]]]
)
def test_label_rows_that_do_not_fit_are_refused(network, public_rows):
    with pytest.raises(UserError, match="label rows"):
        adapt_classes(network, 2, generator=torch.Generator(), public_rows=public_rows)


def test_spread_says_how_far_apart_new_classes_start(network):
    generator = torch.Generator()
    near, far = (
        rows(adapt_classes(network, 9, generator=generator.manual_seed(0), spread=s))
        for s in (0.1, 1.0)
    )
    mean = rows(network).mean(dim=0)
    torch.testing.assert_close(far - mean, 10 * (near - mean), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_null_class_is_one_more_row_and_stays(network):
    generator = torch.Generator().manual_seed(0)
    dropping = adapt_classes(network, 2, generator=generator, null_class=True)
    assert dropping.config.null_label == 2 and dropping.config.label_rows == 3
    torch.testing.assert_close(rows(dropping)[2], rows(network).mean(dim=0))
    rows(dropping)[2] += 1
    # Another network from it keeps the row that means "no label", and no other.
    again = adapt_classes(dropping, 4, generator=generator)
    assert again.config.null_label == 4
    assert torch.equal(rows(again)[4], rows(dropping)[2])
    torch.testing.assert_close(
        rows(adapt_classes(dropping, 1, generator=generator, public_rows=[[0, 1]]))[0],
        rows(dropping)[:2].mean(dim=0),
    )
    # "No label" is no class: it counts for no mean of classes.
    middle = rows(adapt_classes(dropping, 1, generator=generator, spread=0.0))[0]
    torch.testing.assert_close(middle, rows(dropping)[:2].mean(dim=0))
    assert network.config.null_label is None


@torch.no_grad()
def test_a_network_without_labels_takes_them_up_unchanged():
    plain = make_network(replace(CONFIG, classes=0))
    noisy, times, labels = inputs()
    expected = plain(noisy, times, labels)
    adapted = adapt_classes(plain, 3, generator=torch.Generator())
    assert torch.equal(adapted(noisy, times, labels), expected)
    rows(adapted)[1] += 1
    changed = adapted(noisy, times, labels) != expected
    assert changed.flatten(1).any(dim=1).tolist() == [False, True, False]


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 2, "attention_levels": (0, 1)},
        {"scale_shift": True},
        {"residual_resampling": True, "attention_levels": (0,)},
        {"norm_epsilon": 1e-2},
        {"sine_first": True},
        {"frequency_shift": 1},
        {"pad_after": True},
    ],
)
def test_every_field_of_the_config_matters(changes):
    """An import that gets one of them wrong would draw other images, silently."""
    config = replace(CONFIG, attention_levels=(0, 1))
    base, other = make_network(config), make_network(replace(config, **changes))
    assert NetworkConfig.from_json(other.config.to_json()) == other.config
    mine, theirs = dict(base.state_dict()), dict(other.state_dict())
    shared = [n for n in theirs if n in mine and mine[n].shape == theirs[n].shape]
    other.load_state_dict(theirs | {name: mine[name] for name in shared})
    found = other(*inputs())
    assert torch.isfinite(found).all()
    assert not torch.allclose(found, base(*inputs()), atol=1e-5)


def test_config_survives_json():
    assert NetworkConfig.from_json(CONFIG.to_json()) == CONFIG


def test_a_config_from_before_the_later_fields_is_read():
    content = CONFIG.to_json()
    for name in ("heads", "null_class", "scale_shift", "norm_epsilon", "pad_after"):
        del content[name]
    assert NetworkConfig.from_json(content) == CONFIG


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
        {"classes": -1},
        {"classes": 10**6},
        {"classes": True},
        {"classes": 0, "null_class": True},
        {"null_class": 1},
        {"heads": 3},
        {"heads": -1},
        {"norm_epsilon": 0.0},
        {"norm_epsilon": float("nan")},
        {"frequency_shift": 2},
        {"scale_shift": "yes"},
    ],
)
def test_shapes_that_no_network_has_are_the_users_to_change(changes):
    with pytest.raises(UserError, match="checkpoint"):
        build_network(NetworkConfig.from_json(CONFIG.to_json() | changes))


def one(views, number):
    """A single one of the views."""
    return Views(**{name: part[number, None] for name, part in vars(views).items()})


def test_loss_is_the_mean_over_views_and_pixels(network):
    views = make_views(
        inputs(2)[0], torch.tensor([0, 1]), multiplicity=3, timesteps=UNIFORM,
        flip=False, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    off, process = torch.autocast("cpu", enabled=False), Process.parse("v")
    with torch.no_grad():
        loss = mean_loss(network, views, process, off)
        each = [mean_loss(network, one(views, n), process, off) for n in range(6)]
        noisy = process.diffuse(views.clean, views.noise, views.timesteps)
        answer = network(noisy.inputs, noisy.times, views.labels)
    torch.testing.assert_close(loss, torch.stack(each).mean())
    torch.testing.assert_close(loss, ((answer - noisy.target) ** 2).mean())
