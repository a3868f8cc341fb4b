"""Public training goes on where it was stopped, to the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.diffusion.process import Parameterisation, Process
from core.diffusion.timesteps import UNIFORM
from core.errors import Stopped
from core.events import Watcher
from core.parallel import Hardware, workers
from core.training import public
from core.training.distributed import Crew
from core.training.public import PublicTraining, train
from tests.core.tiny import make_network

CPU = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=1)
STEPS = 5


def batch(count, generator):
    images = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    return images, torch.randint(3, (count,), generator=generator)


TRAINING = PublicTraining(
    steps=STEPS,
    batch_size=4,
    learning_rate=1e-3,
    warmup_steps=2,
    ema_decay=0.9,
    timesteps=UNIFORM,
    flip=True,
)


def run(state=None, watcher=None):
    network = make_network()
    losses = train(
        network,
        batch,
        TRAINING,
        process=Process.usual(Parameterisation.VELOCITY),
        hardware=CPU,
        activity="Learning",
        watcher=watcher or Watcher(),
        state=state,
    )
    return losses, torch.cat([p.detach().flatten() for p in network.parameters()])


def stop_after(step: int) -> tuple[Watcher, list[int]]:
    done: list[int] = []
    watcher = Watcher(
        report=lambda progress: done.append(progress.done),
        stop_requested=lambda: len(done) >= step,
    )
    return watcher, done


@pytest.mark.parametrize("step", [1, 3, STEPS])
def test_a_pause_loses_nothing(tmp_path, step):
    state = tmp_path / "warm-up.safetensors"
    watcher, done = stop_after(step)
    with pytest.raises(Stopped):
        run(state, watcher)
    assert done == list(range(1, step + 1))
    watcher, again = stop_after(STEPS + 1)
    losses, weights = run(state, watcher)
    assert again == list(range(step + 1, STEPS + 1))
    whole, expected = run()
    assert losses == pytest.approx(whole, rel=1e-6) and len(losses) == STEPS
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-7)


def test_how_weights_lie_in_memory_changes_speed_alone(monkeypatch):
    """They are saved and exchanged in the usual way."""
    _, found = run()
    monkeypatch.setattr(Hardware, "layout", torch.contiguous_format)
    # Adam makes more of how sums are rounded; another step makes 1e-3 and more.
    torch.testing.assert_close(found, run()[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "precision", "layout"),
    [
        ("cpu", torch.float32, torch.channels_last),
        ("cpu", torch.bfloat16, torch.contiguous_format),
        ("cuda", torch.float32, torch.contiguous_format),
    ],
)
def test_weights_lie_otherwise_where_that_measured_faster(device, precision, layout):
    hardware = replace(CPU, device=torch.device(device), precision=precision)
    assert hardware.layout is layout


def test_weights_lie_as_usual_after_training():
    network, lying = make_network(), []
    weight = network.unet.conv_in.weight
    network.register_forward_pre_hook(lambda *_: lying.append(weight.is_contiguous()))
    train(
        network, batch, TRAINING, process=Process.usual(Parameterisation.VELOCITY),
        hardware=CPU, activity="Learning", watcher=Watcher(),
    )  # fmt: skip
    assert lying == [False] * STEPS
    assert all(p.is_contiguous() for p in network.parameters())


def test_a_crash_loses_only_what_was_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(public, "STATE_EVERY", 2)
    state = tmp_path / "state.safetensors"
    seen = []

    def report(progress):
        seen.append(progress.done)
        if progress.done == 4 and len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(state, Watcher(report=report))
    _, weights = run(state, Watcher(report=report))
    assert seen == [1, 2, 3, 4, 3, 4, 5]
    torch.testing.assert_close(weights, run()[1], rtol=0, atol=1e-7)


def test_a_batch_of_any_size_goes_through_the_network_a_portion_at_a_time(monkeypatch):
    """Memory holds a portion, not what a large batch needs."""
    network, seen = make_network(), []
    network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))

    def gradients(pixels):
        monkeypatch.setattr(public, "PIXELS_AT_ONCE", pixels)
        generator = torch.Generator().manual_seed(0)
        with workers(CPU) as pool:
            return public._gradients(
                network, list(network.parameters()), *batch(7, generator), TRAINING,
                Process.usual(Parameterisation.VELOCITY), CPU, pool, generator, Crew(),
            )  # fmt: skip

    loss, whole = gradients(8 * 8 * 100)
    assert seen == [7]
    again, portions = gradients(8 * 8 * 3)
    assert seen == [7, 3, 3, 1]
    assert again == pytest.approx(loss, rel=1e-6)
    for one, other in zip(whole, portions, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_damaged_state_is_begun_again(tmp_path):
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"half a file")
    assert torch.equal(run(state)[1], run()[1])


@pytest.mark.parametrize("tensors", [("step", "9.weight"), ("0.weight",)])
def test_a_state_that_is_not_whole_is_begun_again(tmp_path, tensors):
    """Nothing of it is taken over before all of it is read."""
    state = tmp_path / "state.safetensors"
    with pytest.raises(Stopped):
        run(state, stop_after(2)[0])
    held = {name: kept.clone() for name, kept in load_file(state).items()}
    for name in tensors:
        del held[name]
    save_file(held, state)
    assert torch.equal(run(state)[1], run()[1])


@pytest.mark.parametrize(("norm", "left"), [(0.0, 5), (0.5, 0.5), (1.0, 1), (9.0, 5)])
def test_gradients_are_reduced_to_the_norm_that_is_asked_for(norm, left):
    parameters = [
        torch.zeros(2, requires_grad=True),
        torch.zeros(1, requires_grad=True),
    ]
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    training = replace(TRAINING, gradient_norm=norm)
    public._update(parameters, gradients, torch.optim.Adam(parameters), training, 0)
    found = torch.cat([parameter.grad for parameter in parameters]).norm()
    assert float(found) == pytest.approx(left, rel=1e-4)


def test_unless_it_is_said_the_norm_is_1():
    """As the bundled starter and every warm-up were trained."""
    assert TRAINING.gradient_norm == 1


def test_without_a_state_a_stop_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped):
        run(None, stop_after(1)[0])
    assert not list(tmp_path.iterdir())
