"""The private classifier keeps to its budget, is bounded, and learns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from core import private_classifier
from core.errors import Stopped, UserError
from core.evaluation.recipe import load_classifier
from core.evaluation.report import CHANCE, PRIVATE, evaluate
from core.events import Watcher
from core.parallel import choose_hardware
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import Relation
from core.private_classifier import steps_within, train_privately
from tests.core.tiny import make_dataset

TABLE_5 = {
    # depth, batch, learning rate, noise, copies
    "paper-private-mnist": (16, 16_384, 4.0, 3.0, 1),
    "paper-private-camelyon17": (40, 4_096, 0.5, 4.0, 16),
}


def small(**changes):
    return replace(
        load_classifier("paper-private-mnist"),
        depth=10, width=1, batch_size=20, learning_rates=(0.5,), ema_decay=0.5,
        noise_multiplier=1.0, epsilon=20.0, **changes,
    )  # fmt: skip


def trained(recipe, dataset, watcher=None):
    return train_privately(
        recipe, dataset.images, dataset.labels, learning_rate=recipe.learning_rates[0],
        weight_decay=0.0, classes=2, hardware=choose_hardware("cpu"), activity="",
        watcher=watcher or Watcher(),
    )  # fmt: skip


@pytest.mark.parametrize("name", TABLE_5)
def test_table_5(name):
    recipe = load_classifier(name)
    assert (
        recipe.depth,
        recipe.batch_size,
        *recipe.learning_rates,
        recipe.noise_multiplier,
        recipe.augmentation_multiplicity,
    ) == TABLE_5[name]
    assert (recipe.clip_norm, recipe.epsilon, recipe.delta) == (1.0, 10.0, 1e-5)
    assert recipe.private and recipe.width == 4


def test_the_budget_ends_it_and_not_a_step_later():
    recipe = load_classifier("paper-private-mnist")

    def charge(steps):
        return Charge(noise_multiplier=3.0, count=steps, sampling_probability=16 / 60)

    def spent(steps):
        return epsilon([charge(steps)], 1e-5, Relation.ADD_OR_REMOVE_ONE)

    steps = steps_within(charge, recipe)
    assert spent(steps) <= 10.0 < spent(steps + 1)
    with pytest.raises(UserError, match="more than its ε of"):
        steps_within(charge, replace(recipe, epsilon=0.001))


def test_it_learns_within_its_budget_and_the_figure_is_named():
    dataset = make_dataset(60, held_out=30)
    told = []
    report = evaluate(
        dataset, dataset.images[:0], dataset.labels[:0], flip=True, device="cpu",
        watcher=Watcher(report=told.append), recipe=small(), learn=train_privately,
    )  # fmt: skip
    figures = {figure.name: figure.value for figure in report.figures}
    assert set(figures) == {f"{PRIVATE} (paper-private-mnist)", CHANCE}
    assert max(figures.values()) > 0.8 > figures[CHANCE]
    assert told[-1].done == told[-1].total > 3


def test_every_step_is_a_private_one_with_the_recipes_constants(monkeypatch):
    mechanisms = []

    def watched(mechanism, *, present, clipped_sum, commit):
        mechanisms.append(mechanism)
        total = clipped_sum(np.arange(present))
        # The sum of 40 gradients of norm at most 0.01.
        assert 0 < total.norm() <= 40 * 0.01
        return torch.zeros_like(total)

    monkeypatch.setattr(private_classifier, "private_step", watched)
    recipe = small(clip_norm=0.01)
    trained(recipe, make_dataset(40))
    (mechanism,) = set(mechanisms)
    assert mechanism.noise_multiplier == recipe.noise_multiplier
    assert (mechanism.clip_norm, mechanism.population) == (0.01, 40)
    assert math.isclose(mechanism.sampling_probability, 20 / 40)
    assert len(mechanisms) == steps_within(mechanism.charge, recipe)


def test_it_stops_between_two_steps():
    with pytest.raises(Stopped):
        trained(small(), make_dataset(40), Watcher(stop_requested=lambda: True))


def test_more_images_than_a_batch_are_needed():
    with pytest.raises(UserError, match="draws 16,384 images for a step"):
        trained(load_classifier("paper-private-mnist"), make_dataset(40))


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip_norm", 0.0), ("epsilon", 0.0), ("delta", 1.0), ("dropout", 0.1),
     ("iterations", 5), ("schedule", "cosine"), ("noise_multiplier", 0.0)],
)  # fmt: skip
def test_what_privacy_does_not_allow_is_refused(field, value):
    with pytest.raises(UserError):
        replace(load_classifier("paper-private-mnist"), **{field: value})


def test_without_noise_there_is_no_budget():
    for field in ("clip_norm", "epsilon", "delta"):
        with pytest.raises(UserError, match=f"{field.replace('_', ' ')} must be 0"):
            replace(load_classifier("paper-mnist"), **{field: 0.5})
