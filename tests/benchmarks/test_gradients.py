"""Training with privacy beside training without, and beside Opacus, on the same images.

Rows (views) per second of the clipped sum, as the trainer computes it, against those of
plain gradients of the same network on as many images, each at its fastest setting on
this machine; in turn, so that the ratio holds when the machine's speed drifts. What is
done once per step (noise, Adam, average) is timed apart; the last column counts it in.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from core.checkpoints.starter import STARTER_NETWORK
from core.diffusion import ema
from core.diffusion.networks import DenoisingNetwork, build_network
from core.diffusion.presets import PAPER_COLOUR
from core.diffusion.process import Parameterisation, Process
from core.parallel import Hardware, choose_hardware, workers
from core.privacy.clipping import add_clipped
from core.privacy.gradients import tuner
from core.privacy.gradients.rows import Problem
from core.privacy.gradients.sums import PORTIONS, Pace, clipped_sums
from core.privacy.gradients.tuner import choose_pace
from core.privacy.noise import gaussian
from core.training.gradients import _problem, _random_rows

MULTIPLICITIES = (1, 2, 4, 8, 16, 32, 64, 128)
BATCH = 1024
"""Units per step, for what is done once a step."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, and on how many views it is timed."""

    name: str
    views: int
    rounds: int
    plain_rows: tuple[int, ...]

    def network(self) -> DenoisingNetwork:
        config = STARTER_NETWORK if self.name == "starter" else PAPER_COLOUR
        return build_network(config)


CASES = (
    Case(name="starter", views=256, rounds=4, plain_rows=(32, 64, 128)),
    Case(name="paper, 80 M", views=16, rounds=1, plain_rows=(16,)),
)


