"""Each check is silent on the engine, and speaks up when the engine is broken."""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
import torch

from core import cli
from core.errors import Stopped
from core.events import Progress, Watcher
from core.privacy import accounting, clipping, mechanism
from core.privacy.budget import Relation
from core.privacy.selftest import audit, charging, noise, run
from core.privacy.selftest import clipping as bounds
from core.privacy.selftest import sampling as drawing
from core.privacy.selftest.controls import CONTROLS, Control
from core.privacy.selftest.engine import Engine, step_noise
from core.privacy.selftest.findings import Conditions, Finding, Measurement, Size
from core.privacy.selftest.report import Confirmation, SelfTest, Verdict

SMALL = Size(
    coordinates=100_000,
    shifts=2**13,
    draws=300,
    canaries=4_000,
    # Of a deliberate fault a quarter: with 4,000, one run in twelve would overlook the
    # clip that is missing; with 16,000 the figure lies 11 deviations from the limit.
    canaries_of_one_step=16_000,
)
CONDITIONS = Conditions(size=SMALL, elsewhere=tuple, reached=lambda share: None)


def flagged(check, **conditions) -> bool:
    """Whether a check finds the engine, as it is patched now, at fault."""
    return check(Engine.real(), replace(CONDITIONS, **conditions)).violated


# Faults in the noise.

true_gaussian = mechanism.gaussian


def no_noise(size, deviation):
    return torch.zeros(size)


def half_noise(size, deviation):
    return true_gaussian(size, deviation / 2)


def noise_of_variance(size, deviation):
    """σ² where σ belongs."""
    return true_gaussian(size, deviation**2)


def uniform_noise(size, deviation):
    rng = np.random.default_rng()
    width = deviation * 3**0.5
    return torch.from_numpy(rng.uniform(-width, width, size)).float()


def shifted_noise(size, deviation):
    return true_gaussian(size, deviation) + 0.05 * deviation


def coarse_noise(size, deviation):
    return true_gaussian(size, deviation).bfloat16().float()


def noise_of_one_seed(size, deviation):
    rng = np.random.default_rng(42)
    return torch.from_numpy(deviation * rng.standard_normal(size)).float()


def noise_in_blocks(size, deviation):
    """One draw for every layer."""
    return true_gaussian(size // 16 + 1, deviation).repeat(16)[:size]


def noise_of_one_stream(size, deviation, stream=np.random.default_rng(1)):  # noqa: B008
    """One key for all, each draw beginning a few values later."""
    start = int(stream.integers(1000))
    values = np.random.default_rng(42).standard_normal(size + 1000)
    return torch.from_numpy(deviation * values[start : start + size]).float()


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (noise.strength, no_noise),
        (noise.strength, half_noise),
        (noise.strength, noise_of_variance),
        (noise.shape, uniform_noise),
        (noise.shape, shifted_noise),
        (noise.shape, coarse_noise),
        (noise.freshness, noise_of_one_seed),
        (noise.freshness, noise_in_blocks),
        (noise.freshness, noise_of_one_stream),
        (audit.one_step, no_noise),
        (audit.one_step, half_noise),
        (audit.strict, no_noise),
        (audit.loose, half_noise),
    ],
)
def test_faulty_noise_is_found(monkeypatch, check, fault):
    monkeypatch.setattr(mechanism, "gaussian", fault)
    assert flagged(check)


def test_the_smallest_fault_of_the_noise_is_as_small_as_it_says(monkeypatch):
    visible = 7.65 / math.sqrt(2 * SMALL.coordinates)
    monkeypatch.setattr(
        mechanism, "gaussian", lambda size, sd: true_gaussian(size, sd * (1 - visible))
    )
    # Three vectors are measured, each with a power of 0.95.
    assert sum(flagged(noise.strength) for _ in range(5)) >= 4
    found = noise.strength(Engine.real(), CONDITIONS)
    assert f"noise {100 * visible:.2g} %" in found.smallest_fault


