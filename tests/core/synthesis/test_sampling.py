"""Samples: repeatable, resumable, of the class that was asked for."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from core.diffusion.samplers import Churn
from core.errors import Stopped, UserError
from core.events import Watcher
from core.synthesis import sampling
from core.synthesis.sampling import synthesise
from tests.core.tiny import make_checkpoint


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 2)
    make_checkpoint(tmp_path / "model")
    return tmp_path / "model"


def draw(model: Path, folder: Path, **changes):
    wishes = {
        "class_names": ("dark", "bright"),
        "per_class": 5,
        "grey": False,
        "sampler": "ddim",
        "sampler_steps": 2,
        "device": "cpu",
        "watcher": Watcher(),
    }
    return synthesise(model, folder, **(wishes | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_again_for_the_same_seed(model, tmp_path):
    first = draw(model, tmp_path / "a")
    draw(model, tmp_path / "b")
    draw(model, tmp_path / "c", seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")
    images, labels = first.read()
    assert images.shape == (10, 8, 8, 3) and images.dtype == np.uint8
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert len({image.tobytes() for image in images}) == 10


def test_a_stopped_run_goes_on_and_ends_the_same(model, tmp_path):
    draw(model, tmp_path / "whole")
    reports = []
    stopping = Watcher(report=reports.append, stop_requested=lambda: bool(reports))
    with pytest.raises(Stopped):
        draw(model, tmp_path / "stopped", watcher=stopping)
    begun = contents(tmp_path / "stopped")
    assert 0 < len(begun) < 10
    draw(model, tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_what_is_there_is_not_drawn_again(model, tmp_path, monkeypatch):
    draw(model, tmp_path / "a")

    def never(*_, **__):
        raise AssertionError("drew again")

    monkeypatch.setattr(sampling, "sample", never)
    assert draw(model, tmp_path / "a").per_class == 5


def test_the_samplers_settings_reach_the_sampler(model, tmp_path, monkeypatch):
    given = []
    drawn = sampling.sample

    def telling(network, labels, **settings):
        given.append(settings)
        return drawn(network, labels, **settings)

    monkeypatch.setattr(sampling, "sample", telling)
    churn = Churn(amount=3.0, from_sigma=0.1, to_sigma=9.0, noise=1.007)
    draw(
        model, tmp_path / "a", per_class=1, sampler="heun", sampler_steps=3, churn=churn
    )
    assert given[0]["churn"] == churn and given[0]["guidance"] == 0.0
    assert (given[0]["sampler"], given[0]["steps"]) == ("heun", 3)
    assert given[0]["process"].name == "v"
    with pytest.raises(UserError, match="guided"):
        draw(model, tmp_path / "b", per_class=1, guidance=1.5)
    assert given[-1]["guidance"] == 1.5


def test_grey_images_have_one_channel(model, tmp_path):
    images, _ = draw(model, tmp_path / "a", grey=True, per_class=1).read()
    assert images.shape == (2, 8, 8, 1)


def test_a_full_disk_leaves_no_half_image(model, tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="disk is full"):
        draw(model, tmp_path / "a")
    assert not list((tmp_path / "a").rglob("*.png"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"per_class": 0}, "images per class"),
        ({"sampler": "x"}, "sampler"),
        ({"guidance": -1.0}, "Guidance"),
        ({"churn": Churn(amount=1.0)}, "heun"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(model, tmp_path, changes, named):
    with pytest.raises(UserError, match=named):
        draw(model, tmp_path / "a", **changes)
