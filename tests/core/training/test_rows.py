"""How a private class's label starts: from public weights and pseudo-images only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.checkpoints.store import load_checkpoint, save_checkpoint
from core.diffusion.networks import LABEL_TABLE, build_network
from core.diffusion.objective import mean_loss
from core.diffusion.process import Parameterisation, Process
from core.diffusion.timesteps import UNIFORM
from core.diffusion.views import make_views
from core.errors import UserError
from core.events import Watcher
from core.parallel import Hardware
from core.training import trainer, warmup
from core.training.recipe_loading import load_recipe
from core.training.rows import choose_rows
from tests.core.tiny import CONFIG, make_dataset, make_network, make_plan, write_recipe

CPU = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=1)
PROCESS = Process.usual(Parameterisation.VELOCITY)


def images_of(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Class 0 is dark, class 1 bright, a little noisy; grey."""
    noise = 0.05 * torch.randn(len(labels), 1, 8, 8, generator=generator)
    return noise + (labels.float() * 1.6 - 0.8).view(-1, 1, 1, 1)


def chosen(how, network=None, pseudo=images_of, classes=2):
    return choose_rows(how, network or make_network(), PROCESS, classes, pseudo, CPU)


def test_fresh_names_nothing_and_mean_names_all():
    assert chosen("fresh") == ()
    assert chosen("mean") == ((0, 1, 2), (0, 1, 2))


def taught() -> torch.nn.Module:
    """Knows that its class 2 is dark and its class 0 bright."""
    network, generator = make_network(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        shades = torch.randint(0, 2, (16,), generator=generator)
        images = images_of(shades, generator).expand(-1, 3, -1, -1)
        views = make_views(
            images, torch.where(shades == 1, 0, 2), multiplicity=1, timesteps=UNIFORM,
            flip=False, generator=generator,
        )  # fmt: skip
        optimiser.zero_grad()
        mean_loss(network, views, PROCESS, CPU.autocast()).backward()
        optimiser.step()
    return network


def test_nearest_finds_the_public_class_that_looks_alike():
    network = taught()
    assert chosen("nearest", network) == ((2,), (0,))
    swapped = chosen("nearest", network, lambda labels, g: images_of(1 - labels, g))
    assert swapped == ((0,), (2,))


def test_without_a_release_nearest_is_fresh():
    """It was lost in a crash: the private images are not asked instead."""
    assert chosen("nearest", pseudo=None) == ()


@pytest.mark.parametrize("how", ["mean", "nearest"])
def test_a_network_without_classes_has_no_rows(how):
    with pytest.raises(UserError, match="class_rows"):
        chosen(how, build_network(replace(CONFIG, classes=0)))


@pytest.mark.usefixtures("quick_accountant")
def test_that_is_said_before_anything_is_spent(tmp_path, folder, ledger):
    plan = make_plan(tmp_path, moments=True, central=True, class_rows="mean")
    card = save_checkpoint(
        build_network(replace(CONFIG, classes=0)), plan.checkpoint.folder,
        dtype=torch.float32, **{
            name: value for name, value in vars(plan.checkpoint).items()
            if name not in ("folder", "parameters", "resolution", "sha256",
                            "image_channels", "config_sha256")
        },
    )  # fmt: skip
    plan = replace(plan, checkpoint=card)
    with pytest.raises(UserError, match="class_rows"):
        trainer.fine_tune(
            plan, make_dataset(), folder, ledger, device="cpu", watcher=Watcher()
        )
    assert ledger.entries() == ()


@pytest.mark.parametrize(
    ("changes", "fits"),
    [({"moment_share": 0}, False), ({"moment_share": 0, "central_share": 0.1}, True),
     ({}, True)],
)  # fmt: skip
def test_nearest_needs_a_release(tmp_path, changes, fits):
    path = str(write_recipe(tmp_path, class_rows='"nearest"', **changes))
    if fits:
        assert load_recipe(path).class_rows == "nearest"
        return
    with pytest.raises(UserError, match="class rows must be fresh without"):
        load_recipe(path)


@pytest.mark.usefixtures("quick_accountant")
@pytest.mark.parametrize("how", ["fresh", "mean", "nearest"])
def test_training_starts_from_the_rows_chosen(
    tmp_path, folder, ledger, monkeypatch, how
):
    plan = make_plan(tmp_path, moments=True, class_rows=how)
    started = []

    def seen(plan, network, *_):
        started.append(network.state_dict()[LABEL_TABLE].clone())

    monkeypatch.setattr(warmup, "_learn", seen)
    trainer.fine_tune(
        plan, make_dataset(), folder, ledger, device="cpu", watcher=Watcher()
    )
    public = load_checkpoint(plan.checkpoint.folder).network.state_dict()[LABEL_TABLE]
    rows = started[0]
    match how:
        case "fresh":
            assert not torch.equal(rows[0], rows[1])
        case "mean":
            torch.testing.assert_close(rows, public.mean(dim=0).expand(2, -1))
        case "nearest":
            assert all((row == public).all(dim=1).any() for row in rows)
