"""One process of a test of scale-out: `python -m tests.core.training.rank OUT PORT...`.

Started three times by test_distributed.py, each with a rank, as torchrun would. Every
scenario writes what this rank saw to OUT; the test compares. Noise is off, and every
number has double precision: both by patching, here and nowhere else.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import Stopped, UserError
from core.events import Watcher
from core.parallel import Hardware
from core.privacy import mechanism as mechanism_room
from core.privacy.gradients.sums import Pace
from core.privacy.ledger import Ledger
from core.privacy.mechanism import Mechanism, private_step
from core.training import distributed, following, gradients, trainer, warmup
from core.training.distributed import Crew, ProcessLost, crew, fingerprint, gathered
from core.training.plan import Plan, plan_from_facts
from tests.core.tiny import make_dataset

RANK = int(os.environ["RANK"])
SIZE = 5
SIGMA, CLIP, BATCH = 3.0, 0.5, 8
DEADLY_STEP = 3
WITH_NOISE = mechanism_room._with_noise


def vector(unit: int) -> torch.Tensor:
    """A unit's clipped gradient."""
    raw = torch.from_numpy(np.random.default_rng(unit).standard_normal(SIZE))
    return raw * min(1.0, CLIP / float(raw.norm()))


def total_of(units: Iterable[int]) -> torch.Tensor:
    total = torch.zeros(SIZE, dtype=torch.float64)
    for unit in units:
        total += vector(int(unit))
    return total


def sums(found: Crew) -> list[dict]:
    """Samples of any size: whom each rank was dealt, and what they add up to."""
    seen = []
    for count in (0, 1, 2, 3, 17, 40):
        drawn = np.random.default_rng(count).permutation(1000)[:count]
        mine = dealt(found, drawn)
        total = found.add_up(total_of(mine))
        error = float((total - total_of(drawn)).abs().max())
        seen.append({"drawn": drawn.tolist(), "mine": mine, "error": error})
    return seen


def dealt(found: Crew, drawn: np.ndarray) -> list[int]:
    """This rank's units; the others find their numbers in the records."""
    if RANK == 0:
        return found.deal(drawn, lambda unit: (np.array([unit]),)).tolist()
    records = found.receive()
    assert records is not None
    return [int(numbers[0]) for (numbers,) in records]


def steps(found: Crew) -> list[dict]:
    """Real steps, one on an empty sample, with noise that can be counted: its σ·C."""
    seen = []
    for present in (0, 30):
        draws: list[float] = []
        with noise(draws):
            noisy, added = leading(found, present) if RANK == 0 else helping(found)
        seen.append({"draws": draws, "added": added, "noisy": noisy.tolist()})
    return seen


@contextmanager
def noise(draws: list[float]) -> Iterator[None]:
    def gaussian(size: int, deviation: float) -> torch.Tensor:
        draws.append(deviation)
        return torch.full((size,), deviation, dtype=torch.float32)

    before = mechanism_room.gaussian, mechanism_room._with_noise
    mechanism_room.gaussian, mechanism_room._with_noise = gaussian, WITH_NOISE
    yield
    mechanism_room.gaussian, mechanism_room._with_noise = before


def leading(found: Crew, present: int) -> tuple[torch.Tensor, list[float]]:
    exact: list[torch.Tensor] = []

    def summed(drawn: np.ndarray) -> torch.Tensor:
        exact.append(total_of(drawn))
        return found.add_up(total_of(dealt(found, drawn)))

    noisy = private_step(
        Mechanism.poisson(
            population=32,
            batch_size=BATCH,
            clip_norm=CLIP,
            noise_multiplier=SIGMA,
            steps=1,
        ),
        present=present,
        clipped_sum=summed,
        commit=lambda charge: None,
    )
    added = noisy * BATCH - exact[0]
    return found.hand_out(noisy), added.tolist()


def helping(found: Crew) -> tuple[torch.Tensor, list[float]]:
    own = found.add_up(total_of(dealt(found, np.empty(0))))
    return found.hand_out(own), []


