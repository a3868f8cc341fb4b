"""One run on several processes: rank 0 leads, the others add up gradients for it.

torchrun starts the same command G times. Rank 0 alone opens the project and the ledger,
draws the units, adds the noise, writes and reports; the others wait until it has
gradients to add up. A logical step is three collectives, whatever the physical batches,

    each rank's units out → clipped sums in (reduce) → noisy mean out (broadcast)

after which every rank makes the same update. Without torchrun nothing of this happens.

Only the leader reads images from a disk. They, and sums without noise, pass between the
processes in clear: on one machine they stay on the loopback interface; between machines
the network must be the custodian's own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import numpy as np
import torch

# Loaded by the first step of an optimiser if not here. Its functions keep the group of
# the moment they are defined in; a group that is kept may abort the process at its end.
import torch.distributed.nn.functional
from torch import Tensor
from torch import distributed as dist

from core.errors import Stopped, UserError
from core.parallel import Hardware
from core.training.units import DrawUnit, UnitRecords

LEADER = 0
NOISY = torch.float32
"""Precision of a noisy mean. The sums before it have another, and a process that hears
it in that one would take it for other numbers, unnoticed by the network."""
COMPARED_EVERY = 5
"""Steps between two comparisons of the weights, the first step's included."""
BETWEEN_TRAININGS = timedelta(days=30)
WITHIN_A_STEP = timedelta(hours=1)
"""How much longer than another a process may take before it counts as gone."""

_LOOPBACK = {"linux": "lo", "darwin": "lo0"}


class ProcessLost(UserError):
    """Another process of the run died or does not answer."""


def processes() -> int:
    """How many processes torchrun started; 1 without it."""
    started = "TORCHELASTIC_RUN_ID" in os.environ
    return int(os.environ["WORLD_SIZE"]) if started else 1


def leads() -> bool:
    """Whether this process leads the run: the first that torchrun started, or alone."""
    return processes() == 1 or int(os.environ["RANK"]) == LEADER


@contextmanager
def gathered() -> Iterator[bool]:
    """Meet the other processes of the run for the length of a `with` block.

    Yields:
        Whether this process leads. One that does not leads nothing and opens nothing:
        it works on the `trainings` that it is told of.

    Raises:
        ProcessLost: when another process is gone.
    """
    if processes() == 1:
        yield True
        return
    _meet()
    leading = dist.get_rank() == LEADER
    with _at_the_end(lambda: _tell({}) if leading else None):
        yield leading
    dist.destroy_process_group()


def trainings() -> Iterator[dict]:
    """What a process that does not lead is told to help with, until the run is over.

    Yields:
        What the leader gave to `crew`.

    Raises:
        ProcessLost: when the leader is gone.
    """
    while job := _hear():
        yield job


@contextmanager
def crew(job: Callable[[], dict] | None = None) -> Iterator[Crew]:
    """The processes that share one training, for the length of a `with` block.

    Args:
        job: For the leader: gives what the others must know, as JSON types.
    """
    if processes() == 1 or not dist.is_initialized():
        yield Crew()
        return
    if job is not None:
        _tell(job())
    with _connected():
        group = dist.new_group(timeout=WITHIN_A_STEP)
    found = Crew(rank=dist.get_rank(), size=dist.get_world_size(), group=group)
    with _at_the_end(found.finish):
        yield found
    dist.destroy_process_group(group)


@contextmanager
def team() -> Iterator[Crew]:
    """The processes of a command that all do the same, for a `with` block.

    For public images only: every process reads them itself, and nobody leads but in
    writing files.
    """
    if processes() == 1:
        yield Crew()
        return
    _meet()
    yield Crew(rank=dist.get_rank(), size=dist.get_world_size())
    dist.destroy_process_group()