def test_equal_noise_in_other_processes_is_found():
    kept = step_noise(Engine.real(), SMALL.shifts)
    assert flagged(noise.freshness, elsewhere=lambda: [kept, kept])
    assert not flagged(noise.freshness, elsewhere=lambda: [kept])


# Faults in the step.


def stepping(*, divide_by_batch=False, skip_empty=False, order="charge draw read"):
    """`private_step`, written again with faults."""

    def step(made, *, present, clipped_sum, commit):
        units = total = None
        for act in order.split():
            if act == "charge":
                commit(made.charge(1))
            elif act == "draw":
                units = mechanism.draw_units(
                    min(present, made.population),
                    made.sampling_probability,
                    made.batch_cap,
                )
            elif act == "read":
                total = clipped_sum(units)
        noisy = mechanism._with_noise(total, made.noise_multiplier * made.clip_norm)
        if skip_empty and len(units) == 0:
            noisy = torch.zeros_like(noisy)
        return noisy / (len(units) if divide_by_batch else made.divisor)

    return step


def test_the_step_written_again_is_faultless(monkeypatch):
    monkeypatch.setattr(mechanism, "private_step", stepping())
    assert not flagged(noise.strength) and not flagged(charging.order)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (noise.strength, {"divide_by_batch": True}),
        (noise.strength, {"skip_empty": True}),
        (charging.order, {"order": "draw charge read"}),
        (charging.order, {"order": "draw read charge"}),
        (charging.order, {"order": "draw read"}),
    ],
)
def test_faulty_step_is_found(monkeypatch, check, fault):
    monkeypatch.setattr(mechanism, "private_step", stepping(**fault))
    assert flagged(check)


def test_a_sum_released_with_too_little_noise_is_found(monkeypatch):
    true_sum = mechanism.private_sum
    monkeypatch.setattr(
        mechanism,
        "private_sum",
        lambda total, *, sensitivity, **rest: true_sum(
            total, sensitivity=0.98 * sensitivity, **rest
        ),
    )
    assert flagged(noise.strength)


def test_a_failed_charge_that_is_ignored_is_found(monkeypatch):
    true_step = mechanism.private_step

    def careless(made, *, commit, **rest):
        def attempt(charge):
            try:
                commit(charge)
            except Exception:
                return

        return true_step(made, commit=attempt, **rest)

    monkeypatch.setattr(mechanism, "private_step", careless)
    assert flagged(charging.order)


def test_a_lost_charge_is_found(monkeypatch):
    true_step, number = mechanism.private_step, iter(range(10**6))

    def forgetful(made, *, commit, **rest):
        silent = next(number) == 19
        return true_step(made, commit=(lambda _: None) if silent else commit, **rest)

    monkeypatch.setattr(mechanism, "private_step", forgetful)
    assert flagged(charging.order)


# Faults in the sampler.

true_draw = mechanism.draw_units


def fixed_size(present, probability, cap):
    rng = np.random.default_rng()
    return rng.choice(present, round(present * probability), replace=False)


def rate_too_high(present, probability, cap):
    return true_draw(present, 1.1 * probability, cap)


def drawn_in_fives(present, probability, cap):
    fives = 5 * true_draw(present // 5, probability, cap)
    return np.concatenate([fives + number for number in range(5)])


def with_replacement(present, probability, cap):
    rng = np.random.default_rng()
    return rng.choice(present, min(int(rng.binomial(present, probability)), cap))


def favouring_some(present, probability, cap):
    rng = np.random.default_rng()
    rates = probability * np.where(np.arange(present) % 2, 1.25, 0.75)
    return np.flatnonzero(rng.random(present) < rates)[:cap]


def same_batch(present, probability, cap):
    rng = np.random.default_rng(42)
    return np.flatnonzero(rng.random(present) < probability)[:cap]


def without_cap(present, probability, cap):
    return true_draw(present, probability, present)


def everybody(present, probability, cap):
    return np.arange(present)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (drawing.sizes, fixed_size),
        (drawing.sizes, rate_too_high),
        (drawing.sizes, drawn_in_fives),
        (drawing.sizes, same_batch),
        (drawing.membership, with_replacement),
        (drawing.membership, favouring_some),
        (drawing.membership, same_batch),
        (drawing.limits, without_cap),
        (audit.loose, everybody),
    ],
)
def test_faulty_sampler_is_found(monkeypatch, check, fault):
    monkeypatch.setattr(mechanism, "draw_units", fault)
    assert flagged(check)


