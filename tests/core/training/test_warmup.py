"""What the network is before DP-SGD: the public one, with private labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.diffusion.networks import LABEL_TABLE
from core.errors import UserError
from core.events import Watcher
from core.parallel import Hardware
from core.training import public, warmup
from core.training.purse import Purse
from core.training.units import group_units
from core.training.warmup import public_network
from tests.core.tiny import make_dataset, make_network, make_plan

CPU = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=1)


def rows_of(plan) -> torch.Tensor:
    return public_network(plan).state_dict()[LABEL_TABLE]


def test_labels_lie_near_the_public_ones_unless_nothing_was_learned(tmp_path):
    plan = make_plan(tmp_path)
    scratch = replace(plan.checkpoint, name="scratch-dpdm-grey-edm")
    public = make_network().state_dict()[LABEL_TABLE]
    centre = public.mean(dim=0)
    near = (rows_of(plan) - centre).norm()
    far = (rows_of(replace(plan, checkpoint=scratch)) - centre).norm()
    torch.testing.assert_close(far, 10 * near, rtol=1e-4, atol=0)


def test_a_row_for_no_class_is_there_when_it_is_trained(tmp_path):
    plan = make_plan(tmp_path, label_dropout=0.1)
    assert public_network(plan).config.null_label == 2
    assert public_network(make_plan(tmp_path)).config.null_label is None


def test_the_warm_up_drops_labels_and_crops_as_the_recipe_says(
    tmp_path, monkeypatch, folder, ledger
):
    trained = []
    monkeypatch.setattr(warmup, "train", lambda *of, **_: trained.append(of[2]))
    plan = make_plan(
        tmp_path, moments=True, central=True, crop=2, label_dropout=0.25, flip=False
    )
    units = group_units(make_dataset(), plan.budget.unit)
    purse = Purse(plan, "data", ledger)
    warmup.warmed_up(plan, units, purse, folder, CPU, Watcher())
    assert [training.crop for training in trained] == [2, 2]
    assert {training.label_dropout for training in trained} == {0.25}
    assert {training.flip for training in trained} == {False}
    assert {training.gradient_norm for training in trained} == {1}


def test_parts_that_do_not_fit_are_refused_before_anything_is_spent(
    tmp_path, folder, ledger
):
    plan = make_plan(tmp_path, moments=True, trained=("middle block",), lora_rank=2)
    units = group_units(make_dataset(), plan.budget.unit)
    purse = Purse(plan, "data", ledger)
    with pytest.raises(UserError, match="attention in the middle block itself"):
        warmup.warmed_up(plan, units, purse, folder, CPU, Watcher())
    assert ledger.entries() == ()


def test_public_training_drops_labels_and_crops_as_it_is_told(monkeypatch):
    asked = {}

    def seen(*_, **options):
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(public, "make_views", seen)
    training = public.PublicTraining(
        steps=1, batch_size=1, learning_rate=1.0, warmup_steps=0, ema_decay=0.0,
        timesteps=warmup.UNIFORM, flip=False, crop=3, label_dropout=0.25,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        public._gradients(
            make_network(), [], torch.zeros(1), torch.zeros(1), training,
            None, None, None, None, None,
        )  # fmt: skip
    assert (asked["crop"], asked["label_dropout"]) == (3, 0.25)