class Crew:
    """The processes that share a training; in one process, nobody else.

    Every process calls the same methods in the same order. Each of them raises
    `ProcessLost` when another process is gone.
    """

    def __init__(
        self,
        *,
        rank: int = LEADER,
        size: int = 1,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.rank, self.size, self._group = rank, size, group

    def hardware(self, whole: Hardware) -> Hardware:
        """This process' part of a machine that it shares with others.

        Raises:
            UserError: when there are more processes than graphics cards.
        """
        if self.size == 1:
            return whole
        rank, here = (int(os.environ[f"LOCAL_{it}"]) for it in ("RANK", "WORLD_SIZE"))
        if whole.device.type != "cuda":
            return replace(whole, threads=max(1, whole.threads // here))
        if here > (cards := torch.cuda.device_count()):
            raise UserError(
                f"{here} processes were started on a machine with {cards} graphics "
                f"cards: start {cards} with --nproc-per-node, or use --device cpu."
            )
        return replace(whole, device=torch.device("cuda", rank))

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Make everybody's tensors those of the leader, in place."""
        for tensor in tensors if self.size > 1 else ():
            with _connected(), torch.no_grad():
                dist.broadcast(tensor, LEADER, group=self._group)

    def deal(self, drawn: np.ndarray, draw: DrawUnit) -> np.ndarray:
        """For the leader: send the others their parts of the units, give back its own.

        Guarantee: each of the drawn units is given to exactly one process, so that
        sampling is the leader's, whatever the number of processes.

        Args:
            drawn: int64 [n], n = 0 too.
            draw: unit → its records.

        Returns:
            int64 [m].
        """
        own, *parts = np.array_split(drawn, self.size)
        for rank, part in enumerate(parts, start=1):
            self._send(packed([draw(int(unit)) for unit in part]), rank)
        return own

    def receive(self) -> list[UnitRecords] | None:
        """For the others: the records of each unit of a step; None after the last."""
        length = torch.empty(1, dtype=torch.int64)
        with _connected():
            dist.recv(length, LEADER, group=self._group)
            packet = torch.empty(int(length), dtype=torch.uint8)
            if len(packet):
                dist.recv(packet, LEADER, group=self._group)
        return unpacked(packet.numpy().tobytes()) if len(packet) else None

    def _send(self, packet: bytearray, rank: int) -> None:
        with _connected():
            dist.send(torch.tensor([len(packet)]), rank, group=self._group)
            if packet:
                content = torch.frombuffer(packet, dtype=torch.uint8)
                dist.send(content, rank, group=self._group)

    def add_up(self, total: Tensor) -> Tensor:
        """The sum of everybody's `total`, for the leader; in its precision.

        Once per logical step: what a process adds up by itself is its own affair.
        """
        if self.size > 1:
            with _connected():
                dist.reduce(total, LEADER, group=self._group)
        return total

    def add_up_for_all(self, tensors: Sequence[Tensor]) -> None:
        """Make everybody's tensors the sums of all, in place, to the last bit alike."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _connected():
            dist.all_reduce(flat, group=self._group)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def anybody(self, says: bool) -> bool:
        """Whether any process says so; all of them hear the same, at the same point."""
        said = torch.tensor([float(says)])
        self.add_up_for_all([said])
        return bool(said.item() > 0)

    def wait(self) -> None:
        """Until all processes have come to this point."""
        self.anybody(False)

    def hand_out(self, noisy: Tensor) -> Tensor:
        """The leader's noisy mean, for everybody, in place of what the others gave."""
        noisy = noisy.to(NOISY)
        self.share([noisy])
        return noisy

    def compare(self, weights: Sequence[Tensor], updates: int) -> None:
        """Now and then, see that everybody holds the same weights.

        Raises:
            UserError: for the leader, when they do not.
        """
        if self.size == 1 or (updates - 1) % COMPARED_EVERY:
            return
        digest = torch.frombuffer(bytearray(fingerprint(weights)), dtype=torch.uint8)
        found = None
        if self.rank == LEADER:
            found = [torch.empty_like(digest) for _ in range(self.size)]
        with _connected():
            dist.gather(digest, found, LEADER, group=self._group)
        if found and any(not torch.equal(other, digest) for other in found):
            raise UserError(
                "The processes of the run no longer hold the same weights: use "
                "machines of one kind with one version of Sfumato, and start the same "
                "command again; it goes on from the last state."
            )

    def finish(self) -> None:
        """For the leader: let the others go, between two steps."""
        for rank in range(1, self.size) if self.rank == LEADER else ():
            self._send(bytearray(), rank)


def packed(units: Sequence[UnitRecords]) -> bytearray:
    """The records of units in one piece; never empty."""
    columns = [np.concatenate(column) for column in zip(*units, strict=True)]
    rows = np.array([len(unit[0]) for unit in units], dtype=np.int64)
    buffer = io.BytesIO()
    np.savez(buffer, rows, *columns)
    return bytearray(buffer.getbuffer())


def unpacked(packet: bytes) -> list[UnitRecords]:
    """The inverse of `packed`."""
    with np.load(io.BytesIO(packet), allow_pickle=False) as file:
        rows, *columns = (file[name] for name in file.files)
    ends = np.cumsum(rows)[:-1]
    return list(zip(*(np.split(column, ends) for column in columns), strict=True))


def fingerprint(weights: Sequence[Tensor]) -> bytes:
    """SHA-256 over the bytes of all weights, in order."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().numpy())
    return digest.digest()


@contextmanager
def _connected() -> Iterator[None]:
    """Give the loss of a connection, or of patience, in the user's words."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            "Another process of the run ended, or does not answer: do what its message "
            "says, or start the same command again; what was charged stays charged, "
            "and training goes on from the last state."
        ) from error


@contextmanager
def _at_the_end(say: Callable[[], object]) -> Iterator[None]:
    """Call `say` at the end of a `with` block, and when it was stopped.

    Not after an error: then the others may wait in the middle of a step, and hear that
    this process is gone when it ends and its connections with it.
    """
    try:
        yield
    except Stopped:
        say()
        raise
    say()


def _meet() -> None:
    """Connect the processes that torchrun started."""
    _keep_inside()
    nccl = torch.cuda.is_available()
    with _connected():
        # Long: the others wait while one decodes the folder, or does what only it may.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=BETWEEN_TRAININGS
        )


def _tell(job: dict) -> None:
    """From the leader to all that wait."""
    message = torch.frombuffer(bytearray(json.dumps(job).encode()), dtype=torch.uint8)
    with _connected():
        dist.broadcast(torch.tensor([len(message)]), LEADER)
        dist.broadcast(message, LEADER)


def _hear() -> dict:
    length = torch.empty(1, dtype=torch.int64)
    with _connected():
        dist.broadcast(length, LEADER)
        message = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(message, LEADER)
    return json.loads(message.numpy().tobytes())


def _keep_inside() -> None:
    # PRIVACY: sums without noise must not pass where others could read them.
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            if sys.platform in _LOOPBACK:
                os.environ.setdefault(name, _LOOPBACK[sys.platform])
