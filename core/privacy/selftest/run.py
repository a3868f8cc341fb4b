"""`sfumato selftest`: all checks on the real engine, then on engines broken on purpose.

    real engine  ──▶ checks ──▶ findings       any number out of range: violation
    broken ones  ──▶ checks ──▶ confirmations  any fault not seen: the test is broken

Correct code raises a false alarm less than once in a million runs: fewer than fifty
thresholds, each passed once in a billion.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from core.events import Watcher
from core.privacy.selftest import audit, charging, clipping, noise, sampling
from core.privacy.selftest.controls import CONTROLS
from core.privacy.selftest.engine import Engine
from core.privacy.selftest.findings import Conditions, Finding, Size
from core.privacy.selftest.report import Confirmation, SelfTest

FULL = Size()

# What another process does, with this one's packages.
_DRAW = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from core.privacy.selftest.engine import Engine, step_noise; "
    "noise = step_noise(Engine.real(), int(sys.argv[2])); "
    "sys.stdout.buffer.write(noise.tobytes())"
)
OTHER_PROCESSES = 2
FEWER_CANARIES = 4
"""A trial with a deliberate fault makes do with a quarter of the canaries: that the
fault shows all the same says more, not less."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check, and how long it takes compared with the others."""

    measure: Callable[[Engine, Conditions], Finding]
    effort: int


# Freshness comes last, because other processes take their time to start.
CHECKS = {
    "noise strength": Check(measure=noise.strength, effort=3),
    "noise shape": Check(measure=noise.shape, effort=3),
    "batch sizes": Check(measure=sampling.sizes, effort=1),
    "who is drawn": Check(measure=sampling.membership, effort=1),
    "batch limit": Check(measure=sampling.limits, effort=1),
    "clipping": Check(measure=clipping.bound, effort=1),
    "charge first": Check(measure=charging.order, effort=1),
    "accountant": Check(measure=charging.accountant, effort=1),
    "audit of one step": Check(measure=audit.one_step, effort=16),
    "audit at epsilon 1": Check(measure=audit.strict, effort=16),
    "audit at epsilon 8": Check(measure=audit.loose, effort=16),
    "noise freshness": Check(measure=noise.freshness, effort=1),
}


def self_test(watcher: Watcher, size: Size = FULL) -> SelfTest:
    """Run every check on the engine, and on its broken variants.

    Guarantee: reads no image and no ledger but one of its own, in a temporary folder;
    changes nothing in this process, so a training beside it keeps its noise.

    Raises:
        Stopped: between two drawings, when the watcher asks.
    """
    started = time.monotonic()
    few = replace(
        size,
        canaries=size.canaries // FEWER_CANARIES,
        canaries_of_one_step=size.canaries_of_one_step // FEWER_CANARIES,
    )
    real = Engine.real()
    trials = [(one, name) for one in CONTROLS for name in one.checks]
    efforts = [check.effort for check in CHECKS.values()]
    efforts += [-(-CHECKS[name].effort // FEWER_CANARIES) for _, name in trials]
    reached = _steps(watcher, efforts)
    with _other_processes(size.shifts) as elsewhere:
        findings = [
            check.measure(
                real, Conditions(size=size, elsewhere=elsewhere, reached=next(reached))
            )
            for check in CHECKS.values()
        ]
    confirmations = []
    for control, name in trials:
        conditions = Conditions(size=few, elsewhere=tuple, reached=next(reached))
        found = CHECKS[name].measure(control.broken(real), conditions)
        confirmations.append(
            Confirmation(fault=control.name, check=name, seen=found.violated)
        )
    watcher.progress(_ACTIVITY, 100, 100)
    return SelfTest(
        findings=tuple(findings),
        confirmations=tuple(confirmations),
        seconds=time.monotonic() - started,
    )


_ACTIVITY = "Checking the privacy engine"


def _steps(
    watcher: Watcher, efforts: Sequence[int]
) -> Iterator[Callable[[float], None]]:
    """For each check in turn, what it calls with the share of it that is done."""
    done = 0
    for effort in efforts:

        def reached(share: float, done: int = done, effort: int = effort) -> None:
            watcher.stop_if_requested()
            percent = 100 * (done + share * effort) / sum(efforts)
            watcher.progress(_ACTIVITY, int(percent), 100)

        reached(0.0)
        yield reached
        done += effort


@contextmanager
def _other_processes(size: int) -> Iterator[Callable[[], list[np.ndarray]]]:
    """Noise as fresh processes draw it; they are gone when the block ends."""
    command = [sys.executable, "-c", _DRAW, json.dumps(sys.path), str(size)]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        drawing = []
        for _ in range(OTHER_PROCESSES):
            process = stack.enter_context(
                subprocess.Popen(command, stdout=pipe, stderr=pipe)
            )
            stack.callback(process.kill)
            drawing.append(process)

        def drawn() -> list[np.ndarray]:
            answers = [process.communicate() for process in drawing]
            for process, (_, complaint) in zip(drawing, answers, strict=True):
                if process.returncode != 0:
                    raise RuntimeError(complaint.decode(errors="replace"))
            return [np.frombuffer(noise, np.float64) for noise, _ in answers]

        yield drawn
