"""Published classifiers: the tables' numbers, the networks, and what they learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.bundled import classifier_names
from core.errors import UserError
from core.evaluation import published
from core.evaluation.published import build_published, train_published
from core.evaluation.recipe import load_classifier
from core.evaluation.report import CHANCE, REAL, SYNTHETIC, evaluate
from core.events import Watcher
from core.parallel import choose_hardware
from tests.core.tiny import make_dataset

TABLE_4 = {
    # iterations, batch, dropout, weight decay, smoothing, copies, schedule
    "paper-mnist": (10_000, 64, 0.5, 5e-4, 0.05, 1, "constant"),
    "paper-cifar10": (20_000, 4_096, 0.0, 5e-4, 0.0, 16, "cosine"),
    "paper-camelyon17": (4_000, 512, 0.0, 1e-5, 0.0, 16, "cosine"),
}
TABLE_6 = {
    # learning rates, weight decays, momentum, smoothing, copies, schedule
    "paper-selection-resnet50": (
        (5e-4, 2e-3, 4e-3), (0.0, 0.1, 0.01), 0.0, 0.05, 16, "cosine"
    ),
    "paper-selection-vgg": (
        (0.07, 0.04, 0.025, 0.01, 5e-3), (0.0, 1e-3, 5e-3), 0.9, 0.0, 1, "constant"
    ),
    "paper-selection-wrn": (
        (0.01, 0.02, 0.03), (0.0, 0.1, 0.01), 0.9, 0.0, 16, "cosine"
    ),
}  # fmt: skip
SHORT = {"iterations": 30, "batch_size": 16, "augmentation_multiplicity": 2}


def small():
    """WRN-10-1, trained long enough to tell black from white."""
    recipe = load_classifier(
        "paper-selection-wrn", depth=10, width=1, ema_decay=0.5, **SHORT
    )
    return replace(recipe, learning_rates=(0.1,), weight_decays=(0.0,))


def test_all_columns_of_both_tables_are_there():
    others = {n for n in classifier_names() if not load_classifier(n).private}
    assert others == {*TABLE_4, *TABLE_6}


@pytest.mark.parametrize("name", TABLE_4)
def test_table_4(name):
    recipe = load_classifier(name)
    assert (
        recipe.iterations,
        recipe.batch_size,
        recipe.dropout,
        *recipe.weight_decays,
        recipe.label_smoothing,
        recipe.augmentation_multiplicity,
        recipe.schedule,
    ) == TABLE_4[name]
    assert (recipe.network, recipe.depth, recipe.width) == ("wide-resnet", 40, 4)
    assert (recipe.learning_rates, recipe.momentum) == ((0.1,), 0.9)
    assert recipe.nesterov and recipe.ema_decay == 0.9999


@pytest.mark.parametrize("name", TABLE_6)
def test_table_6(name):
    recipe = load_classifier(name)
    assert (
        recipe.learning_rates,
        recipe.weight_decays,
        recipe.momentum,
        recipe.label_smoothing,
        recipe.augmentation_multiplicity,
        recipe.schedule,
    ) == TABLE_6[name]
    assert (recipe.iterations, recipe.batch_size) == (15_000, 128)
    assert len(recipe.settings()) == len(set(recipe.settings()))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # Zagoruyko & Komodakis 2016, Tables 4 and 6: 8.9 and 2.7 million.
        ("paper-cifar10", 8.9),
        ("paper-selection-wrn", 2.7),
        # He et al. 2016 for 1,000 classes: 25.6, less 2.0 for the last layer.
        ("paper-selection-resnet50", 23.5),
        # Simonyan & Zisserman 2014: the 16-layer network's convolutions.
        ("paper-selection-vgg", 14.7),
    ],
)
def test_networks_have_the_published_size(name, millions):
    network = build_published(load_classifier(name), 3, 10)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("name", ["paper-selection-resnet50", "paper-selection-vgg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_large_networks_take_small_images(name, channels):
    network = build_published(load_classifier(name), channels, 4).eval()
    assert network(torch.zeros(2, channels, 16, 16)).shape == (2, 4)


def test_a_wide_resnet_halves_twice():
    network = build_published(load_classifier("paper-selection-wrn"), 3, 2)
    features = network.layers[:-5](torch.zeros(1, 3, 32, 32))
    assert features.shape == (1, 256, 8, 8)


def test_published_classifiers_learn_and_every_setting_is_told():
    dataset = make_dataset(60, held_out=30)
    other = make_dataset(60, seed=9)
    recipe = replace(small(), weight_decays=(0.0, 1e-4))
    report = evaluate(
        dataset, other.images, other.labels, flip=True, device="cpu",
        watcher=Watcher(), recipe=recipe,
    )  # fmt: skip
    figures = {figure.name: figure.value for figure in report.figures}
    assert len(figures) == 5 and CHANCE in figures
    for name in (SYNTHETIC, REAL):
        values = [v for f, v in figures.items() if f.startswith(name)]
        assert len(values) == 2
        assert max(values) > 0.8
    assert sum("weight decay 0.0001)" in name for name in figures) == 2


def test_the_tested_weights_are_the_average():
    dataset = make_dataset(20)
    told = []

    def weights(**changes):
        network = train_published(
            replace(small(), iterations=3, **changes), dataset.images, dataset.labels,
            learning_rate=0.1, weight_decay=0.0, classes=2,
            hardware=choose_hardware("cpu"), activity="",
            watcher=Watcher(report=told.append),
        )  # fmt: skip
        assert not network.training
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    newest, average = weights(ema_decay=0.0), weights(ema_decay=0.9999)
    assert [progress.done for progress in told] == [1, 2, 3, 1, 2, 3]
    assert not torch.allclose(newest, average)
    # 1/10, 2/11, 3/12 of the old are kept: the newest three weigh most.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_published(small(), 3, 2)
    fresh = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert (average - newest).norm() < 0.5 * (fresh - newest).norm()


def test_views_differ_and_stay_pictures():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    for way in ("crop", "flip", "colour"):
        recipe = replace(small(), augmentations=(way,), augmentation_multiplicity=8)
        views = published.random_views(images, recipe, torch.Generator().manual_seed(0))
        assert views.shape == (24, 3, 16, 16)
        assert views.min() >= -1 and views.max() <= 1
        groups = views.reshape(3, 8, -1)
        assert all(len(torch.unique(group, dim=0)) > 1 for group in groups), way
    still = replace(small(), augmentations=())
    views = published.random_views(images, still, torch.Generator())
    assert torch.equal(views[0], views[1])
    shown = ((views[::2] + 1) * 127.5).round().permute(0, 2, 3, 1).byte().numpy()
    assert np.array_equal(shown, images)


def test_a_crop_is_a_window_of_the_image_and_its_mirrored_border():
    picture = torch.arange(16 * 16.0).view(1, 1, 16, 16).repeat(50, 1, 1, 1)
    windows = published._cropped(picture, torch.Generator().manual_seed(1))
    wide = torch.nn.functional.pad(picture[:1], (4,) * 4, mode="reflect")[0, 0]
    places = {
        tuple(wide[y : y + 16, x : x + 16].flatten().tolist()): (y, x)
        for y in range(9)
        for x in range(9)
    }
    found = {places[tuple(window.flatten().tolist())] for window in windows}
    assert len(found) > 20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", "alexnet"), ("depth", 39), ("width", 0), ("dropout", 1.0),
        ("iterations", 0), ("learning_rates", (0.0,)), ("learning_rates", ()),
        ("weight_decays", (-1.0,)), ("schedule", "linear"), ("momentum", 1.0),
        ("label_smoothing", 1.0), ("augmentations", ("turn",)), ("ema_decay", 1.0),
        ("batch_size", "64"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(field, value):
    words = field.replace("_", " ")
    with pytest.raises(UserError, match=words):
        replace(load_classifier("paper-cifar10"), **{field: value})


def test_no_momentum_cannot_look_ahead():
    with pytest.raises(UserError, match="nesterov"):
        replace(load_classifier("paper-cifar10"), momentum=0.0)


def test_an_unknown_recipe_is_told_with_those_there_are():
    with pytest.raises(UserError, match="paper-selection-vgg"):
        load_classifier("resnet")