class Bench:
    """One network, ready for both kinds of training."""

    def __init__(self, case: Case) -> None:
        self.case, self.hardware = case, choose_hardware()
        self.network = case.network().to(self.hardware.device)
        process = Process.usual(Parameterisation.NOISE)
        self.problem: Problem = _problem(self.network, process, self.hardware)
        self.weights = list(self.problem.trained().values())

    def views(self, multiplicity: int) -> int:
        return max(self.case.views, multiplicity)

    def private(self, multiplicity: int, pace: Pace) -> None:
        make = _random_rows(self.network, multiplicity, self.hardware.device)
        units = np.arange(self.views(multiplicity) // multiplicity)
        with clipped_sums(
            self.problem,
            pace,
            self.hardware,
            rows=multiplicity,
            units=len(units) * PORTIONS,
            clip_norm=1e-3,
        ) as total_of:
            float(total_of(units, lambda part: make(len(part)))[0])

    def plain(self, views: int, rows: int, threads: int) -> None:
        """Mean gradients of as many images, in micro-batches of `rows`."""
        make = _random_rows(self.network, 1, self.hardware.device)

        def work(count: int) -> list[torch.Tensor]:
            total = None
            for first in range(0, count, rows):
                part = make(min(rows, count - first))
                found = list(torch.autograd.grad(self.problem.loss(part), self.weights))
                if total is None:
                    total = found
                else:
                    torch._foreach_add_(total, found)
            return total

        with workers(replace(self.hardware, threads=threads)) as pool:
            shares = [len(part) for part in np.array_split(np.arange(views), threads)]
            first, *others = pool.map(work, shares)
            for other in others:
                torch._foreach_add_(first, other)
            float(first[0].flatten()[0])

    def plain_choices(self) -> list[Callable[[int], None]]:
        return [
            lambda views, r=rows, t=threads: self.plain(views, r, t)
            for rows in self.case.plain_rows
            for threads in sorted({1, self.hardware.threads})
        ]

    def opacus(self, multiplicity: int, rows: int = 32) -> Callable[[], None]:
        """Per-view gradients by Opacus' hooks, averaged over each unit's views."""
        from opacus.grad_sample import GradSampleModule

        wrapped = GradSampleModule(self.case.network(), loss_reduction="sum")
        wrapped.train()  # Its hooks sleep in evaluation mode; there is no dropout.
        weights = [w for w in wrapped.parameters() if w.requires_grad]
        problem = replace(self.problem, network=wrapped)
        units = max(1, rows // multiplicity)
        make = _random_rows(self.network, multiplicity, self.hardware.device)
        total = torch.zeros(sum(w.numel() for w in weights)).double()

        def run() -> None:
            for _ in range(max(1, self.views(multiplicity) // multiplicity // units)):
                means = [0.0] * len(weights)
                for part in make(units).split(rows):
                    problem.loss(part).backward()
                    for index, weight in enumerate(weights):
                        own = weight.grad_sample.unflatten(0, (units, -1))
                        means[index] = means[index] + own.sum(dim=1)
                        weight.grad_sample = weight.grad = None
                add_clipped(total, means, 1e-3)

        return run

    def once_a_step(self) -> tuple[float, float]:
        """Seconds of what a step does once: with privacy, and without."""
        size = sum(weight.numel() for weight in self.weights)
        average = [weight.detach().clone() for weight in self.weights]
        optimiser = torch.optim.Adam(self.weights, lr=1e-6)

        def update(noisy: bool) -> None:
            total = torch.full((size,), 1e-3)
            if noisy:
                total += gaussian(size, 1.0)
            parts = total.split([weight.numel() for weight in self.weights])
            for weight, part in zip(self.weights, parts, strict=True):
                weight.grad = part.view_as(weight)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            ema.update(average, self.weights, 1, 0.999)

        # In memory as long as the training, with privacy or without.
        self.held = average, optimiser
        return tuple(seconds(lambda it=it: update(it), 2) for it in (True, False))


def seconds(work: Callable[[], object], rounds: int = 1) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def in_turn(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """Seconds of each, round by round."""
    found = [[seconds(work) for work in works] for _ in range(rounds)]
    return [list(times) for times in zip(*found, strict=True)]


def machine(hardware: Hardware) -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    precision = str(hardware.precision).removeprefix("torch.")
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}, {precision}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_private_steps_are_as_fast_as_plain_ones(case, monkeypatch):
    monkeypatch.setattr(tuner, "SECONDS", 60.0)
    bench = Bench(case)
    choices = bench.plain_choices()
    plain = min(choices, key=lambda work: seconds(lambda: work(case.views), 2))
    with_noise, without = bench.once_a_step()
    print(f"\n{case.name}: {machine(bench.hardware)}")
    print(f"once a step: {with_noise:.2f} s with noise, {without:.2f} s without")
    print("| K | strategy | rows at once x threads | views/s private | plain | ratio |"
          f" at a batch of {BATCH:,} |\n|--|--|--|--|--|--|--|")  # fmt: skip
    ratios = {}
    for multiplicity in MULTIPLICITIES:
        make = _random_rows(bench.network, multiplicity, bench.hardware.device)
        if multiplicity <= case.views:
            pace = choose_pace(bench.problem, make, bench.hardware, alike=True)
        views = bench.views(multiplicity)
        private_times, plain_times = in_turn(
            case.rounds,
            lambda k=multiplicity, p=pace: bench.private(k, p),
            lambda v=views: plain(v),
        )
        ratio = median(b / a for a, b in zip(private_times, plain_times, strict=True))
        steps = BATCH * multiplicity / views
        whole = (steps * median(plain_times) + without) / (
            steps * median(private_times) + with_noise
        )
        ratios[multiplicity] = ratio
        print(
            f"| {multiplicity} | {pace.strategy} | {pace.rows_at_once} x {pace.threads}"
            f" | {views / median(private_times):.1f} | "
            f"{views / median(plain_times):.1f} | {ratio:.2f} | {whole:.2f} |",
            flush=True,
        )
    assert ratios[max(ratios)] > 0.5


def test_beside_opacus(monkeypatch):
    monkeypatch.setattr(tuner, "SECONDS", 1e9)
    bench = Bench(CASES[0])
    print(f"\nstarter, ours / Opacus' hooks: {machine(bench.hardware)}")
    for multiplicity in (1, 8, 32):
        make = _random_rows(bench.network, multiplicity, bench.hardware.device)
        pace = choose_pace(bench.problem, make, bench.hardware, alike=True)
        ours, theirs = in_turn(
            2,
            lambda k=multiplicity, p=pace: bench.private(k, p),
            bench.opacus(multiplicity),
        )
        ratio = median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f"K = {multiplicity}: {ratio:.1f} times as fast", flush=True)
        assert ratio > 1


KINDS = ("private", "plain", "opacus")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_peak_memory(case):
    """Whole processes, above what is taken before a network is there."""
    print(f"\n{case.name}: peak memory at K = 16, MiB")
    peaks = {}
    for kind in KINDS if case.name == "starter" else KINDS[:2]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.test_gradients", case.name, kind],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks[kind] = float(done.stdout.split()[-1])
        print(f"{kind}: {peaks[kind]:.0f}", flush=True)
    print(f"private / plain: {peaks['private'] / peaks['plain']:.2f}")


def peak_memory(name: str, kind: str) -> float:
    """MiB of one step's gradients, weights and optimiser included."""

    def taken() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024

    before = taken()
    bench = Bench(next(case for case in CASES if case.name == name))
    multiplicity, card = 16, bench.hardware.device.type == "cuda"
    large = sum(weight.numel() for weight in bench.weights) > tuner.LARGE
    rows = 16 if large else 64
    threads = 1 if large or card else bench.hardware.threads
    strategy = "one by one" if large else "layer by layer"
    bench.once_a_step()
    if kind == "private":
        pace = Pace(strategy=strategy, rows_at_once=rows, threads=threads)
        bench.private(multiplicity, pace)
    elif kind == "plain":
        bench.plain(bench.views(multiplicity), rows, threads)
    else:
        bench.opacus(multiplicity)()
    return taken() - before


if __name__ == "__main__":
    print(peak_memory(*sys.argv[1:]))
