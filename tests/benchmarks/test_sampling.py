"""Drawing images against diffusers' own pipeline: same network, steps and batch.

`make bench` prints the ratios; side by side, so that they mean the same on any machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
)

from core.checkpoints.store import save_checkpoint
from core.diffusion.networks import DenoisingNetwork, build_network
from core.diffusion.presets import DPDM_COLOUR
from core.diffusion.process import Process
from core.diffusion.samplers import sample
from core.events import Watcher
from core.parallel import choose_hardware
from core.synthesis import sampling
from core.synthesis.drawing import from_network
from core.synthesis.sampling import synthesise

STEPS, BATCH, BATCHES, ROUNDS = 10, 64, 2, 3


@pytest.fixture(scope="module")
def network() -> DenoisingNetwork:
    # The pipeline draws without labels only.
    return build_network(replace(DPDM_COLOUR, classes=0, null_class=False))


THEIRS = {
    "ddim": (DDIMPipeline, DDIMScheduler),
    "ancestral": (DDPMPipeline, DDPMScheduler),
    # It takes any scheduler that needs no more than the step and a generator.
    "dpm-solver++": (DDPMPipeline, DPMSolverMultistepScheduler),
}


def pipeline_of(network: DenoisingNetwork, sampler: str) -> DDIMPipeline | DDPMPipeline:
    pipeline, scheduler = THEIRS[sampler]
    made = pipeline(
        network.unet,
        scheduler(beta_start=1e-4, beta_end=0.02, prediction_type="v_prediction"),
    )
    made.set_progress_bar_config(disable=True)
    return made


def side_by_side(ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    """How many times as fast ours is: each one's best of a few rounds in turn."""
    best = {ours: float("inf"), theirs: float("inf")}
    ours(), theirs()
    for _ in range(ROUNDS):
        for function in best:
            start = time.perf_counter()
            function()
            best[function] = min(best[function], time.perf_counter() - start)
    return best[theirs] / best[ours]


@pytest.mark.parametrize("sampler", THEIRS)
def test_one_batch_in_single_precision(network, sampler):
    """The sampler itself: same threads, same arithmetic, no files."""
    pipeline = pipeline_of(network, sampler)

    def ours() -> object:
        return sample(
            network,
            torch.zeros(BATCH, dtype=torch.long),
            process=Process.parse("v"),
            sampler=sampler,
            steps=STEPS,
            autocast=torch.autocast("cpu", enabled=False),
            generator=torch.Generator(),
        )

    def theirs() -> object:
        return pipeline(
            batch_size=BATCH, num_inference_steps=STEPS, output_type="np"
        ).images

    ratio = side_by_side(ours, theirs)
    print(f"\n{sampler}, one batch, float32: {ratio:.2f} times the pipeline's")
    assert ratio > 0.95


def test_a_data_set_to_disk(network, tmp_path, monkeypatch):
    """The stage as it is run: its workers and precision, PNG files on disk."""
    pipeline = pipeline_of(network, "ddim")
    monkeypatch.setattr(sampling, "BATCH", BATCH)
    save_checkpoint(
        network, tmp_path / "model", dtype=torch.float32, name="bench", title="Bench",
        description="", licence="", pretraining_data="", pretraining_licences="",
        parameterisation="v", steps=0, batch_size=0, command="",
    )  # fmt: skip
    places = iter(range(1000))

    def ours() -> object:
        hardware = choose_hardware("cpu")
        return synthesise(
            tmp_path / f"ours-{next(places)}",
            class_names=("one",),
            per_class=BATCH * BATCHES,
            draw=from_network(
                tmp_path / "model",
                grey=False,
                sampler="ddim",
                sampler_steps=STEPS,
                hardware=hardware,
            ),
            hardware=hardware,
            watcher=Watcher(),
        )

    def theirs() -> None:
        folder: Path = tmp_path / f"theirs-{next(places)}"
        folder.mkdir()
        for batch in range(BATCHES):
            drawn = pipeline(batch_size=BATCH, num_inference_steps=STEPS).images
            for index, image in enumerate(drawn):
                image.save(folder / f"{batch * BATCH + index:06d}.png")

    ratio = side_by_side(ours, theirs)
    print(f"\na data set to disk: {ratio:.2f} times the pipeline's throughput")
    assert ratio > 1.0
