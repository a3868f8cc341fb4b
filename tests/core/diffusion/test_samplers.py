"""Samplers: with a network that knows the answer they must find it; step by step they
are what diffusers' schedulers compute."""

from __future__ import annotations

import functools
import itertools

import diffusers
import pytest
import torch
from torch import nn

from core.diffusion import samplers
from core.diffusion.networks import adapt_classes
from core.diffusion.process import Process
from core.diffusion.samplers import (
    LAST_SIGMA,
    SAMPLERS,
    STILL,
    Churn,
    check_sampler,
    refine,
    sample,
)
from core.diffusion.schedules import DiscreteSchedule, LogNormalSchedule
from core.errors import UserError
from tests.core.tiny import CONFIG, make_network

OFF = torch.autocast("cpu", enabled=False)
PROCESSES = ["eps", "v", "vp", "ve", "edm", "eps-cosine-4000-rescaled", "v-tangent"]
CHURN = Churn(amount=20.0, from_sigma=0.05, to_sigma=50.0, noise=1.003)


def draw(network, process: str, sampler: str, steps: int, seed: int = 0, **more):
    return sample(
        network,
        more.pop("labels", torch.tensor([0, 2])),
        process=Process.parse(process),
        sampler=sampler,
        steps=steps,
        autocast=OFF,
        generator=torch.Generator().manual_seed(seed),
        **more,
    )


class Oracle(nn.Module):
    """Knows the one image there is, and predicts exactly what the process asks."""

    def __init__(self, truth: torch.Tensor, process: str) -> None:
        super().__init__()
        self.config, self.truth = CONFIG, truth
        self.process = Process.parse(process)
        timesteps = torch.linspace(0, 1000, 20_001, dtype=torch.float64)[:-1]
        self.sigmas = self.process.schedule.sigma(timesteps)
        self.times = self.process.schedule.time(self.sigmas).float()

    def forward(self, inputs, times, labels):
        nearest = (self.times[None] - times[:, None]).abs().argmin(dim=1)
        sigma = self.sigmas[nearest]
        by = self.process.coefficients(sigma)
        skip, out, scale = (
            w.float().view(-1, 1, 1, 1) for w in (by.skip, by.out, by.scale)
        )
        return (self.truth - skip / scale * inputs) / out


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    ("sampler", "steps", "more"),
    [
        ("ddim", 12, {}),
        ("ddim-stochastic", 100, {}),
        ("dpm-solver++", 12, {}),
        ("euler-maruyama", 400, {}),
        ("ancestral", 100, {}),
        ("heun", 12, {}),
        ("heun", 40, {"churn": CHURN}),
    ],
)
def test_finds_the_image_that_the_oracle_knows(sampler, steps, more, process):
    truth = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    found = draw(Oracle(truth, process), process, sampler, steps, **more)
    assert found.shape == (2, 3, 8, 8)
    assert float((found - truth).abs().max()) < 0.06


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("process", ["v", "edm"])
def test_each_runs_with_a_network_and_repeats_for_the_same_seed(sampler, process):
    network = make_network()
    first = draw(network, process, sampler, 3)
    assert torch.isfinite(first).all()
    assert torch.equal(first, draw(network, process, sampler, 3))
    assert not torch.equal(first, draw(network, process, sampler, 3, seed=1))


CHAIN = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02,
    "beta_schedule": "linear", "timestep_spacing": "trailing",
}  # fmt: skip


def by_diffusers(network, scheduler, steps: int, start):
    """The same steps, by diffusers."""
    scheduler.set_timesteps(steps)
    images, labels = start, torch.tensor([0, 2])
    for timestep in scheduler.timesteps:
        answer = network(images, torch.full((2,), int(timestep)), labels)
        images = scheduler.step(answer, timestep, images).prev_sample
    return images