def test_batches_dealt_from_a_shuffled_list_are_found(monkeypatch):
    rng, waiting = np.random.default_rng(), []

    def deal(present, probability, cap):
        if not waiting:
            shuffled = rng.permutation(present)
            sizes = rng.binomial(present, probability, 30).cumsum()
            waiting.extend(np.split(shuffled, sizes[sizes < present]))
        return waiting.pop()

    monkeypatch.setattr(mechanism, "draw_units", deal)
    assert flagged(drawing.membership)


def test_units_beyond_the_declared_number_are_found(monkeypatch):
    """The step forgets that only so many were declared."""
    monkeypatch.setattr(mechanism, "min", lambda *numbers: numbers[0], raising=False)
    assert flagged(drawing.limits)


# Faults in the clip.


def no_clip(gradient, clip_norm):
    return torch.cat([part.reshape(-1) for part in gradient])


def clip_and_keep_nan(gradient, clip_norm):
    vector = no_clip(gradient, clip_norm)
    norm = torch.linalg.vector_norm(vector.double())
    return vector * torch.clamp(clip_norm / norm, max=1.0).float()


def clip_in_single_precision(gradient, clip_norm):
    vector = torch.nan_to_num(no_clip(gradient, clip_norm), 0.0, 0.0, 0.0)
    norm = vector.square().cumsum(0)[-1].sqrt()
    return vector * torch.clamp(clip_norm / norm, max=1.0)


def clip_each_layer(gradient, clip_norm):
    return torch.cat([clipping_before([part], clip_norm) for part in gradient])


def clip_a_little_late(gradient, clip_norm):
    return clipping_before(gradient, (1 + 2e-8) * clip_norm)


def clipping_before(gradient, clip_norm, add_clipped=clipping.add_clipped):
    size = sum(part.numel() for part in gradient)
    total = torch.zeros(size, dtype=torch.float64)
    add_clipped(total, [part[None] for part in gradient], clip_norm)
    return total


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (bounds.bound, no_clip),
        (bounds.bound, clip_and_keep_nan),
        (bounds.bound, clip_in_single_precision),
        (bounds.bound, clip_each_layer),
        (bounds.bound, clip_a_little_late),
        (audit.one_step, no_clip),
        (audit.loose, no_clip),
    ],
)
def test_faulty_clip_is_found(monkeypatch, check, fault):
    def add_faulty(total, gradients, clip_norm):
        for row in torch.cat([part.flatten(1) for part in gradients], dim=1):
            total.add_(fault([row[:2], row[2:]], clip_norm))

    monkeypatch.setattr(clipping, "add_clipped", add_faulty)
    assert flagged(check)


def test_a_unit_that_is_added_twice_is_found(monkeypatch):
    true_sum = clipping.clipped_sum
    monkeypatch.setattr(
        clipping,
        "clipped_sum",
        lambda units, *rest, **names: true_sum(
            np.concatenate([units, units[-1:]]), *rest, **names
        ),
    )
    assert flagged(bounds.bound)


# Faults in the accountant.


@pytest.mark.parametrize(
    "fault",
    [
        lambda charge: replace(charge, noise_multiplier=1.01 * charge.noise_multiplier),
        lambda charge: replace(charge, count=max(1, charge.count - 1)),
        lambda charge: replace(
            charge,
            sampling_probability=charge.sampling_probability
            * (0.98 if charge.sampling_probability < 1 else 1),
        ),
    ],
)
def test_faulty_accountant_is_found(monkeypatch, fault):
    true_epsilon = accounting.epsilon
    monkeypatch.setattr(
        accounting,
        "epsilon",
        lambda charges, *rest: true_epsilon([fault(one) for one in charges], *rest),
    )
    assert flagged(charging.accountant)


