"""A tiny project that can be killed at any point, with a log of what it did."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from core import pipeline
from core.checkpoints.store import load_checkpoint
from core.data.dataset import ImageDataset
from core.events import Watcher
from core.pipeline import FineTuned
from core.privacy import mechanism
from core.privacy import teacher as private_teacher
from core.privacy.ledger import Ledger
from core.training import cells, downhill, matching, moments, purse, trainer, warmup
from core.training import teacher as teaching
from core.training.cells import CellRelease
from core.training.matching import FeatureRelease
from core.training.plan import Plan
from core.training.state import TrainingState, load_newest
from core.training.sums import NoisySums
from core.training.teacher import load_teacher
from core.training.warmup import SUMS_FILE
from core.workspace import Project, Workspace
from tests.core.tiny import make_dataset, make_plan, make_teacher


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One project on a computer of its own.

    Attributes:
        folder: Holds the `project`, the `home` of the ledger, and a `log` of what was
            really done, which the operating system keeps when the process is killed.
        shapes: Of the trained parameters.
    """

    folder: Path
    plan: Plan
    dataset: ImageDataset
    shapes: tuple[torch.Size, ...]

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def ledger(self) -> Path:
        return self.folder / "home" / "ledger.sqlite3"

    def moved(self, folder: Path) -> Bench:
        """The same plan and data on another computer."""
        folder.mkdir(parents=True)
        return replace(self, folder=folder)

    def tune(self, watcher: Watcher | None = None) -> FineTuned:
        """What `sfumato run` does with a plan; a state after every step."""
        with (
            patch.dict(os.environ, {"SFUMATO_HOME": str(self.ledger.parent)}),
            patch.object(trainer, "SECONDS_BETWEEN_STATES", -1.0),
            patch.object(purse, "epsilon", lambda *_: 0.0),
            patch.object(teaching, "PSEUDO_IMAGES", 60),
            self._logged(),
            Workspace.open(self.project) as workspace,
        ):
            workspace.save_project(Project(device="cpu"))
            return pipeline.fine_tune(
                workspace, self.plan, self.dataset, watcher or Watcher()
            )

    @contextmanager
    def _logged(self) -> Iterator[None]:
        """Write down each look at the data and each noise, before it is made."""
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def noted(real: Callable, what: str) -> Callable:
            def noting(*arguments: object, **options: object) -> object:
                os.write(log, f"{what}\n".encode())
                return real(*arguments, **options)

            return noting

        gaussian = mechanism.gaussian

        def noise(*arguments: object) -> torch.Tensor:
            drawn = gaussian(*arguments)
            digest = hashlib.sha256(drawn.numpy().tobytes()).hexdigest()
            os.write(log, f"noise {digest}\n".encode())
            return drawn

        with (
            patch.object(mechanism, "gaussian", noise),
            patch.object(matching, "REFERENCE", 200),
            patch.object(mechanism, "draw_units", noted(mechanism.draw_units, "step")),
            patch.object(moments, "sum_of_means", noted(moments.sum_of_means, "sum")),
            patch.object(
                moments, "sum_of_squares", noted(moments.sum_of_squares, "sum")
            ),
            patch.object(cells, "sum_of_means", noted(cells.sum_of_means, "sum")),
            patch.object(downhill, "sum_of_means", noted(downhill.sum_of_means, "sum")),
            patch.object(cells, "sum_of_squares", noted(cells.sum_of_squares, "sum")),
            patch.object(warmup, "read_lessons", noted(warmup.read_lessons, "look")),
            patch.object(
                private_teacher,
                "sum_of_gradients",
                noted(private_teacher.sum_of_gradients, "lesson"),
            ),
        ):
            try:
                yield
            finally:
                os.close(log)

    def log(self) -> list[str]:
        """What was done: "sum", "look", "lesson", "step", "noise" with its hash."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.is_file() else []

    @property
    def sums(self) -> int:
        """How many sums of the moments are kept on disk."""
        path = self.project / "training" / SUMS_FILE
        return NoisySums(lambda _: None, path, run=self.plan.run).kept

    @property
    def moments(self) -> Path:
        return self.project / "training" / warmup.MOMENTS_FILE

    @property
    def teacher(self) -> Path:
        return self.project / "training" / warmup.TEACHER

    def performed(self) -> tuple[int, int, int]:
        """(moment releases, the teacher's, steps) that looked at the data."""
        log = self.log()
        # Lessons are read once by a process, and then used for every release.
        return (
            log.count("sum"),
            max(map(log.count, ("look", "lesson"))),
            log.count("step"),
        )

    def charged(self) -> tuple[int, int, int]:
        """As `performed`, in the ledger; its chain is checked on the way."""
        if not self.ledger.exists():
            return 0, 0, 0
        ledger = Ledger(self.ledger, [self.project / "ledger-head.json"])
        found: Counter[str] = Counter()
        lesson = self.plan.teacher.charge(1)
        for charge in ledger.charged(self.dataset.fingerprint, run=self.plan.run):
            taught = replace(charge, count=1) == lesson
            once = "lesson" if taught else "sum"
            found[once if charge.batch_cap is None else "step"] += charge.count
        ledger.close()
        return found["sum"], found["lesson"], found["step"]

    def committed(self) -> tuple[int, int, int]:
        """As `performed`, by the plan."""
        releases = sum(charge.count for charge in self.plan.moments.charges())
        return releases, self.plan.teacher.steps, self.plan.mechanism.steps

    def updates(self) -> int | None:
        """Steps in the newest readable state; None when there is none."""
        state = TrainingState.start([torch.zeros(shape) for shape in self.shapes])
        return state.updates if load_newest(state, self.project / "training") else None

    def check(self) -> None:
        """What holds after any crash whatever."""
        charged = self.charged()
        for done, paid, allowed in zip(
            self.performed(), charged, self.committed(), strict=True
        ):
            assert done <= paid <= allowed
        updates = self.updates()
        # A state is on disk before the first step is charged.
        assert updates is not None or charged[2] == 0
        assert (updates or 0) <= charged[2]
        # A teacher on disk is whole, and learned no more than was paid for.
        if self.teacher.exists():
            assert int(load_teacher(self.teacher).lessons) <= charged[1]

    def finish(self) -> None:
        """Go on to the end, and look at everything once more."""
        before = self.charged()
        # A sum that was begun and is not kept is lost, and so are those after it.
        lost = not self.moments.exists() and self.sums != before[0]
        tuned = self.tune()
        self.check()
        sums, lessons, steps = self.charged()
        assert sums == (before[0] if lost else self.committed()[0])
        assert self.moments.exists() is not lost
        # Without moments there is nothing to teach on.
        assert lessons == (before[1] if lost else self.committed()[1])
        # The last release may be paid for and lost; its teacher is then that before.
        assert self.teacher.exists() or lessons == before[1]
        assert tuned.steps_charged == steps == self.committed()[2]
        assert tuned.updates == self.updates()
        assert load_checkpoint(tuned.folder).card.steps == tuned.updates
        left = [p.name for p in self.project.rglob(".*") if p.name != ".lock"]
        assert left == []


def make_bench(folder: Path, *, steps: int, lessons: int, rounds: int = 0) -> Bench:
    """A plan of two releases, a teacher and some steps on six images, run to its end.

    Args:
        lessons: Releases of the teacher's.
        rounds: Releases of the means of cells; 0 for neither cells nor features.
    """
    plan = make_plan(
        folder, moments=True, steps=steps, augmentation_multiplicity=1, batch_size=2
    )
    plan = replace(
        plan,
        recipe=replace(plan.recipe, moment_images=64),
        moments=replace(
            plan.moments,
            cells=_cells(rounds) if rounds else None,
            features=FEATURES if rounds else None,
        ),
        teacher=make_teacher(steps=lessons),
    )
    bench = Bench(folder=folder, plan=plan, dataset=make_dataset(6), shapes=())
    bench.tune()
    states = sorted((bench.project / "training").glob("state-*.safetensors"))
    tensors = load_file(states[-1])
    count = sum(name.startswith("weight.") for name in tensors)
    return replace(
        bench, shapes=tuple(tensors[f"weight.{n}"].shape for n in range(count))
    )


FEATURES = FeatureRelease(classes=2, rounds=2, cells=2, noise_multiplier=70.0)


def _cells(rounds: int) -> CellRelease:
    return CellRelease(
        classes=2, per_class=2, size=1, axes=4, rounds=rounds, mean_norm=10.0,
        norm=5.0, means_noise=50.0, squares_noise=25.0, noise_edge=0.4,
    )  # fmt: skip


DISK = ("fsync", "replace", "execute", "serialize_file", "unlink", "mkstemp", "write",
        "draw_units", "gaussian", "rmtree", "read_lessons", "sum_of_gradients",
        "save_teacher")  # fmt: skip
"""Functions beside which a kill is most likely to find something half done."""


class Kills:
    """Processes that run a bench and die on the way.

    They are forked from a server that has only imported things: from this process they
    could inherit locks of threads that do not exist in them.
    """

    def __init__(self) -> None:
        self._system = multiprocessing.get_context("forkserver")
        # The second is imported when a network is built, which takes seconds.
        heavy = "diffusers.models.unets.unet_2d"
        self._system.set_forkserver_preload([__name__, heavy])

    def count(self, bench: Bench) -> tuple[int, int]:
        """Run to the end; tell how many calls, and calls of `DISK`, there were."""
        mine, theirs = self._system.Pipe()
        child = self._system.Process(target=_die_at, args=(bench, theirs))
        child.start()
        counts = mine.recv()
        child.join()
        assert child.exitcode == 0
        return counts

    def at_call(self, bench: Bench, *, call: int | None, disk: int | None) -> bool:
        """Kill it at its n-th call, or beside its n-th of `DISK`; False: it ended."""
        return self._killed(bench, call=call, disk=disk)

    def at_named(self, bench: Bench, name: str, number: int) -> bool:
        """Kill it as a function of this name begins or ends, the n-th time it does."""
        return self._killed(bench, named=(name, number))

    def _killed(self, bench: Bench, **at: object) -> bool:
        child = self._system.Process(target=_die_at, args=(bench,), kwargs=at)
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        return child.exitcode != 0

    def at_report(self, bench: Bench, reports: int) -> bool:
        """Kill it from outside, once it has reported so often."""
        mine, theirs = self._system.Pipe(duplex=False)
        child = self._system.Process(target=_report, args=(bench, theirs))
        child.start()
        theirs.close()
        try:
            for _ in range(reports):
                mine.recv()
            child.kill()
        except EOFError:
            pass
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        return child.exitcode != 0


def _die_at(
    bench: Bench,
    tell: Connection | None = None,
    *,
    call: int | None = None,
    disk: int | None = None,
    named: tuple[str, int] = ("", 0),
) -> None:
    calls, beside, of_name = 0, 0, 0

    def tick(frame: object, event: str, what: object) -> None:
        nonlocal calls, beside, of_name
        calls += 1
        name = what.__name__ if event.startswith("c_") else frame.f_code.co_name
        beside += name in DISK
        of_name += name == named[0]
        if (
            calls == call
            or (beside == disk and name in DISK)
            or (name, of_name) == named
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(tick)
    sys.setprofile(tick)
    bench.tune()
    sys.setprofile(None)
    threading.setprofile(None)
    if tell is not None:
        tell.send((calls, beside))


def _report(bench: Bench, tell: Connection) -> None:
    bench.tune(Watcher(report=lambda _: tell.send(None)))
