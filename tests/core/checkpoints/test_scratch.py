"""Untrained networks are checkpoints by name, the same ones every time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.checkpoints import catalogue, scratch
from core.checkpoints.store import load_checkpoint
from core.diffusion.presets import DPDM_GREY
from core.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_name_makes_the_network_once(home, monkeypatch):
    card = catalogue.find("scratch-dpdm-grey-edm")
    again = catalogue.find("scratch-dpdm-grey-edm")
    assert card == again and card in catalogue.available()
    assert (card.parameterisation, card.steps, card.resolution) == ("edm", 0, 28)
    assert card.image_channels == 1
    made = load_checkpoint(card.folder).network
    assert made.config == DPDM_GREY
    # Another user's is the same, bit for bit.
    monkeypatch.setenv("SFUMATO_HOME", str(home.parent / "other"))
    other = catalogue.find("scratch-dpdm-grey-edm")
    assert other.folder != card.folder and other.sha256 == card.sha256
    # Labels start as far apart as an embedding of their own would have them.
    rows = made.unet.class_embedding.weight.detach()
    assert 0.9 < float(rows.std()) < 1.1
    assert list((home / "checkpoints").iterdir()) == [card.folder]


def test_a_preset_that_changed_is_made_anew_and_the_old_network_kept(monkeypatch):
    """A project that was planned with it, and names its folder, goes on with it."""
    old = catalogue.find("scratch-dpdm-grey-edm")
    changed = replace(DPDM_GREY, groups=16)
    monkeypatch.setitem(scratch.PRESETS, "dpdm-grey", changed)
    new = catalogue.find(old.name)
    assert load_checkpoint(new.folder).network.config == changed
    assert load_checkpoint(old.folder).network.config == DPDM_GREY
    # Both have one name, which gives the new one: the old is offered no more.
    listed = [card for card in catalogue.available() if card.name == old.name]
    assert listed == [new]


def test_making_one_leaves_the_random_numbers_as_they_were():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    catalogue.find("scratch-dpdm-grey-v-log-normal")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "name", ["scratch-", "scratch-dpdm-grey", "scratch-big-edm", "scratch-dpdm-grey-x0"]
)
def test_a_network_that_does_not_exist_is_named(name):
    with pytest.raises(UserError, match=r"scratch|parameterisation"):
        catalogue.find(name)