def test_a_relation_that_is_ignored_is_found(monkeypatch):
    true_epsilon = accounting.epsilon
    monkeypatch.setattr(
        accounting,
        "epsilon",
        lambda charges, delta, relation: true_epsilon(
            charges, delta, Relation.ADD_OR_REMOVE_ONE
        ),
    )
    assert flagged(charging.accountant)


# The whole of it.


@pytest.mark.parametrize("name", run.CHECKS)
def test_the_engine_passes(name):
    found = run.CHECKS[name].measure(Engine.real(), CONDITIONS)
    assert not found.violated, found.text()
    assert found.check == name
    assert found.smallest_fault and found.question.endswith("?")


def test_every_check_has_a_deliberate_fault():
    assert {name for control in CONTROLS for name in control.checks} == set(run.CHECKS)


@dataclass
class Witness:
    """What the caller of a self-test sees while it runs."""

    done: list[int] = field(default_factory=list)
    rooms: list[dict] = field(default_factory=list)

    def report(self, progress: Progress) -> None:
        assert progress.total == 100
        self.done.append(progress.done)
        rooms = (mechanism, clipping, accounting)
        self.rooms.append([dict(vars(room)) for room in rooms])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One self-test, small; who watched it; and the custodian's home."""
    home, witness = tmp_path_factory.mktemp("user") / "home", Witness()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_HOME", str(home))
        found = run.self_test(Watcher(report=witness.report), SMALL)
    return found, witness, home


def test_a_whole_run_finds_nothing_and_notices_every_fault(whole):
    found, witness, _ = whole
    assert found.verdict is Verdict.NOTHING_FOUND, found.text()
    assert len(found.findings) == len(run.CHECKS) == 12
    assert "5 vectors of 3 processes" in found.findings[-1].measured()
    assert witness.done == sorted(witness.done)
    assert witness.done[0] == 0 and witness.done[-1] == 100


def test_nothing_is_patched_and_no_ledger_of_the_custodian_is_touched(whole):
    """A training in the same process keeps its noise."""
    _, witness, home = whole
    assert len(witness.rooms) > 20
    assert all(rooms == witness.rooms[0] for rooms in witness.rooms)
    assert not home.exists()


def test_the_text_has_one_line_for_each_check_and_promises_nothing(whole):
    lines = whole[0].text().splitlines()
    for name in run.CHECKS:
        (line,) = [line for line in lines if f"  {name}: " in line and "fault" in line]
        assert line.startswith("no violation")
        assert re.search(r"\((at most|at least|\S+ to) \S+\)", line)
    text = whole[0].text().lower()
    assert "no violation detected" in text and "no proof" in text
    for promise in ("safe", "verified", "anonymous", "guaranteed", "passed"):
        assert promise not in text
    audited = [line for line in lines if "audit at epsilon 8: share" in line]
    assert (
        "Claimed: epsilon 8.00" in audited[0] and "or more, 99.9 % sure" in audited[0]
    )


def test_the_audit_of_one_step_comes_close_to_its_claim(whole):
    figures = next(
        found.figures
        for found in whole[0].findings
        if found.check == "audit of one step"
    )
    claimed = figures["epsilon_claimed"]
    assert 0.6 * claimed < figures["epsilon_estimate_lower_limit"] <= claimed
    assert 0 <= figures["epsilon_one_run_lower_limit"] <= claimed
    assert 0.8 < figures["smallest_visible_noise_factor"] < 1


def test_the_content_is_plain_json(whole):
    content = json.loads(json.dumps(whole[0].to_json(), allow_nan=False))
    assert content["verdict"] == "no violation detected"
    assert [check["check"] for check in content["checks"]] == list(run.CHECKS)
    assert set(content["checks"][0]) == {
        "check", "question", "violated", "measurements", "smallest_fault", "note",
        "figures",
    }  # fmt: skip
    assert set(content["checks"][0]["measurements"][0]) == {
        "name", "value", "low", "high", "violated",
    }  # fmt: skip
    assert all(fault["noticed"] for fault in content["deliberate_faults"])


