"""The starter checkpoint: it goes on from a state of the same wishes, and no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.checkpoints.store import WEIGHTS
from core.errors import Stopped, UserError
from core.events import Watcher
from core.training import starter
from core.training.pretraining import STATE
from core.training.starter import pretrain_starter
from tests.core.tiny import CONFIG
from tests.core.training.together import in_two_processes

WISHES = {"steps": 4, "images": 12, "batch_size": 3, "seed": 0}


def drawn(count, resolution, *, seed, watcher):
    """Noise for pictures."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, resolution, resolution, 3), np.uint8)
    return pixels, rng.integers(0, 3, count)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A network for pictures of that size."""
    monkeypatch.setattr(starter, "draw_public_images", drawn)
    monkeypatch.setattr(starter, "STARTER_NETWORK", CONFIG)


def make(folder, watcher=None, **changes):
    return pretrain_starter(
        folder, device="cpu", watcher=watcher or Watcher(), **(WISHES | changes)
    )


def stopping_after(step: int) -> Watcher:
    done: list[int] = []
    return Watcher(
        report=lambda progress: done.append(progress.done),
        stop_requested=lambda: len(done) == step,
    )


@pytest.mark.parametrize("step", [1, 3])
def test_a_stop_loses_nothing(tmp_path, step):
    with pytest.raises(Stopped):
        make(tmp_path / "stopped", stopping_after(step))
    watcher = stopping_after(0)
    card = make(tmp_path / "stopped", replace(watcher, stop_requested=bool))
    assert (card.name, card.steps, card.batch_size) == ("starter", 4, 3)
    assert "12 procedural pictures" in card.pretraining_data
    assert not (tmp_path / "stopped" / STATE).exists()
    make(tmp_path / "whole")
    resumed, whole = (
        load_file(tmp_path / folder / WEIGHTS) for folder in ("stopped", "whole")
    )
    for name, weights in whole.items():
        torch.testing.assert_close(resumed[name], weights, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"steps": 5}, {"batch_size": 2}, {"images": 13}], ids=str
)
def test_another_training_does_not_go_on_from_a_state(tmp_path, change):
    """Else the card would say of the weights what is not true of them."""
    with pytest.raises(Stopped):
        make(tmp_path, stopping_after(1))
    with pytest.raises(UserError, match="set them back, or choose another folder"):
        make(tmp_path, **change)
    assert make(tmp_path).steps == 4


def test_nor_from_a_state_that_says_nothing_of_its_wishes(tmp_path):
    with pytest.raises(Stopped):
        make(tmp_path, stopping_after(1))
    (tmp_path / "wishes.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="set them back, or choose another folder"):
        make(tmp_path)


TOGETHER = """
import sys
from pathlib import Path
from tests.core.training import test_starter as here
here.starter.draw_public_images = here.drawn
here.starter.STARTER_NETWORK = here.CONFIG
seen, fresh = [], here.starter.fresh_network

def watched(*wishes):
    network = fresh(*wishes)
    network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return network

here.starter.fresh_network = watched
here.make(Path(sys.argv[1]))
assert sum(seen) in (4 * 2, 4 * 1), seen
"""


def test_several_processes_make_one_starter(tmp_path):
    """Each sees its part of the batches of 3; left alone, each would train on all."""
    in_two_processes(TOGETHER, tmp_path / "many")
    make(tmp_path / "one")
    many, one = (load_file(tmp_path / folder / WEIGHTS) for folder in ("many", "one"))
    for name, weights in one.items():
        torch.testing.assert_close(many[name], weights, rtol=0, atol=5e-5)
    assert not (tmp_path / "many" / STATE).exists()
