"""Samplers: with a network that knows the answer they must find it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.diffusion.process import Parameterisation, cumulative_signal
from core.diffusion.samplers import SAMPLERS, check_sampler, sample
from core.errors import UserError
from tests.core.tiny import CONFIG, make_network

OFF = torch.autocast("cpu", enabled=False)


class Oracle(nn.Module):
    """Knows the one image there is, and predicts exactly."""

    def __init__(self, truth: torch.Tensor, predicts: Parameterisation) -> None:
        super().__init__()
        self.config, self.truth, self.predicts = CONFIG, truth, predicts

    def forward(self, noisy, timesteps, labels):
        signal = cumulative_signal()[timesteps].view(-1, 1, 1, 1)
        scale, sigma = signal.sqrt(), (1 - signal).sqrt()
        noise = (noisy - scale * self.truth) / sigma
        if self.predicts is Parameterisation.NOISE:
            return noise
        return scale * noise - sigma * self.truth


@pytest.mark.parametrize("predicts", list(Parameterisation))
@pytest.mark.parametrize(
    ("sampler", "steps", "tolerance"),
    [("ddim", 10, 1e-2), ("dpm-solver++", 10, 5e-2), ("ancestral", 100, 5e-2)],
)
def test_finds_the_image_that_the_oracle_knows(sampler, steps, tolerance, predicts):
    truth = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    found = sample(
        Oracle(truth, predicts),
        torch.zeros(2, dtype=torch.long),
        parameterisation=predicts,
        sampler=sampler,
        steps=steps,
        autocast=OFF,
        generator=torch.Generator().manual_seed(0),
    )
    assert found.shape == (2, 3, 8, 8)
    assert float((found - truth).abs().max()) < tolerance


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_each_runs_with_a_network_and_repeats_for_the_same_seed(sampler):
    network = make_network()

    def draw(seed: int) -> torch.Tensor:
        return sample(
            network,
            torch.tensor([0, 2]),
            parameterisation=Parameterisation.VELOCITY,
            sampler=sampler,
            steps=3,
            autocast=OFF,
            generator=torch.Generator().manual_seed(seed),
        )

    first = draw(0)
    assert torch.isfinite(first).all()
    assert torch.equal(first, draw(0))
    assert not torch.equal(first, draw(1))


@pytest.mark.parametrize(("name", "steps"), [("ddmi", 5), ("ddim", 0), ("ddim", 1001)])
def test_unknown_samplers_and_steps_are_refused(name, steps):
    with pytest.raises(UserError, match="sampler"):
        check_sampler(name, steps)