def test_no_number_counts_as_a_violation_and_is_null():
    measured = Measurement(name="ratio", value=math.nan, low=0.0, high=1.0)
    assert measured.violated
    assert measured.to_json()["value"] is None


def test_a_stop_is_obeyed_and_leaves_no_process(monkeypatch):
    started = []
    true_process = subprocess.Popen

    def start(*arguments, **names):
        started.append(true_process(*arguments, **names))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    asked = iter(range(10**6))
    with pytest.raises(Stopped):
        run.self_test(Watcher(stop_requested=lambda: next(asked) > 3), SMALL)
    assert len(started) == run.OTHER_PROCESSES
    assert all(process.poll() is not None for process in started)


def test_a_process_that_fails_is_a_bug_and_not_a_pass(monkeypatch):
    monkeypatch.setattr(run, "_DRAW", "raise SystemExit('no memory')")
    with (
        pytest.raises(RuntimeError, match="no memory"),
        run._other_processes(64) as drawn,
    ):
        drawn()


# The verdict.

FINE = Finding(
    check="noise strength",
    question="Is it?",
    measurements=(Measurement(name="ratio", value=1.0, low=0.9, high=1.1),),
    smallest_fault="a tenth",
)
BAD = replace(
    FINE, measurements=(Measurement(name="ratio", value=0.5, low=0.9, high=1.1),)
)
SEEN = Confirmation(fault="no noise", check="noise strength", seen=True)


def outcome(finding=FINE, confirmation=SEEN) -> SelfTest:
    return SelfTest(findings=(finding,), confirmations=(confirmation,), seconds=1.0)


def test_a_violation_says_what_to_do():
    found = outcome(BAD, replace(SEEN, seen=False))
    assert found.verdict is Verdict.VIOLATION and not found.clean
    text = found.text()
    assert "VIOLATION     noise strength: ratio 0.5 (0.9 to 1.1)." in text
    assert "Violation detected: noise strength." in text
    assert "train nothing" in text and "spent nothing" in text


def test_an_overlooked_fault_makes_the_test_itself_broken(monkeypatch):
    harmless = Control(
        name="harmless", broken=lambda engine: engine, checks=("clipping",)
    )
    monkeypatch.setattr(run, "CONTROLS", (harmless,))
    monkeypatch.setattr(run, "CHECKS", {"clipping": run.CHECKS["clipping"]})
    found = run.self_test(Watcher(), SMALL)
    assert found.verdict is Verdict.BROKEN and not found.clean
    assert "self-test itself is broken" in found.headline()
    assert "OVERLOOKED    harmless: clipping" in found.text()
    assert "Stop: train nothing" in found.advice()


# The command.


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (outcome(), cli.DONE),
        (outcome(BAD), cli.BUG),
        (outcome(confirmation=replace(SEEN, seen=False)), cli.BUG),
    ],
)
def test_exit_code_is_0_only_when_nothing_was_found(monkeypatch, capsys, found, code):
    monkeypatch.setattr(run, "self_test", lambda watcher: found)
    assert cli.main(["selftest"]) == code
    told = capsys.readouterr()
    assert found.headline() in told.out
    assert ("train nothing" in told.err) == (code != cli.DONE)
    assert cli.main(["selftest", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["verdict"] == found.verdict.value


def test_the_command_runs_the_engine(monkeypatch, capsys):
    monkeypatch.setattr(run, "CONTROLS", ())
    monkeypatch.setattr(run, "CHECKS", {"strength": run.CHECKS["noise strength"]})
    monkeypatch.setattr(run, "self_test", partial(run.self_test, size=SMALL))
    monkeypatch.setattr(mechanism, "gaussian", half_noise)
    assert cli.main(["selftest"]) == cli.BUG
    assert "VIOLATION     noise strength" in capsys.readouterr().out
