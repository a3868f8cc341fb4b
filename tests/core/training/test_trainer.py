"""Charged ≥ performed, through stops, crashes and full disks; one clip per unit."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.checkpoints.store import load_checkpoint
from core.diffusion.networks import LABEL_TABLE
from core.errors import Stopped, UserError
from core.events import Watcher
from core.files import write_json
from core.privacy.ledger import Ledger
from core.training import gradients, trainer, warmup
from core.training import moments as moments_room
from core.training import teacher as teacher_room
from core.training.purse import Purse
from core.training.state import TrainingState, load_newest, save_state
from core.training.warmup import public_network
from tests.core.tiny import make_checkpoint, make_dataset, make_network, make_plan

pytestmark = pytest.mark.usefixtures("quick_accountant")

STEPS = 3


@pytest.fixture
def dataset():
    return make_dataset()


def counted(ledger, plan, dataset) -> tuple[int, int]:
    """(moment releases, steps) that the ledger charged."""
    charges = ledger.charged(dataset.fingerprint, plan.terms, plan.run)
    steps = sum(c.count for c in charges if c.batch_cap is not None)
    return sum(c.count for c in charges) - steps, steps


def stop_at(step: int) -> Watcher:
    """Asks to stop once so many steps are begun."""
    seen = []

    def report(progress):
        if progress.activity == "Training with privacy" and not progress.figures:
            seen.append(progress)

    return Watcher(report=report, stop_requested=lambda: len(seen) >= step)


def before_sums(monkeypatch, look) -> None:
    """Show `look` the units of every step, before anything is made of them."""
    real = trainer.summing

    @contextmanager
    def summing(*arguments):
        with real(*arguments) as total_of:

            def watched(units, draw):
                look(units)
                return total_of(units, draw)

            yield watched

    monkeypatch.setattr(trainer, "summing", summing)


def test_charges_every_step_and_both_releases_once(tune, tmp_path, ledger, dataset):
    plan = make_plan(tmp_path, moments=True)
    tuned = tune(plan)
    assert counted(ledger, plan, dataset) == (2, STEPS)
    assert (tuned.updates, tuned.steps_charged) == (STEPS, STEPS)
    assert set(ledger.charged(dataset.fingerprint, plan.terms)) == set(plan.charges())
    model = load_checkpoint(tuned.folder)
    assert model.network.config.classes == 2 and model.card.steps == STEPS
    assert tune(plan).updates == STEPS
    assert counted(ledger, plan, dataset) == (2, STEPS)


def test_what_is_kept_is_the_average_and_it_has_moved(tune, tmp_path, folder):
    tuned = tune(make_plan(tmp_path))
    parameters = [
        p.detach() for p in load_checkpoint(tuned.folder).network.parameters()
    ]
    state = TrainingState.start([torch.zeros_like(p) for p in parameters])
    assert load_newest(state, folder)
    assert all(
        torch.equal(a, p) for a, p in zip(state.average, parameters, strict=True)
    )
    assert any(
        not torch.equal(a, w) for a, w in zip(state.average, state.weights, strict=True)
    )


def test_two_runs_of_one_plan_share_no_noise(tmp_path, ledger, dataset):
    plan = make_plan(tmp_path)
    found = []
    for name in ("one", "two"):
        torch.manual_seed(0)
        np.random.seed(0)
        (tmp_path / name).mkdir()
        own = replace(plan, run=name)
        tuned = trainer.fine_tune(
            own, dataset, tmp_path / name, ledger, device="cpu", watcher=Watcher()
        )
        network = load_checkpoint(tuned.folder).network
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert (found[0] != found[1]).float().mean() > 0.9


def test_pause_and_resume_charge_no_step_twice(tune, tmp_path, ledger, dataset):
    plan = make_plan(tmp_path)
    with pytest.raises(Stopped):
        tune(plan, watcher=stop_at(1))
    assert counted(ledger, plan, dataset) == (0, 1)
    tuned = tune(plan)
    assert counted(ledger, plan, dataset) == (0, STEPS)
    assert tuned.updates == STEPS


@pytest.mark.parametrize("fatal_step", [1, 2, STEPS])
def test_a_kill_after_the_charge_loses_the_step_and_no_more(
    tune, tmp_path, ledger, dataset, monkeypatch, fatal_step
):
    plan = make_plan(tmp_path)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_STATES", -1.0)
    performed = []

    def begun(units):
        performed.append("begun")
        if len(performed) == fatal_step:
            raise KeyboardInterrupt

    before_sums(monkeypatch, begun)
    with pytest.raises(KeyboardInterrupt):
        tune(plan)
    assert counted(ledger, plan, dataset) == (0, fatal_step)
    tuned = tune(plan)
    assert counted(ledger, plan, dataset) == (0, STEPS) and len(performed) == STEPS
    assert tuned.updates + 1 == tuned.steps_charged == STEPS


def test_steps_lost_with_the_state_stay_charged(
    tune, tmp_path, ledger, dataset, monkeypatch
):
    """No state is written between: two updates are lost, and are not made again."""
    plan = make_plan(tmp_path)
    calls = []

    def begun(units):
        calls.append(1)
        if len(calls) == STEPS:
            raise KeyboardInterrupt

    before_sums(monkeypatch, begun)
    with pytest.raises(KeyboardInterrupt):
        tune(plan)
    tuned = tune(plan)
    assert counted(ledger, plan, dataset) == (0, STEPS) and len(calls) == STEPS
    assert (tuned.updates, tuned.steps_charged) == (0, STEPS)


def test_a_run_begun_again_draws_other_units(tmp_path, tune, folder, monkeypatch):
    plan = make_plan(tmp_path)
    drawn = []
    before_sums(monkeypatch, lambda units: drawn.append(tuple(sorted(units.tolist()))))
    for run in range(4):
        torch.manual_seed(0)
        with pytest.raises(Stopped):
            tune(replace(plan, run=str(run)), watcher=stop_at(1))
        for left in folder.glob("state-*"):
            left.unlink()
    assert len(set(drawn)) > 1


def test_a_ledger_that_cannot_be_written_stops_before_anything_is_read(
    tune, tmp_path, ledger, monkeypatch
):
    def never(*_, **__):
        raise AssertionError("a record was read")

    monkeypatch.setattr("core.training.units.UnitImages.draw", never)
    ledger._database.execute("PRAGMA query_only = ON")
    for moments in (False, True):
        with pytest.raises(UserError, match="ledger"):
            tune(make_plan(tmp_path, moments=moments))


@pytest.mark.parametrize(
    ("crashing", "releases"), [("sum_of_means", 1), ("sum_of_squares", 2)]
)
def test_a_crash_within_a_sum_of_the_moments_makes_it_only_once(
    tune, tmp_path, ledger, dataset, monkeypatch, crashing, releases
):
    """A sum that was charged and not kept is never read again: the run goes on without.

    Nor are those made that hang on it.
    """
    plan = make_plan(tmp_path, moments=True)
    with monkeypatch.context() as patch:
        patch.setattr(moments_room, crashing, _crash)
        with pytest.raises(KeyboardInterrupt):
            tune(plan)
    assert counted(ledger, plan, dataset) == (releases, 0)

    def again(*_, **__):
        raise AssertionError("released twice")

    monkeypatch.setattr(warmup, "release_moments", again)
    tuned = tune(plan)
    assert counted(ledger, plan, dataset) == (releases, STEPS)
    assert tuned.updates == STEPS


def test_a_crash_between_two_sums_of_the_moments_loses_nothing(
    tune, tmp_path, ledger, dataset, monkeypatch
):
    """Those that were kept are not read again; the others are made, and only once."""
    plan, read = make_plan(tmp_path, moments=True), []
    for name in ("sum_of_means", "sum_of_squares"):
        real = getattr(moments_room, name)

        def noted(*of, _name=name, _real=real):
            read.append(_name)
            return _real(*of)

        monkeypatch.setattr(moments_room, name, noted)
    for crashing in ("unstack", "save_moments"):
        place = moments_room if crashing == "unstack" else warmup
        with monkeypatch.context() as patch:
            patch.setattr(place, crashing, _crash)
            with pytest.raises(KeyboardInterrupt):
                tune(plan)
        assert counted(ledger, plan, dataset) == (2, 0)
    warmed = []
    monkeypatch.setattr(warmup, "_learn", lambda *of: warmed.append(of[2]))
    tune(plan)
    assert read == ["sum_of_means", "sum_of_squares"] and len(warmed) == 1
    assert counted(ledger, plan, dataset) == (2, STEPS)
    assert not list(tmp_path.rglob(warmup.SUMS_FILE))


def test_asked_to_stop_within_the_moments_it_stops_and_goes_on(
    tune, tmp_path, ledger, dataset
):
    plan, asked = make_plan(tmp_path, moments=True), []

    def stop() -> bool:
        asked.append(counted(ledger, plan, dataset))
        return True

    with pytest.raises(Stopped):
        tune(plan, watcher=Watcher(stop_requested=stop))
    assert asked[0] == (2, 0)
    tuned = tune(plan)
    assert counted(ledger, plan, dataset) == (2, STEPS)
    assert tuned.updates == STEPS


@pytest.mark.parametrize(
    ("kind", "place", "crashing"),
    [
        ("moments", moments_room, "unstack"),
        ("moments", warmup, "_learn"),
        ("central", warmup, "_learn"),
        ("teacher", warmup, "_learn"),
        ("steps", trainer, "_fill"),
    ],
)
def test_what_the_ledger_does_not_hold_is_not_gone_on_from(
    tune, tmp_path, dataset, folder, monkeypatch, kind, place, crashing
):
    """A copy of the folder meets a ledger that knows nothing, or less, of it."""
    monkeypatch.setattr(teacher_room, "PSEUDO_IMAGES", 60)
    with_teacher = kind == "teacher"
    wishes = {kind: True} if kind != "steps" else {}
    plan = make_plan(tmp_path, **wishes | {"moments": True} if with_teacher else wishes)
    with monkeypatch.context() as patch:
        patch.setattr(place, crashing, _crash)
        with pytest.raises(KeyboardInterrupt):
            tune(plan)
    other = Ledger(tmp_path / "other" / "ledger.sqlite3")
    if with_teacher:  # All but its last release.
        for charge in plan.moments.charges():
            Purse(plan, dataset.fingerprint, other).commit(charge)
        for _ in range(plan.teacher.steps - 1):
            Purse(plan, dataset.fingerprint, other).commit(plan.teacher.charge(1))
    before = other.charged(dataset.fingerprint)
    with pytest.raises(UserError, match="The ledger holds less than"):
        trainer.fine_tune(plan, dataset, folder, other, device="cpu", watcher=Watcher())
    assert other.charged(dataset.fingerprint) == before
    other.close()


def _crash(*_, **__):
    raise KeyboardInterrupt


def test_kept_moments_are_used_again(tune, tmp_path, ledger, dataset, monkeypatch):
    plan = make_plan(tmp_path, moments=True)
    with monkeypatch.context() as patch:
        patch.setattr(warmup, "_learn", _crash)
        with pytest.raises(KeyboardInterrupt):
            tune(plan)
    warmed = []
    monkeypatch.setattr(warmup, "_learn", lambda *of: warmed.append(of[2]))
    tune(plan)
    assert len(warmed) == 1
    drawn = warmed[0].draw(torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 3, 8, 8)
    assert counted(ledger, plan, dataset) == (2, STEPS)


@pytest.mark.parametrize("point", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_state_and_the_run_goes_on(
    tune, tmp_path, folder, ledger, dataset, monkeypatch, point
):
    plan = make_plan(tmp_path)
    with pytest.raises(Stopped):
        tune(plan, watcher=stop_at(1))
    before = {path.name: path.read_bytes() for path in folder.glob("state-*")}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, point, full)
        with pytest.raises(UserError, match="disk is full"):
            tune(plan, watcher=stop_at(1))
    assert {p.name: p.read_bytes() for p in folder.glob("state-*")} == before
    assert counted(ledger, plan, dataset) == (0, 2)
    tuned = tune(plan)
    assert (tuned.updates, tuned.steps_charged) == (2, STEPS)


def test_the_watcher_hears_of_public_figures_only(tune, tmp_path):
    heard = []
    tune(make_plan(tmp_path, moments=True), watcher=Watcher(report=heard.append))
    names = {name for progress in heard for name in progress.figures}
    assert names == {"epsilon"}
    # Equal for every data set of this declared size: totals tell nothing either.
    totals = {p.total for p in heard if p.activity == "Training with privacy"}
    assert totals == {STEPS}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_label_dropout_teaches_a_row_for_no_class(tune, tmp_path, dropout):
    """The warm-up and the steps both train it; without dropout there is none."""
    plan = make_plan(tmp_path, moments=True, label_dropout=dropout, batch_size=12)
    model = load_checkpoint(tune(plan).folder).network
    assert model.config.null_class == (dropout > 0)
    if dropout:
        before = public_network(plan).state_dict()[LABEL_TABLE]
        after = model.state_dict()[LABEL_TABLE]
        assert after.shape == (3, before.shape[1])
        assert (after[2] != before[2]).any()


def test_states_two_are_kept_and_a_damaged_one_is_passed_over(folder):
    def state(value: float, updates: int) -> TrainingState:
        made = TrainingState.start([torch.full((2, 3), value)])
        made.updates = updates
        return made

    for updates in range(1, 5):
        save_state(state(float(updates), updates), folder)
    names = sorted(path.name for path in folder.glob("state-*.safetensors"))
    assert names == ["state-000003.safetensors", "state-000004.safetensors"]
    found = state(0.0, 0)
    assert load_newest(found, folder) and found.updates == 4
    assert torch.equal(found.weights[0], torch.full((2, 3), 4.0))

    newest = folder / names[1]
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    for damaged in (bytes(content), newest.read_bytes()[:20], b""):
        newest.write_bytes(damaged)
        found = state(0.0, 0)
        assert load_newest(found, folder) and found.updates == 3
        assert torch.equal(found.average[0], torch.full((2, 3), 3.0))
    write_json((folder / names[0]).with_suffix(".json"), {"sha256": "0" * 64})
    assert not load_newest(state(0.0, 0), folder)


def test_a_state_holds_everything_an_update_changes(folder):
    """Weights, average and both of Adam's moments, and none taken for another."""
    made = TrainingState.start([torch.full((2,), 1.0)])
    for value, group in enumerate((made.average, made.first, made.second), start=2):
        group[0].fill_(value)
    save_state(made, folder)
    found = TrainingState.start([torch.zeros(2)])
    assert load_newest(found, folder)
    groups = (found.weights, found.average, found.first, found.second)
    assert [group[0][0].item() for group in groups] == [1, 2, 3, 4]


