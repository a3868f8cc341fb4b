"""The parameterisations: each against the formula in its own paper."""

from __future__ import annotations

import math

import pytest
import torch

from core.diffusion import ema
from core.diffusion.objective import mean_loss
from core.diffusion.process import Parameterisation, Process, check_process
from core.diffusion.timesteps import UNIFORM
from core.diffusion.views import make_views
from core.errors import UserError
from tests.core.tiny import make_network

OFF = torch.autocast("cpu", enabled=False)
NAMES = [
    "eps",
    "v",
    "vp",
    "ve",
    "edm",
    "eps-cosine-4000-rescaled",
    "v-log-normal",
    "v-tangent",
]


def case():
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(6, 3, 4, 4, generator=generator) for _ in range(2))
    return clean, noise, torch.tensor([0.0, 1.0, 100.2, 500.5, 900.0, 999.9])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_the_process_back(name):
    assert Process.parse(name).name == name


@pytest.mark.parametrize("kind", list(Parameterisation))
def test_the_usual_schedule_goes_without_saying(kind):
    usual = Process.usual(kind)
    assert usual.name == kind.value
    assert Process.parse(f"{kind.value}-{usual.schedule.name}") == usual


@pytest.mark.parametrize("name", ["", "x0", "eps-", "eps-sine-1000", "-linear-1000"])
def test_a_name_of_no_process_is_refused(name):
    if name == "eps-":
        assert Process.parse(name).name == "eps"
        return
    with pytest.raises(UserError, match="unknown"):
        Process.parse(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_target_makes_the_denoised_image_the_clean_one(name):
    """D(x; σ) = c_skip·x + c_out·F (Karras et al. 2022, eq. 7), with F = the target."""
    process = Process.parse(name)
    clean, noise, timesteps = case()
    noisy = process.diffuse(clean, noise, timesteps)
    sigma = process.schedule.sigma(timesteps.double())
    by = process.coefficients(sigma)
    column = [w.view(-1, 1, 1, 1) for w in (by.skip, by.out, by.scale, sigma)]
    skip, out, scale, spread = column
    images = clean.double() + spread * noise
    torch.testing.assert_close(noisy.inputs.double(), scale * images, atol=1e-5, rtol=0)
    found = skip * images + out * noisy.target.double()
    error = (found - clean).abs().amax(dim=(1, 2, 3))
    # The network's answer is float32, so a very noisy image keeps that much of it.
    assert (error < 1e-5 + 1e-6 * sigma).all()
    torch.testing.assert_close(noisy.times, process.schedule.time(sigma).float())
    assert noisy.times.dtype is noisy.target.dtype is torch.float32


def test_the_discrete_targets_are_the_published_ones():
    """Ho et al. 2020, eq. 4 and 14; Salimans & Ho 2022, sec. 4."""
    clean, noise, timesteps = case()
    process = Process.parse("eps")
    signal = 1 / (1 + process.schedule.sigma(timesteps.double()).square())
    scale, spread = (part.float().view(-1, 1, 1, 1) for part in
                     (signal.sqrt(), (1 - signal).sqrt()))  # fmt: skip
    for name, target in (("eps", noise), ("v", scale * noise - spread * clean)):
        noisy = Process.parse(name).diffuse(clean, noise, timesteps)
        torch.testing.assert_close(noisy.inputs, scale * clean + spread * noise)
        torch.testing.assert_close(noisy.target, target)
        assert noisy.times.tolist() == [0, 1, 100, 500, 900, 999]


def test_ve_is_given_the_image_as_it_is():
    """Song et al. 2021, eq. 9: x_t = x_0 + σ·ε."""
    clean, noise, timesteps = case()
    process = Process.parse("ve")
    noisy = process.diffuse(clean, noise, timesteps)
    sigma = process.schedule.sigma(timesteps.double()).float().view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy.inputs, clean + sigma * noise)
    torch.testing.assert_close(noisy.target, -noise)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 80.0])
def test_edm_has_unit_variance_in_and_out(sigma):
    """Karras et al. 2022, appendix B.6: inputs and targets have variance 1."""
    generator = torch.Generator().manual_seed(1)
    clean = (torch.rand(40_000, generator=generator) * 2 - 1).double()
    noise = torch.randn(40_000, generator=generator).double()
    by = Process.parse("edm").coefficients(torch.tensor(sigma, dtype=torch.float64))
    images = clean + sigma * noise
    target = (clean - by.skip * images) / by.out
    assert abs((by.scale * images).std().item() - 1) < 0.02
    assert abs(target.std().item() - 1) < 0.02
    spread = math.sqrt(1 / 3)
    assert by.skip.item() == pytest.approx(spread**2 / (sigma**2 + spread**2))


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        # λ(σ) of Karras et al. 2022, Table 1.
        ("vp", lambda sigma: 1 / sigma**2),
        ("ve", lambda sigma: 1 / sigma**2),
        ("edm", lambda sigma: (sigma**2 + 1 / 3) / (sigma**2 / 3)),
        # ‖ε − ε_θ‖² and ‖v − v_θ‖² written as errors of the clean image.
        ("eps", lambda sigma: 1 / sigma**2),
        ("v", lambda sigma: 1 + 1 / sigma**2),
    ],
)
def test_the_loss_is_the_weighted_error_of_the_denoised_image(name, weight):
    process, network = Process.parse(name), make_network()
    views = make_views(
        torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), multiplicity=2,
        timesteps=UNIFORM, flip=False, generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    with torch.no_grad():
        loss = mean_loss(network, views, process, OFF).item()
        sigma = process.schedule.sigma(views.timesteps)
        by = process.coefficients(sigma)
        skip, out, scale, spread = (
            w.float().view(-1, 1, 1, 1) for w in (by.skip, by.out, by.scale, sigma)
        )
        images = views.clean + spread * views.noise
        times = process.schedule.time(sigma).float()
        clean = skip * images + out * network(scale * images, times, views.labels)
    error = (clean - views.clean).square().mean(dim=(1, 2, 3))
    assert loss == pytest.approx((weight(sigma) * error).mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("trained", "wanted"),
    [
        ("v", ""),
        ("eps", "eps"),
        ("eps-cosine-4000", "eps"),
        ("eps-cosine-4000", "eps-cosine-4000"),
        ("eps", "eps-linear-1000"),
    ],
)
def test_a_recipe_that_fits_the_checkpoint_is_taken(trained, wanted):
    check_process("x", trained, wanted)


@pytest.mark.parametrize(
    ("trained", "wanted"),
    [("v", "eps"), ("eps-cosine-4000", "eps-linear-1000"), ("edm", "v-log-normal")],
)
def test_a_recipe_that_contradicts_the_checkpoint_is_refused(trained, wanted):
    with pytest.raises(UserError, match=f"{wanted!r}.*'mine'.*{trained!r}"):
        check_process("mine", trained, wanted)


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
