"""Public features: of the right shape, bounded in number, and those of the paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.errors import UserError
from core.parallel import choose_hardware
from core.training.features import in_chunks, scattering


def pictures(count: int, channels: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.rand(count, channels, side, side, generator=generator) * 2 - 1


@pytest.mark.parametrize(
    ("side", "channels", "features"),
    [(28, 1, 81 * 49), (32, 1, 81 * 64), (32, 3, 115 * 64), (64, 3, 115 * 64),
     (8, 3, 115 * 4), (4, 1, 81)],
)  # fmt: skip
def test_the_number_of_features_is_bounded(side, channels, features):
    seen = scattering(side, channels)(pictures(2, channels, side))
    assert seen.shape == (2, features) and bool(torch.isfinite(seen).all())


def test_a_resolution_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="divisible by 4, not 30"):
        scattering(30, 1)


def test_waves_answer_to_their_own_direction_and_scale_and_to_no_level():
    """The spectrum of ψ is largest at ξ = 3π/4·2^-j along its angle, and 0 at 0."""
    fine = scattering(32, 1).fine
    frequencies = torch.fft.fftfreq(36) * 2 * math.pi
    assert float(fine[:, 0, 0].abs().max()) < 1e-6
    for number, spectrum in enumerate(fine):
        at = divmod(int(spectrum.argmax()), 36)
        y, x = float(frequencies[at[0]]), float(frequencies[at[1]])
        expected = 0.75 * math.pi / 2 ** (number // 8)
        assert math.hypot(x, y) == pytest.approx(expected, rel=0.2)
        angle = (3 - number % 8) * math.pi / 8
        off = abs(math.remainder(math.atan2(y, x) - angle, 2 * math.pi))
        assert off < 0.3, (number, off)


def test_order_zero_is_the_average_of_the_cells():
    step = torch.full((1, 1, 32, 32), -1.0)
    step[..., 16:] = 1
    windows = scattering(32, 1).windows
    level = windows @ torch.nn.functional.pad((step + 1) / 2, (2,) * 4,
                                              mode="reflect") @ windows.T  # fmt: skip
    assert torch.allclose(windows.sum(dim=1), torch.ones(8))
    assert float(level[..., :2].max()) < 0.05 and float(level[..., -2:].min()) > 0.95


def test_an_image_is_normalised_by_itself():
    """Its company does not change what is seen of it."""
    transform, images = scattering(32, 1), pictures(6, 1, 32)
    seen = transform(images)
    torch.testing.assert_close(transform(images[2:3])[0], seen[2])
    groups = seen.view(6, 27, -1)
    assert float(groups.mean(dim=2).abs().max()) < 1e-4
    assert float(groups.var(dim=2, correction=0).max()) < 1 + 1e-3


def test_colours_are_seen():
    transform = scattering(8, 3)
    red = pictures(1, 1, 8).expand(1, 3, 8, 8).clone()
    grey = transform(red)
    red[:, 0] *= 0.5
    assert not torch.allclose(transform(red), grey, atol=0.1)
    # Without colour the contrasts are empty.
    assert float(grey[:, 81 * 4 :].abs().max()) < 0.05


@pytest.mark.parametrize("threads", [1, 3])
def test_portions_come_back_in_order(threads, monkeypatch):
    monkeypatch.setattr("core.training.features.CHUNK_PIXELS", 2 * 8 * 8)
    hardware = replace(choose_hardware("cpu"), threads=threads)
    images, transform = pictures(7, 1, 8), scattering(8, 1)
    expected = transform(images)
    torch.testing.assert_close(in_chunks(transform, images, hardware), expected)