def test_the_clipping_norm_is_no_learning_rate(tmp_path):
    """Gradients of its size move the weights alike, however small it is."""
    moved = []
    for clip_norm in (1.0, 1e-3):
        plan = make_plan(tmp_path, clip_norm=clip_norm)
        state = TrainingState.start([torch.zeros(4)])
        optimiser = trainer.adam(plan, state)
        gradient = torch.tensor([4e-5, -4e-5, 1e-4, 0.0]) * clip_norm
        trainer.update(plan, state, optimiser, gradient)
        moved.append(state.weights[0])
    assert moved[0][0] < 0 < moved[0][1] and moved[0][3] == 0
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-5, atol=0)


def test_a_run_whose_states_are_all_damaged_is_not_passed_off_as_trained(
    tune, tmp_path, folder
):
    plan = make_plan(tmp_path)
    tune(plan)
    for state in folder.glob("state-*.safetensors"):
        state.write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        tune(plan)


def test_a_network_that_is_not_fit_costs_nothing(tmp_path, dataset, ledger, tune):
    """Though its moments would be measured before it is trained."""
    network = make_network()
    with torch.no_grad():
        network.unet.conv_in.weight.mul_(1e38)
    plan = make_plan(tmp_path, moments=True)
    card = make_checkpoint(tmp_path / "checkpoint", network)
    plan = replace(plan, checkpoint=card)
    gradients.find_pace.cache_clear()
    with pytest.raises(UserError, match="answers with values that are not numbers"):
        tune(plan)
    assert counted(ledger, plan, dataset) == (0, 0)
