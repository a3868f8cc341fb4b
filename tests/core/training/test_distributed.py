"""Any number of processes is one run: one sample, one noise, one set of weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from core.cli import main
from core.errors import UserError
from core.parallel import Hardware
from core.training import distributed, following
from core.training.distributed import (
    Crew,
    crew,
    gathered,
    packed,
    processes,
    unpacked,
)
from core.training.plan import plan_facts
from core.training.state import TrainingState, load_newest
from tests.core.tiny import make_plan

ROOT = Path(__file__).parents[3]
STEPS = 4
SIZES = (2, 3)


def free_ports(count: int) -> list[str]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Three processes went through every scenario of rank.py."""
    out = tmp_path_factory.mktemp("ranks")
    choices = {
        "all": {},
        "adapters": {"trained": ("label embedding",), "lora_rank": 2},
        "outer": {"outer_images": 3, "outer_source": "moments"},
    }
    plans = {
        name: plan_facts(make_plan(out / name, moments=True, steps=STEPS, **choice))
        for name, choice in choices.items()
    }
    (out / "plans.json").write_text(json.dumps(plans))
    ports = free_ports(3)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.core.training.rank", str(out), *ports],
            cwd=ROOT,
            env=os.environ | {"RANK": str(rank), "MASTER_ADDR": "127.0.0.1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    with ThreadPoolExecutor() as pool:
        waiting = {pool.submit(process.communicate): process for process in started}
        try:
            for ended in as_completed(waiting, timeout=120):
                # As torchrun does: one that fails ends the others. One is to die.
                if waiting[ended].returncode not in (0, 9):
                    break
        except TimeoutError:
            pass
        for process in started:
            process.kill()
    errors = "\n".join(ended.result()[1] for ended in waiting)
    assert [process.returncode for process in started] == [0, 0, 9], errors
    return out


def seen(out: Path, size: int) -> list[dict]:
    return [
        json.loads((out / f"{size}-{rank}.json").read_text()) for rank in range(size)
    ]


@pytest.mark.parametrize("size", SIZES)
def test_the_sum_is_that_of_one_process(out, size):
    """Of samples of any size, the empty one too; every unit on one process only."""
    ranks = seen(out, size)
    assert [rank["size"] for rank in ranks] == [size] * size
    for index, leaders in enumerate(ranks[0]["sums"]):
        dealt = [rank["sums"][index]["mine"] for rank in ranks]
        assert sorted(chain.from_iterable(dealt)) == sorted(leaders["drawn"])
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        assert leaders["error"] < 1e-10


@pytest.mark.parametrize("size", SIZES)
def test_noise_is_added_exactly_once(out, size):
    leader, *others = seen(out, size)
    for index, step in enumerate(leader["steps"]):
        assert step["draws"] == [1.5]
        assert step["added"] == pytest.approx([1.5] * 5, abs=1e-6)
        for other in others:
            assert other["steps"][index]["draws"] == []
            assert other["steps"][index]["noisy"] == step["noisy"]


@pytest.mark.parametrize("size", SIZES)
def test_everybody_holds_the_leaders_weights_and_a_stray_bit_is_noticed(out, size):
    leader, *others = (rank["weights"] for rank in seen(out, size))
    for other in others:
        assert other["shared"] == leader["shared"]
    assert leader["equal"] == ""
    assert "no longer hold the same weights" in leader["differing"]


@pytest.mark.parametrize("name", ["all", "adapters", "outer"])
@pytest.mark.parametrize("size", SIZES)
def test_a_training_is_that_of_one_process(out, size, name):
    """Two were stopped and resumed on the way; three were not."""
    alone, shared = (trained(out / f"{name}-{number}") for number in (1, size))
    assert alone.updates == shared.updates == STEPS
    for group in ("weights", "average", "first", "second"):
        pairs = zip(getattr(alone, group), getattr(shared, group), strict=True)
        for one, other in pairs:
            assert one.dtype == torch.float64
            torch.testing.assert_close(other, one, rtol=0, atol=1e-10)
    moved = zip(alone.weights, alone.average, strict=True)
    assert any(float((a - b).abs().max()) > 1e-6 for a, b in moved)
    assert seen(out, size)[0]["charged"][f"{name}-{size}"] == STEPS


def trained(folder: Path) -> TrainingState:
    from safetensors.torch import load_file

    newest = sorted(folder.glob("state-*.safetensors"))[-1]
    tensors = load_file(newest)
    count = sum(name.startswith("weight.") for name in tensors)
    shapes = [tensors[f"weight.{index}"] for index in range(count)]
    state = TrainingState.start([torch.zeros_like(tensor) for tensor in shapes])
    assert load_newest(state, folder)
    return state


@pytest.mark.parametrize("size", SIZES)
def test_the_same_updates_are_made_everywhere(out, size):
    ranks = seen(out, size)
    last = {rank["weights at last"] for rank in ranks}
    assert len(last) == 1 and last != {""}
    assert size == 3 or ranks[0]["stopped"]


@pytest.mark.parametrize("size", SIZES)
def test_nobody_speaks_while_gradients_are_added_up(out, size):
    """However many physical batches there are, one sum of each process is sent."""
    leader, *others = (rank["spoken while summing"] for rank in seen(out, size))
    assert others == [[0] * (3 * STEPS)] * (size - 1)
    # The public images of a step are its own affair.
    assert leader == [0] * (4 * STEPS)


def test_only_the_leader_hears_a_request_to_stop(out):
    """The others go on until the leader, at a safe point, lets them go."""
    assert [rank["ignores"] for rank in seen(out, 3)] == [False, True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("size", SIZES)
def test_on_one_machine_nobody_else_can_reach_the_processes(out, size):
    for rank in seen(out, size):
        assert rank["reachable"] and set(rank["reachable"]) == {"0100007F"}
        # Where the machine's own name leads elsewhere, this is what keeps them in.
        assert rank["interface"] == "lo"


def test_a_process_that_dies_stops_the_run_and_nothing_paid_for_is_lost(out):
    leader, other = (
        json.loads((out / f"death-{rank}.json").read_text()) for rank in (0, 1)
    )
    for rank in (leader, other):
        assert "start the same command again" in rank["lost"]
    assert not (out / "death-2.json").exists()
    assert leader["charged before"] == 3 and "state-000002.json" in leader["left"]
    # Resumed by one process: the step that was lost stays charged, and is not made.
    assert leader["charged"]["death"] == STEPS
    assert trained(out / "death").updates == STEPS - 1


def test_without_torchrun_there_is_one_process(monkeypatch):
    def never(*_, **__):
        raise AssertionError("torch.distributed was used")

    for name in ("init_process_group", "new_group", "broadcast", "scatter", "reduce",
                 "gather", "destroy_process_group", "is_initialized"):  # fmt: skip
        monkeypatch.setattr(distributed.dist, name, never)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert processes() == 1
    with gathered() as leads, crew(never) as found:
        assert leads and found.size == 1
        assert found.deal(np.arange(3), never).tolist() == [0, 1, 2]
        total = torch.ones(3)
        assert found.add_up(total) is total and found.hand_out(total) is total
        found.share([total])
        found.compare([total], 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    assert processes() == 4


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_each_unit_is_dealt_to_one_process(monkeypatch, count):
    """Distinct ones add up to the sample that one process would have had."""
    sent = {}
    monkeypatch.setattr(
        Crew, "_send", lambda _, packet, to: sent.update({to: unpacked(bytes(packet))})
    )
    drawn = np.random.default_rng(count).permutation(99)[:count]
    own = Crew(size=3).deal(drawn, lambda unit: (np.array([unit]),))
    others = [int(unit[0]) for part in sent.values() for (unit,) in part]
    assert sorted(sent) == [1, 2]
    assert sorted([*own.tolist(), *others]) == sorted(drawn.tolist())


@pytest.mark.parametrize("rows", [(), (1,), (2, 1, 3)])
def test_records_arrive_as_they_were_sent(rows):
    rng = np.random.default_rng(0)
    units = [
        (rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8), rng.integers(0, 9, n))
        for n in rows
    ]
    packet = packed(units)
    assert len(packet) > 0  # Nothing at all would end the training.
    for sent, arrived in zip(units, unpacked(packet), strict=True):
        for one, other in zip(sent, arrived, strict=True):
            assert one.dtype == other.dtype and np.array_equal(one, other)


def test_processes_share_the_threads_and_the_cards_of_a_machine(monkeypatch):
    for name, value in (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cpu = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=5)
    card = Hardware(device=torch.device("cuda"), precision=torch.float32, threads=1)
    two = Crew(rank=1, size=2)
    assert two.hardware(cpu).threads == 2
    assert two.hardware(card).device == torch.device("cuda", 1)
    assert Crew().hardware(card) is card
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="start 2 with --nproc-per-node"):
        two.hardware(card)
    assert two.hardware(cpu).threads == 1


@pytest.mark.parametrize("leads", [True, False])
def test_run_follows_where_it_does_not_lead(monkeypatch, tmp_path, leads):
    """It opens neither the project nor the ledger."""
    called = []

    @contextmanager
    def gathered():
        yield leads

    monkeypatch.setattr(distributed, "gathered", gathered)
    monkeypatch.setattr(following, "follow", lambda: called.append("follow"))
    monkeypatch.setattr("core.run.run_project", lambda *_, **__: called.append("run"))
    given = ["--source", "images", "--epsilon", "1"]
    code = main(["run", str(tmp_path / "project"), *given])
    assert called == ["run" if leads else "follow"]
    assert (tmp_path / "project").exists() == leads
    assert leads or code == 0


ALONE_AGAIN = """
import os, torch
from core.training.distributed import team
with team() as crew:
    weight = torch.zeros(3, requires_grad=True)
    weight.grad = torch.ones(3)
    torch.optim.Adam([weight]).step()
    crew.anybody(False)
    crew.wait()
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
print(sum("gloo" in name for name in names))
"""  # noqa: E501


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_nothing_of_a_group_is_left_behind():
    """Its threads abort the process now and then when Python ends before them."""
    common = {
        "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_ports(1)[0],
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE_AGAIN],
            cwd=ROOT,
            env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    assert [process.communicate(timeout=120)[0] for process in started] == ["0\n"] * 2
