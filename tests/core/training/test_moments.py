"""The moment release: two charged sums, read only once they are paid for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.events import Watcher
from core.privacy.accounting import Charge
from core.privacy.budget import PrivacyUnit
from core.training import moments as room
from core.training.moments import (
    MomentRelease,
    load_moments,
    public_basis,
    release_moments,
    save_moments,
)
from core.training.sums import NoisySums
from core.training.units import group_units
from tests.core.tiny import make_dataset, patients

RELEASE = MomentRelease(
    classes=2,
    frequencies=(3, 2),
    mean_norm=20.0,
    norm=20.0,
    means_noise=1e-3,
    squares_noise=1e-3,
    noise_edge=0.75,
    residual=False,
)


def released(units, release=RELEASE, commit=lambda _: None):
    return release_moments(release, units, sums=NoisySums(commit), watcher=Watcher())


@pytest.mark.parametrize(("channels", "columns"), [(1, 9), (3, 9 + 4 + 4)])
def test_basis_is_orthonormal_and_public(channels, columns):
    basis = public_basis(8, channels, (3, 2))
    assert basis.shape == (channels * 64, columns)
    torch.testing.assert_close(basis.T @ basis, torch.eye(columns), atol=1e-5, rtol=0)


def test_charges_come_first_and_nothing_is_read_before(monkeypatch):
    order = []
    units = group_units(make_dataset(40), PrivacyUnit())
    draw = room.UnitImages.draw

    def drawing(self, unit):
        order.append("read")
        return draw(self, unit)

    monkeypatch.setattr(room.UnitImages, "draw", drawing)
    released(units, commit=order.append)
    assert order[0] == Charge(noise_multiplier=1e-3, count=1)
    assert order[1:41] == ["read"] * 40
    assert order[41:] == [Charge(noise_multiplier=1e-3, count=1)]


def test_with_little_noise_the_pseudo_images_look_like_the_classes():
    dataset = make_dataset(200)
    units = group_units(dataset, PrivacyUnit())
    moments = released(units)
    drawn = moments.draw(torch.arange(400) % 2, torch.Generator().manual_seed(0))
    assert drawn.shape == (400, 3, 8, 8) and drawn.abs().max() <= 1
    for label in (0, 1):
        real = dataset.images[dataset.labels == label].mean() / 127.5 - 1
        assert abs(float(drawn[label::2].mean()) - real) < 0.05


def test_a_patients_weights_add_up_to_one():
    units = group_units(make_dataset(20, patients=3), patients(4))
    basis = public_basis(8, 3, (3, 2))
    data = room._contributions(units, basis, 2, Watcher())
    assert len(data.weights) == 12
    assert np.allclose(data.weights.numpy(), 0.25)


def test_much_noise_leaves_a_factor_of_zero_not_of_noise():
    units = group_units(make_dataset(20), PrivacyUnit())
    loud = MomentRelease(**(vars(RELEASE) | {"squares_noise": 1e3, "noise_edge": 2.0}))
    moments = released(units, loud)
    assert torch.equal(moments.factors, torch.zeros_like(moments.factors))
    assert torch.equal(moments.residuals, torch.zeros_like(moments.residuals))


def test_moments_survive_the_disk(tmp_path):
    units = group_units(make_dataset(20), PrivacyUnit())
    moments = released(units)
    save_moments(moments, tmp_path / "moments.safetensors")
    again = load_moments(tmp_path / "moments.safetensors")
    assert again.shape == (3, 8, 8)
    for name in ("basis", "means", "factors", "residuals"):
        assert torch.equal(getattr(again, name), getattr(moments, name))