def weights(found: Crew) -> dict:
    """Everybody gets the leader's weights; one bit that differs later is noticed."""
    torch.manual_seed(RANK)
    own = [torch.randn(3, 2), torch.randn(4)]
    found.share(own)
    outcome = {"shared": [w.tolist() for w in own], "equal": "", "differing": ""}
    last = RANK == found.size - 1
    for name, change in (("equal", 0.0), ("differing", 1e-7 * last)):
        own[1][2] += change * own[1][2].abs()
        try:
            found.compare(own, updates=1)
        except UserError as error:
            outcome[name] = str(error)
    found.compare(own, updates=2)  # Not every step; nobody waits for anybody.
    return outcome


def reachable() -> list[str]:
    """Addresses on which this process listens, torchrun's own port left out."""
    sockets = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            sockets.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:
            continue
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[index] for index in (1, 3, 9))
            address, port = local.split(":")
            own = f"socket:[{inode}]" in sockets and state == "0A"
            if own and int(port, 16) != int(os.environ["MASTER_PORT"]):
                addresses.append(address)
    return addresses


def patch_everywhere(name: str, value: object) -> None:
    """Whoever has imported it by name."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("core.") and name in vars(module):
            setattr(module, name, value)


def make_exact() -> None:
    """Double precision throughout, no noise, and draws that can be made again."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    distributed.NOISY = torch.float64
    hardware = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=2)
    patch_everywhere("choose_hardware", lambda *_: hardware)
    public = warmup.public_network
    patch_everywhere("public_network", lambda *of: public(*of).double())
    # The others draw the views of several units at once, and so differently.
    pace = Pace(strategy="one by one", rows_at_once=64, threads=2)
    patch_everywhere("find_pace", lambda work: pace)
    real = gradients.make_views

    def views(*arguments: Any, generator: torch.Generator, **options: Any) -> Any:
        return real(*arguments, generator=generator.manual_seed(5), **options)

    patch_everywhere("make_views", views)
    mechanism_room._with_noise = lambda total, deviation: total


def draws_again() -> None:
    """The same samples in every run of a plan, the second one empty."""
    step = iter(range(100))

    def draw(present: int, probability: float, cap: int) -> np.ndarray:
        number = next(step)
        count = 0 if number == 1 else min(present, cap)
        return np.random.default_rng(number).permutation(present)[:count]

    mechanism_room.draw_units = draw


def watch_the_wire() -> list[int]:
    """For every sum that this process makes: how often it spoke to others meanwhile."""
    spoken: list[int] = []
    summing: list[bool] = []

    def counting(real: Callable) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            if summing:
                spoken[-1] += 1
            return real(*arguments, **options)

        return call

    for name in ("send", "recv", "broadcast", "reduce", "gather", "all_reduce",
                 "all_gather", "scatter", "barrier"):  # fmt: skip
        setattr(distributed.dist, name, counting(getattr(distributed.dist, name)))
    real = trainer.summing

    @contextmanager
    def watched(*arguments: Any) -> Iterator[Callable]:
        with real(*arguments) as total_of:

            def total(*of: Any, **options: Any) -> torch.Tensor:
                spoken.append(0)
                summing.append(True)
                found = total_of(*of, **options)
                summing.clear()
                return found

            yield total

    trainer.summing = watched
    return spoken


def forbid(owner: object, name: str) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} is the leader's")

    setattr(owner, name, never)


def tune(out: Path, plan: Plan, name: str, stop_after: int = 100) -> Path:
    """A fine-tune of the leader's, on whatever processes there are."""
    folder = out / name
    folder.mkdir(exist_ok=True)
    ledger = Ledger(out / "ledger.sqlite3")
    begun: list[bool] = []
    watcher = Watcher(
        report=lambda it: begun.append(it.activity == "Training with privacy"),
        stop_requested=lambda: sum(begun) >= stop_after,
    )
    try:
        return trainer.fine_tune(
            replace(plan, run=name),
            make_dataset(17),
            folder,
            ledger,
            device="cpu",
            watcher=watcher,
        ).folder
    finally:
        ledger.close()


def alone(out: Path, plans: dict[str, Plan]) -> None:
    for name, plan in plans.items():
        draws_again()
        tune(out, plan, f"{name}-1")


