"""The forward process, its targets, the timesteps, the views and the average."""

from __future__ import annotations

import pytest
import torch

from core.diffusion import ema
from core.diffusion.process import (
    TIMESTEPS,
    Parameterisation,
    cumulative_signal,
    diffuse,
)
from core.diffusion.timesteps import UNIFORM, TimestepMixture
from core.diffusion.views import make_views, to_network, to_pixels
from core.errors import UserError


def test_signal_falls_from_one_to_almost_nothing():
    """Ho et al. 2020: β from 1e-4 to 0.02 in 1,000 steps; ᾱ_1000 = 4.04e-5."""
    signal = cumulative_signal()
    assert signal.shape == (TIMESTEPS,)
    assert signal[0].item() == pytest.approx(1 - 1e-4, abs=1e-7)
    assert signal[-1].item() == pytest.approx(4.036e-5, rel=1e-3)
    assert (signal.diff() < 0).all()


def test_targets_of_both_parameterisations_agree():
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(6, 3, 4, 4, generator=generator) for _ in range(2))
    times = torch.tensor([0, 1, 100, 500, 900, 999])
    noisy, target = diffuse(clean, noise, times, Parameterisation.NOISE)
    same, velocity = diffuse(clean, noise, times, Parameterisation.VELOCITY)
    assert torch.equal(noisy, same) and torch.equal(target, noise)
    signal = cumulative_signal()[times].view(-1, 1, 1, 1)
    scale, sigma = signal.sqrt(), (1 - signal).sqrt()
    # Salimans & Ho 2022, appendix D: x and ε back from v.
    torch.testing.assert_close(scale * noisy - sigma * velocity, clean)
    torch.testing.assert_close(sigma * noisy + scale * velocity, noise)
    # The noisy image has the variance of the process.
    torch.testing.assert_close(noisy, scale * clean + sigma * noise)


def test_mixture_has_the_shares_and_stays_within_the_bounds():
    mixture = TimestepMixture(weights=(0.1, 0.7, 0.2), bounds=(0, 30, 600, 1000))
    drawn = mixture.sample(60_000, torch.Generator().manual_seed(0))
    assert drawn.dtype is torch.int64
    assert (int(drawn.min()), int(drawn.max())) == (0, 999)
    for share, low, high in ((0.1, 0, 30), (0.7, 30, 600), (0.2, 600, 1000)):
        inside = drawn[(drawn >= low) & (drawn < high)]
        assert abs(len(inside) / 60_000 - share) < 0.01
        centre = (low + high - 1) / 2
        assert abs(float(inside.double().mean()) - centre) < 0.02 * (high - low)


def test_every_timestep_can_be_drawn():
    drawn = UNIFORM.sample(30_000, torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == TIMESTEPS


def test_a_rounded_up_product_stays_below_the_bound(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.ones(count))
    mixture = TimestepMixture(weights=(1.0, 0.0), bounds=(0, 10, 1000))
    assert mixture.sample(4, torch.Generator()).tolist() == [9] * 4


@pytest.mark.parametrize(
    ("weights", "bounds"),
    [
        ((0.5, 0.4), (0, 500, 1000)),
        ((0.5, 0.5), (0, 1000)),
        ((0.5, 0.5), (0, 0, 1000)),
        ((0.5, 0.5), (1, 500, 1000)),
        ((0.5, 0.5), (0, 500, 999)),
        ((1.5, -0.5), (0, 500, 1000)),
    ],
)
def test_a_mixture_that_is_none_is_refused(weights, bounds):
    with pytest.raises(UserError, match="mixture"):
        TimestepMixture(weights=weights, bounds=bounds)


def some_images() -> torch.Tensor:
    return torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_views_of_an_image_lie_together_and_keep_its_label():
    """A unit's views must be its own: an interleaving mistake mixes people."""
    images, labels = some_images(), torch.tensor([5, 7, 9])
    views = make_views(
        images, labels, multiplicity=4, timesteps=UNIFORM, flip=False,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert views.labels.tolist() == [5] * 4 + [7] * 4 + [9] * 4
    for index in range(12):
        assert torch.equal(views.clean[index], images[index // 4])
    assert len(views.timesteps.unique()) > 6
    assert views.noise.shape == views.clean.shape == (12, 2, 4, 4)
    assert not torch.equal(views.noise[0], views.noise[1])


def test_flip_mirrors_left_to_right_and_nothing_else():
    images = some_images()[:1]
    views = make_views(
        images, torch.zeros(1, dtype=torch.long), multiplicity=200, timesteps=UNIFORM,
        flip=True, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    mirrored = images[0].flip(-1)
    kept = [torch.equal(view, images[0]) for view in views.clean]
    turned = [torch.equal(view, mirrored) for view in views.clean]
    assert all(a != b for a, b in zip(kept, turned, strict=True))
    assert 60 < sum(turned) < 140


def test_split_leaves_nothing_out_and_changes_no_order():
    views = make_views(
        some_images(), torch.arange(3), multiplicity=3, timesteps=UNIFORM, flip=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    parts = list(views.split(4))
    assert [len(part.clean) for part in parts] == [4, 4, 1]
    for name in ("clean", "labels", "timesteps", "noise"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(views, name))


def test_pixels_survive_the_way_to_the_network_and_back():
    pixels = (
        torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    )
    inside = to_network(pixels)
    assert inside.shape == (1, 3, 16, 16)
    assert (float(inside.min()), float(inside.max())) == (-1, 1)
    assert torch.equal(to_pixels(inside), pixels)
    assert to_pixels(torch.tensor([[[[-9.0, 9.0]]]])).flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("step", "decay", "expected"),
    [(0, 0.9999, 0.1), (8, 0.9999, 0.5), (90, 0.9999, 0.91), (90, 0.8, 0.8)],
)
def test_average_forgets_the_start_soon(step, decay, expected):
    assert ema.decay_at(step, decay) == pytest.approx(expected)
    average, weight = [torch.tensor([1.0])], [torch.tensor([0.0])]
    ema.update(average, weight, step, decay)
    assert average[0].item() == pytest.approx(expected)
    assert weight[0].item() == 0
