"""Killed at each point of a step: charged ≥ performed, and it goes on with fresh draws.

The kill is an exception that nothing catches; of real ones see tests/core/test_crashes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.events import Watcher
from core.privacy import mechanism as mechanism_room
from core.privacy.ledger import Ledger
from core.training import trainer
from core.training.state import TrainingState, load_newest
from core.training.units import UnitImages
from tests.core.tiny import make_dataset, make_plan

pytestmark = pytest.mark.usefixtures("quick_accountant")

STEPS, UNITS = 3, 3

POINTS = {
    "before the charge": (Ledger, "commit", 2),
    "before the draw": (mechanism_room, "draw_units", 2),
    "before the first unit is read": (UnitImages, "draw", UNITS + 1),
    "before the last unit is read": (UnitImages, "draw", 2 * UNITS),
    "before the noise": (mechanism_room, "gaussian", 2),
    "before the update": (trainer, "update", 2),
    "within the update": (trainer.ema, "update", 2),
    "before the state is written": (trainer, "save_state", 3),
}
"""Where, and at which call: all in the second step. A state is written before the
first."""


class Steps:
    """What a run did to the data, whoever ran it."""

    def __init__(self, ledger, dataset, monkeypatch):
        self.noises, self._ledger, self._dataset = [], ledger, dataset
        real = mechanism_room.gaussian

        def gaussian(size: int, deviation: float) -> torch.Tensor:
            noise = real(size, deviation)
            self.noises.append(noise[:3].tolist())
            # At no moment is more done than was charged.
            assert self.charged() >= len(self.noises)
            return noise

        monkeypatch.setattr(mechanism_room, "gaussian", gaussian)
        monkeypatch.setattr(
            mechanism_room,
            "draw_units",
            lambda present, *_: np.random.default_rng().permutation(present)[:UNITS],
        )

    def charged(self) -> int:
        return sum(c.count for c in self._ledger.charged(self._dataset.fingerprint))


def updates(folder) -> int:
    """Of the newest state on disk."""
    return max(int(it.stem.split("-")[1]) for it in folder.glob("state-*.safetensors"))


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_of_a_step(tmp_path, folder, ledger, monkeypatch, point):
    dataset = make_dataset()
    plan = make_plan(tmp_path, steps=STEPS, augmentation_multiplicity=1)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_STATES", -1.0)
    steps = Steps(ledger, dataset, monkeypatch)

    def tune():
        return trainer.fine_tune(
            plan, dataset, folder, ledger, device="cpu", watcher=Watcher()
        )

    place, name, fatal = POINTS[point]
    real, calls = getattr(place, name), []

    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == fatal:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(KeyboardInterrupt):
            tune()
    uncharged = point == "before the charge"
    assert steps.charged() == (1 if uncharged else 2)
    assert updates(folder) == 1  # A step that was cut short left nothing behind.
    tuned = tune()
    assert steps.charged() == tuned.steps_charged == STEPS
    assert tuned.updates == STEPS - (not uncharged)
    # Nothing was drawn again as it was.
    assert len({tuple(noise) for noise in steps.noises}) == len(steps.noises) <= STEPS


def test_a_state_that_was_cut_is_not_gone_on_with(
    tmp_path, folder, ledger, monkeypatch
):
    """The one before it is; the step in it stays charged."""
    dataset = make_dataset()
    plan = make_plan(tmp_path, steps=STEPS, augmentation_multiplicity=1)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_STATES", -1.0)
    steps = Steps(ledger, dataset, monkeypatch)
    asked = iter([False])
    watcher = Watcher(stop_requested=lambda: next(asked, True))
    with pytest.raises(trainer.Stopped):
        trainer.fine_tune(plan, dataset, folder, ledger, device="cpu", watcher=watcher)
    newest = folder / "state-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    tuned = trainer.fine_tune(
        plan, dataset, folder, ledger, device="cpu", watcher=Watcher()
    )
    assert (tuned.steps_charged, tuned.updates) == (STEPS, STEPS - 1)
    assert steps.charged() == STEPS
    state = TrainingState.start(
        [torch.zeros_like(p) for p in trainer.public_network(plan).parameters()]
    )
    assert load_newest(state, folder) and state.updates == STEPS - 1
