"""What charging costs beside what is charged for, in one and the same run.

`make bench` prints it. A step on a graphics card or of a small network is shorter than
the starter's; the milliseconds tell what the ledger would be of that.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from core.events import Watcher
from core.privacy.accounting import Charge
from core.privacy.ledger import Account, Ledger
from core.training import plan as planning
from core.training import trainer
from core.training.purse import Purse
from core.training.recipe_loading import load_recipe
from core.workspace import Project
from tests.core.tiny import make_dataset, make_plan

ROWS = 10_000
"""Of earlier runs on the same data."""

UNITS = 16
"""In a measured step of the starter; its recipe has many more."""


def prefilled(path, dataset: str) -> Ledger:
    ledger = Ledger(path, [path.with_name("one.json"), path.with_name("other.json")])
    account = Account(dataset=dataset, run="earlier", terms="image, add_or_remove_one")
    with ledger._exclusive():
        for number in range(ROWS):
            kind = Charge(noise_multiplier=2.0 + number % 3, count=1)
            fields = f'{{"noise_multiplier": {kind.noise_multiplier}}}'
            ledger._append(account, fields, 1)
    return ledger


def measured(plan, dataset, folder, monkeypatch) -> dict[str, list[float]]:
    """Seconds of each call of the purse, by method, and of each whole step."""
    seconds, folder = defaultdict(list), folder / "training"
    folder.mkdir(parents=True)

    def timed(name):
        real = getattr(Purse, name)

        def call(*arguments):
            begun = time.perf_counter()
            result = real(*arguments)
            seconds[name].append(time.perf_counter() - begun)
            return result

        return call

    ledger = prefilled(folder / "ledger.sqlite3", dataset.fingerprint)
    begun = []

    def report(progress):
        if progress.activity == "Training with privacy" and progress.figures:
            begun.append(time.perf_counter())

    with monkeypatch.context() as patch:
        for name in ("commit", "steps_left", "epsilon"):
            patch.setattr(Purse, name, timed(name))
        trainer.fine_tune(
            plan, dataset, folder, ledger, device="cpu", watcher=Watcher(report=report)
        )
    ledger.close()
    seconds["step"] = list(np.diff(begun))
    return seconds


def milliseconds(seconds: dict[str, list[float]], name: str) -> float:
    return 1000 * statistics.median(seconds[name])


def opening(folder) -> float:
    begun = time.perf_counter()
    Ledger(folder / "run" / "training" / "ledger.sqlite3").close()
    return 1000 * (time.perf_counter() - begun)


def starter():
    """The bundled network, on images of its size."""
    small = make_dataset(200)
    images = small.images.repeat(4, axis=1).repeat(4, axis=2)
    project = Project(
        resolution=32,
        declared_count=400,
        batch_size=UNITS,
        steps=6,
        delta=1e-3,
        overlap_answer="no",
    )
    plan = planning.make_plan(
        project,
        run="now",
        class_names=small.class_names,
        image_channels=3,
        units_present=200,
    )
    return replace(plan, moments=None), replace(small, images=images)


@pytest.mark.parametrize("size", ["tiny", "starter"])
def test_charging_costs_little_beside_a_step(tmp_path, monkeypatch, capsys, size):
    if size == "tiny":
        plan, dataset = make_plan(tmp_path, steps=60), make_dataset()
    else:
        plan, dataset = starter()
    found = measured(plan, dataset, tmp_path / "run", monkeypatch)
    commit, left, shown, step = (
        milliseconds(found, name)
        for name in ("commit", "steps_left", "epsilon", "step")
    )
    views = plan.recipe.augmentation_multiplicity
    lines = [
        f"Ledger of {ROWS:,} rows: opened and checked in {opening(tmp_path):.0f} ms, "
        f"commit {commit:.2f} ms, steps left {left:.2f} ms, ε to show {shown:.2f} ms",
        f"{size} step of {plan.mechanism.divisor:g} units × {views} views: {step:.1f} "
        f"ms; the ledger costs {100 * (commit + left) / step:.2f} % of it",
    ]
    if size == "starter":
        batch = load_recipe("starter").batch_size
        share = (commit + left) / (step * batch / UNITS)
        lines.append(f"and {100 * share:.4f} % of the recipe's, of {batch} units")
    with capsys.disabled():
        print("", *lines, sep="\n")
    if size == "starter":
        assert commit + left <= 0.01 * step