@pytest.mark.parametrize(
    ("process", "prediction"), [("eps", "epsilon"), ("v", "v_prediction")]
)
@pytest.mark.parametrize(
    ("sampler", "make"),
    [
        (
            "ddim",
            lambda more: diffusers.DDIMScheduler(
                **more, clip_sample=True, set_alpha_to_one=True
            ),
        ),
        (
            "dpm-solver++",
            lambda more: diffusers.DPMSolverMultistepScheduler(
                **more, algorithm_type="dpmsolver++", solver_order=2
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__")
def test_deterministic_samplers_equal_diffusers(sampler, make, process, prediction):
    # A divisor of 1,000: DDIMScheduler takes the wrong step before for any other.
    network = make_network()
    found = draw(network, process, sampler, 10)
    start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    # We start from σ·ε, which is 2e-5 less than diffusers' ε, scaled as here.
    start *= (1 - 4.036e-5) ** 0.5
    scheduler = make(CHAIN | {"prediction_type": prediction})
    with torch.no_grad():
        expected = by_diffusers(network, scheduler, 10, start)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(
    ("sampler", "make", "more"),
    [
        ("ancestral", lambda: diffusers.DDPMScheduler(**CHAIN, clip_sample=True), {}),
        (
            "ddim-stochastic",
            lambda: diffusers.DDIMScheduler(
                **CHAIN, clip_sample=True, set_alpha_to_one=True
            ),
            {"eta": 1.0},
        ),
    ],
)
def test_stochastic_samplers_equal_diffusers(sampler, make, more):
    """Both draw the same normal numbers in the same order."""
    network = make_network()
    found = draw(network, "eps", sampler, 10)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 8, 8, generator=generator)
    scheduler = make()
    scheduler.set_timesteps(10)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            answer = network(images, torch.full((2,), timestep), torch.tensor([0, 2]))
            images = scheduler.step(
                answer, timestep, images, generator=generator, **more
            ).prev_sample
    torch.testing.assert_close(found, images, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("steps", "expected"), [(50, 0.5265), (1000, 0.5012)])
def test_euler_maruyama_spreads_as_the_published_steps_do(steps, expected):
    """Of pixels N(0, 0.5²), for which D is known; in closed form, step by step."""
    levels = LogNormalSchedule().levels(steps).tolist()
    spread, variance = 0.5**2, levels[0] ** 2
    for now, after in itertools.pairwise(levels):
        kept = 1 + 2 * (after - now) / now * (1 - spread / (spread + now**2))
        variance = kept**2 * variance + 2 * (now - after) * now
    variance *= (spread / (spread + levels[-1] ** 2)) ** 2
    assert variance**0.5 == pytest.approx(expected, abs=1e-4)
    generator = torch.Generator().manual_seed(0)
    noise = functools.partial(torch.randn, 40_000, generator=generator)
    found = samplers._euler_maruyama(
        samplers._Draw(
            denoise=lambda images, sigma: spread / (spread + sigma**2) * images,
            noise=noise,
            sigmas=tuple(levels),
            churn=STILL,
        ),
        levels[0] * noise(),
    )
    assert float(found.std()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("sampler", sorted(samplers.SAMPLERS))
@pytest.mark.parametrize("count", [1000, 4000])
def test_a_cosine_chain_forgives_a_network_that_is_not_perfect(sampler, count):
    """ε of pixels N(0, 0.5²), wrong by 1 %: 200 pixel ranges at the chain's end.

    What is wrong there, no sampler that does not hold its images in the range takes
    back.
    """
    spread, generator = 0.5**2, torch.Generator().manual_seed(0)
    noise = functools.partial(torch.randn, 20_000, generator=generator)
    levels = DiscreteSchedule("cosine", count).levels(100).tolist()
    found = samplers.SAMPLERS[sampler](
        samplers._Draw(
            denoise=lambda images, sigma: (
                spread / (spread + sigma**2) * images + 0.01 * sigma * noise()
            ),
            noise=noise,
            sigmas=tuple(levels),
            churn=STILL,
        ),
        levels[0] * noise(),
    )
    assert float(found.std()) == pytest.approx(0.5, abs=0.06)


def test_heun_equals_the_published_algorithm():
    """Karras et al. 2022, algorithm 2, written out for a denoiser in one variable."""
    levels = (10.0, 3.0, 0.5)
    normals = torch.randn(8, 1, generator=torch.Generator().manual_seed(3))

    def denoise(images, sigma):
        return torch.tanh(images) / (1 + sigma)

    drawn = iter(normals)
    found = samplers._heun(
        samplers._Draw(
            denoise=denoise,
            noise=lambda: next(drawn),
            sigmas=levels,
            churn=Churn(amount=0.9, from_sigma=1.0, to_sigma=5.0, noise=1.1),
        ),
        torch.tensor([7.0]),
    )
    x, unused = torch.tensor([7.0]), iter(normals)
    for now, after in ((10.0, 3.0), (3.0, 0.5), (0.5, 0.0)):
        gamma = min(0.9 / 3, 2**0.5 - 1) if 1.0 <= now <= 5.0 else 0.0
        hat = now * (1 + gamma)
        if gamma:
            x = x + (hat**2 - now**2) ** 0.5 * 1.1 * next(unused)
        d = (x - denoise(x, hat)) / hat
        moved = x + (after - hat) * d
        if after:
            d2 = (moved - denoise(moved, after)) / after
            moved = x + (after - hat) * (d / 2 + d2 / 2)
        x = moved
    torch.testing.assert_close(found, x)


class TwoMinds(nn.Module):
    """Predicts one constant with a class and another without."""

    config = adapt_classes(
        make_network(), 2, generator=torch.Generator(), null_class=True
    ).config

    def forward(self, inputs, times, labels):
        value = torch.where(labels == self.config.null_label, 0.1, 0.3)
        return value.view(-1, 1, 1, 1).expand_as(inputs)


@pytest.mark.parametrize(("guidance", "expected"), [(0.0, 0.3), (1.0, 0.5), (2.5, 0.8)])
def test_guidance_goes_beyond_the_class(guidance, expected):
    """One step of v: D = x/(1+σ²) − σ/√(1+σ²)·F ≈ −F at the noisiest level."""
    found = draw(
        TwoMinds(), "v", "ddim", 1, guidance=guidance, labels=torch.tensor([0, 1])
    )
    assert found.mean().item() == pytest.approx(-expected, abs=0.01)


def test_guidance_needs_a_null_class():
    with pytest.raises(UserError, match="guided"):
        draw(make_network(), "v", "ddim", 1, guidance=1.0)


class Small(nn.Module):
    """A network on a card with memory for so many rows."""

    def __init__(self, network: nn.Module, rows: int) -> None:
        super().__init__()
        self.network, self.rows, self.config = network, rows, network.config
        self.asked: list[int] = []

    def forward(self, inputs, times, labels):
        self.asked.append(len(inputs))
        if len(inputs) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.network(inputs, times, labels)


@pytest.mark.parametrize(("rows", "guidance"), [(3, 0.0), (1, 0.0), (2, 1.0)])
def test_when_memory_runs_out_fewer_rows_at_a_time_give_the_same(rows, guidance):
    network = adapt_classes(
        make_network(), 3, generator=torch.Generator(), null_class=True
    )
    wishes = {"labels": torch.tensor([0, 2, 1, 1, 0]), "guidance": guidance}
    small = Small(network, rows)
    images = draw(small, "v", "ddim", 3, **wishes)
    torch.testing.assert_close(images, draw(network, "v", "ddim", 3, **wishes))
    # Once it is known how many go through, no more are tried.
    tries = [asked for asked in small.asked if asked > rows]
    assert tries == small.asked[: len(tries)]


def test_no_memory_for_one_image_is_said():
    with pytest.raises(UserError, match="single image"):
        draw(Small(make_network(), 0), "v", "ddim", 3)


def test_another_error_of_the_network_is_not_taken_for_it():
    class Broken(nn.Module):
        config = CONFIG

        def forward(self, *_):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        draw(Broken(), "v", "ddim", 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "ddmi"}, "sampler"),
        ({"steps": 0}, "sampler"),
        ({"steps": 1001}, "sampler"),
        ({"guidance": -0.5}, "Guidance"),
        ({"guidance": float("nan")}, "Guidance"),
        ({"churn": CHURN}, "heun"),
        ({"name": "heun", "churn": Churn(amount=-1.0)}, "Churn"),
        ({"name": "heun", "churn": Churn(amount=1.0, noise=0.0)}, "Churn"),
        ({"name": "heun", "churn": Churn(from_sigma=60.0)}, "Churn"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, named):
    with pytest.raises(UserError, match=named):
        check_sampler(**({"name": "ddim", "steps": 5} | changes))


def test_settings_that_make_sense_are_taken():
    check_sampler("heun", 1000, 0.0, CHURN)
    check_sampler("ddim", 1, 3.0, STILL)


def refined(network, images, process: str, sigma: float, steps: int, labels=(0, 2)):
    return refine(
        network, images, torch.tensor(labels), process=Process.parse(process),
        sigma=sigma, steps=steps, autocast=OFF,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES)
def test_refining_finds_what_the_network_knows(process):
    truth = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    wrong = torch.zeros(2, 3, 8, 8)
    found = refined(Oracle(truth, process), wrong, process, sigma=1.0, steps=6)
    torch.testing.assert_close(found, truth, atol=0.03, rtol=0)


class Listening(nn.Module):
    """Notes what it is shown, and answers that it is all noise ("eps")."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.shown, self.labels = CONFIG, [], []

    def forward(self, inputs, times, labels):
        self.shown.append(inputs)
        self.labels.append(labels)
        return torch.zeros_like(inputs)


def test_refining_adds_the_noise_it_says_and_goes_down_in_even_steps():
    network, images = Listening(), torch.full((2, 3, 8, 8), 0.5)
    refined(network, images, "ve", sigma=0.25, steps=4, labels=(2, 1))
    assert len(network.shown) == 4
    assert all(labels.tolist() == [2, 1] for labels in network.labels)
    noise = network.shown[0] - 0.5
    assert noise.mean().abs() < 0.05
    assert noise.std().item() == pytest.approx(0.25, rel=0.15)


def test_the_levels_of_refining(monkeypatch):
    seen = []

    def listen(draw, images):
        seen.extend(draw.sigmas)
        return images

    monkeypatch.setattr(samplers, "_ddim", listen)
    refined(Listening(), torch.zeros(2, 3, 8, 8), "edm", sigma=0.64, steps=6)
    assert seen[0] == pytest.approx(0.64) and seen[-1] == pytest.approx(LAST_SIGMA)
    ratios = [one / other for one, other in itertools.pairwise(seen)]
    assert ratios == pytest.approx([2.0] * 5)