def together(out: Path, plans: dict[str, Plan], size: int) -> dict:
    """What this rank sees in a run of `size` processes."""
    outcome: dict = {}
    with gathered() as leads:
        assert leads == (RANK == 0)
        outcome["reachable"] = reachable()
        outcome["interface"] = os.environ.get("GLOO_SOCKET_IFNAME")
        last, spoken = remember_weights(), watch_the_wire()
        if leads:
            with crew(lambda: {"only": "sums"}) as found:
                outcome |= parts(found)
            for name, plan in plans.items():
                draws_again()
                if size == 2:  # A stop and a resume on the way.
                    try:
                        tune(out, plan, f"{name}-2", stop_after=1)
                    except Stopped:
                        outcome["stopped"] = True
                tune(out, plan, f"{name}-{size}")
        else:
            jobs = distributed.trainings()
            assert next(jobs) == {"only": "sums"}
            with crew() as found:
                outcome |= parts(found)
                assert found.receive() is None
            following.follow()
        outcome["weights at last"] = last()
        outcome["spoken while summing"] = spoken
        ignored = [signal.getsignal(it) for it in (signal.SIGINT, signal.SIGTERM)]
        outcome["ignores"] = ignored == [signal.SIG_IGN] * 2
    return outcome


def parts(found: Crew) -> dict:
    return {"size": found.size, "sums": sums(found), "steps": steps(found),
            "weights": weights(found)}  # fmt: skip


def remember_weights() -> Callable[[], str]:
    """Fingerprint of the weights after the last update that this process made."""
    real, seen = trainer.update, [b""]

    def update(plan: Plan, state: Any, *rest: Any) -> None:
        real(plan, state, *rest)
        seen.append(fingerprint(state.weights))

    trainer.update = update
    return lambda: seen[-1].hex()


def death(out: Path, plan: Plan) -> dict:
    """The last rank dies in the middle of a step."""
    if RANK == 2:
        real, received = Crew.receive, []

        def receive(self: Crew) -> Any:
            received.append(1)
            if len(received) == DEADLY_STEP:
                os._exit(9)
            return real(self)

        Crew.receive = receive
    draws_again()
    outcome: dict = {}
    try:
        with gathered() as leads:
            if leads:
                tune(out, plan, "death")
            else:
                following.follow()
    except ProcessLost as error:
        outcome["lost"] = str(error)
    if RANK == 0:
        outcome["left"] = [path.name for path in (out / "death").glob("*.json")]
        outcome["charged before"] = steps_charged(out, "death")
        del os.environ["TORCHELASTIC_RUN_ID"]
        tune(out, plan, "death")
    return outcome


def steps_charged(out: Path, run: str) -> int:
    ledger = Ledger(out / "ledger.sqlite3")
    rows = [entry.content for entry in ledger.entries() if entry.account.run == run]
    ledger.close()
    return sum(row.count for row in rows if row.batch_cap is not None)


def main() -> None:
    out, ports = Path(sys.argv[1]), sys.argv[2:]
    os.environ["LOCAL_RANK"] = os.environ["RANK"]
    facts = json.loads((out / "plans.json").read_text())
    plans = {name: plan_from_facts(plan) for name, plan in facts.items()}
    make_exact()
    if RANK == 0:
        alone(out, plans)
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    if RANK > 0:
        for owner, name in ((Ledger, "__init__"), (trainer, "save_state"),
                            (mechanism_room, "draw_units"),
                            (mechanism_room, "gaussian")):  # fmt: skip
            forbid(owner, name)
    for size, port in zip((2, 3, 3), ports, strict=True):
        if RANK >= size:
            continue
        os.environ |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
                       "MASTER_PORT": port}  # fmt: skip
        dying = port == ports[-1]
        found = death(out, plans["all"]) if dying else together(out, plans, size)
        name = "death" if dying else str(size)
        if RANK == 0:
            names = [run.name for run in out.iterdir() if run.is_dir()]
            found["charged"] = {run: steps_charged(out, run) for run in names}
        (out / f"{name}-{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
