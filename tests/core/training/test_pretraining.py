"""Pretraining on a public folder: resumable, on several processes, and honest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from core import cli
from core.checkpoints.store import WEIGHTS, load_checkpoint
from core.diffusion.networks import LABEL_TABLE, build_network, parameter_count
from core.diffusion.process import Process
from core.errors import Stopped, UserError
from core.events import Watcher
from core.training import pretraining
from core.training.pretraining import (
    NETWORKS,
    STATE,
    Provenance,
    load_pretraining,
    pretrain,
    same_wishes,
)
from core.training.public import PublicTraining
from tests.core.tiny import CONFIG
from tests.core.training.together import in_two_processes

TOLD = Provenance(data="noise drawn for a test", licences="CC0", licence="CC0-1.0")
STEPS = 4


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "starter", CONFIG)


@pytest.fixture
def source(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for shade, name in enumerate(("dark", "bright")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 120, (9, 9, 3), dtype=np.uint8) + 120 * shade
            Image.fromarray(pixels.astype(np.uint8)).save(
                tmp_path / "images" / name / f"{index}.png"
            )
    return tmp_path / "images"


def small(**changes):
    wishes = {"steps": STEPS, "batch_size": 5, "warmup_steps": 1, "ema_decay": 0.5}
    return load_pretraining("small", **(wishes | changes))


def run(source, folder, recipe=None, told=TOLD, **options):
    wishes = {"device": "cpu", "watcher": Watcher()} | options
    return pretrain(source, folder, recipe or small(), told, **wishes)


def weights(folder: Path) -> torch.Tensor:
    held = load_file(folder / WEIGHTS)
    return torch.cat([held[name].flatten() for name in sorted(held)])


def test_the_column_imagenet32_of_table_3():
    """Ghalebikesabi et al. 2023, typed here again."""
    recipe = load_pretraining("paper-imagenet32")
    assert (recipe.steps, recipe.batch_size) == (200_000, 1_024)
    assert (recipe.warmup_steps, recipe.decay, recipe.ema_decay) == (
        5_000,
        False,
        0.9999,
    )
    assert recipe.timestep_weights == (0.03, 0.77, 0.2)
    assert recipe.timestep_bounds == (0, 30, 800, 1000)
    assert (recipe.flip, recipe.crop, recipe.label_dropout) == (False, 0, 0)
    assert pretraining._training(recipe, 0).gradient_norm == 0
    assert Process.parse(recipe.parameterisation).schedule.name == "linear-1000"
    with torch.device("meta"):
        network = build_network(NETWORKS[recipe.network])
    assert round(parameter_count(network), -5) == 80.4e6


def test_the_rate_rises_and_then_stays_or_falls():
    recipe = load_pretraining("paper-imagenet32")
    constant = pretraining._training(recipe, 0)
    top = recipe.learning_rate
    assert constant.rate_at(0) == top / 5_000
    assert constant.rate_at(2_499) == pytest.approx(top / 2)
    assert constant.rate_at(4_999) == constant.rate_at(199_999) == top
    falling = PublicTraining(**(vars(constant) | {"decay": True}))
    assert falling.rate_at(199_999) < 1e-6 * top


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"steps": 0}, "steps must be 1 or more"), ({"network": "big"}, "network must be"),
     ({"parameterisation": "x"}, "'x' is unknown"), ({"crop": 8}, "crop must be"),
     ({"label_dropout": 1.0}, "label dropout"), ({"flip": 1}, "flip must be true"),
     ({"gradient_norm": -1.0}, "gradient norm must be 0 or more"),
     ({"timestep_weights": (1.0, 1.0)}, "timestep mixture"), ({"pace": 1}, "pace")],
)  # fmt: skip
def test_settings_that_cannot_run_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        small(**changes)


def test_a_checkpoint_of_the_folders_classes_with_its_card(source, tmp_path):
    card = run(source, tmp_path / "mine", small(label_dropout=0.25))
    assert (card.name, card.steps, card.batch_size) == ("mine", STEPS, 5)
    assert card.parameterisation == "v" and card.pretraining_data == TOLD.data
    assert "without privacy on 12 images of 2 classes" in card.description
    network = load_checkpoint(tmp_path / "mine").network
    assert (network.config.classes, network.config.null_label) == (2, 2)
    assert not (tmp_path / "mine" / STATE).exists()
    with pytest.raises(UserError, match="already holds a checkpoint"):
        run(source, tmp_path / "mine")


def test_it_learns_and_keeps_the_average(source, tmp_path):
    recipe = small(steps=30, learning_rate=0.01)
    run(source, tmp_path / "out", recipe)
    network = load_checkpoint(tmp_path / "out").network
    dataset = pretraining._reader(source, tmp_path / "out", recipe, None, Watcher())()
    fresh = pretraining._fresh(recipe, dataset, 0)
    assert not torch.equal(
        network.state_dict()[LABEL_TABLE], fresh.state_dict()[LABEL_TABLE]
    )
    assert set(dataset.labels.tolist()) == {0, 1}
    images, labels = pretraining._batches(dataset, fresh)(
        40, torch.Generator().manual_seed(0)
    )
    # Labels are those of the images: "bright" comes first.
    shades = images.mean(dim=(1, 2, 3))
    assert float(shades[labels == 0].min()) > float(shades[labels == 1].max())


@pytest.mark.parametrize("step", [1, 3])
def test_a_stop_loses_nothing(source, tmp_path, step):
    done = []
    watcher = Watcher(
        report=lambda p: done.append(p.done) if "Pretraining" in p.activity else None,
        stop_requested=lambda: len(done) == step,
    )
    with pytest.raises(Stopped):
        run(source, tmp_path / "stopped", watcher=watcher)
    assert (tmp_path / "stopped" / STATE).is_file()
    run(source, tmp_path / "stopped", watcher=replace(watcher, stop_requested=bool))
    assert done == list(range(1, STEPS + 1))
    run(source, tmp_path / "whole")
    torch.testing.assert_close(
        weights(tmp_path / "stopped"), weights(tmp_path / "whole"), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("change", ["settings", "seed", "images"])
def test_another_training_does_not_go_on_from_a_state(source, tmp_path, change):
    with pytest.raises(Stopped):
        run(source, tmp_path / "out", watcher=Watcher(stop_requested=lambda: (
            (tmp_path / "out" / "wishes.json").exists()
        )))  # fmt: skip
    recipe, seed = small(), 0
    match change:
        case "settings":
            recipe = small(learning_rate=0.5)
        case "seed":
            seed = 1
        case "images":
            (source / "dark" / "0.png").unlink()
    with pytest.raises(UserError, match="under other settings or on other images"):
        run(source, tmp_path / "out", recipe, seed=seed)


def test_timesteps_are_those_of_the_linear_chain():
    """σ at 800 of 1,000 is there 26, which a cosine chain reaches at 976 only."""
    linear = load_pretraining("small", timestep_bounds=[0, 800, 1000],
                              timestep_weights=[0.5, 0.5])  # fmt: skip
    cosine = replace(linear, parameterisation="eps-cosine-1000")
    bounds = [pretraining._training(r, 0).timesteps.bounds[1] for r in (linear, cosine)]
    assert bounds == [800, pytest.approx(976, abs=2)]


@pytest.mark.parametrize(("norm", "same"), [(1.0, True), (0.0, False)])
def test_a_state_from_before_the_norm_was_told_was_clipped_to_1(tmp_path, norm, same):
    (tmp_path / STATE).touch()
    (tmp_path / "wishes.json").write_text('{"steps": 3}')
    if same:
        same_wishes(tmp_path, {"steps": 3, "gradient_norm": norm})
        return
    with pytest.raises(UserError, match="under other settings"):
        same_wishes(tmp_path, {"steps": 3, "gradient_norm": norm})


@pytest.mark.parametrize(
    ("network", "groups", "same"),
    [("starter", 8, False), ("starter", 32, True), ("dpdm-grey", 8, True)],
)
def test_a_state_from_before_the_groups_were_told_is_of_the_networks_of_then(
    tmp_path, network, groups, same
):
    """Its weights fit the network of today, and would mean something else in it."""
    (tmp_path / STATE).touch()
    wishes = {"steps": 3, "network": network}
    (tmp_path / "wishes.json").write_text(json.dumps(wishes))
    if same:
        same_wishes(tmp_path, wishes | {"groups": groups})
        return
    with pytest.raises(UserError, match="under other settings"):
        same_wishes(tmp_path, wishes | {"groups": groups})


@pytest.mark.parametrize("data", ["", "  "])
def test_nothing_is_trained_on_images_of_which_nothing_is_said(source, tmp_path, data):
    with pytest.raises(UserError, match="Say what the images are"):
        run(source, tmp_path / "out", told=replace(TOLD, data=data))
    assert not (tmp_path / "out").exists()


def test_the_command_says_that_there_is_no_privacy(source, tmp_path, capsys):
    out = tmp_path / "out"
    wishes = ["pretrain", str(out), "--source", str(source), "--steps", "1",
              "--batch-size", "3", "--device", "cpu"]  # fmt: skip
    assert cli.main(wishes) == 2
    assert "--data" in capsys.readouterr().err
    assert cli.main([*wishes, "--data", "noise", "--licence", "CC0-1.0"]) == 0
    assert "No privacy" in capsys.readouterr().out
    card = load_checkpoint(out).card
    assert (card.licence, card.pretraining_data) == ("CC0-1.0", "noise")
    assert cli.main(["pretrain", str(out), "--recipe", "paper-imagenet32"]) == 2
    assert "--source" in capsys.readouterr().err


TOGETHER = """
import sys
from pathlib import Path
from tests.core.training import test_pretraining as here
here.NETWORKS["starter"] = here.CONFIG
here.run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("resumed", [False, True])
def test_several_processes_make_what_one_makes(source, tmp_path, resumed):
    """A batch of 5 in parts of 3 and 2; also from a state that only one can read."""
    if resumed:
        with pytest.raises(Stopped):
            run(source, tmp_path / "many", watcher=Watcher(stop_requested=lambda: (
                (tmp_path / "many" / "wishes.json").exists()
            )))  # fmt: skip
    in_two_processes(TOGETHER, source, tmp_path / "many")
    run(source, tmp_path / "one")
    torch.testing.assert_close(
        # Adam makes more of how single-precision sums are rounded; a rank that is left
        # out makes differences of more than 1e-3.
        weights(tmp_path / "many"),
        weights(tmp_path / "one"),
        rtol=0,
        atol=5e-5,
    )
