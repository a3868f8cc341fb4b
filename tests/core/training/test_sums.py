"""Noisy sums that are kept: charged ahead, made once, given again for nothing."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from core.errors import UserError
from core.privacy.accounting import Charge
from core.training import sums as room
from core.training.sums import NoisySums

ONE = Charge(noise_multiplier=1.0, count=1)
THREE = Charge(noise_multiplier=2.0, count=3)
IN_ORDER = (ONE, THREE, THREE, THREE, ONE)


def made(sums: NoisySums, order: list, charges=IN_ORDER) -> list[torch.Tensor]:
    """One sum for each of these; what is read is noted."""

    def read():
        order.append("read")
        return torch.zeros(2, 3, dtype=torch.float64)

    return [sums.next(read, charge) for charge in charges]


def test_every_sum_is_paid_for_first_and_three_at_once():
    order: list[object] = []
    found = made(NoisySums(order.append), order)
    assert order == [ONE, "read", THREE, "read", "read", "read", ONE, "read"]
    assert all(noisy.dtype == torch.float32 for noisy in found)
    assert len({float(noisy[0, 0]) for noisy in found}) == 5


def test_what_is_kept_is_given_again_without_a_look_or_a_charge(tmp_path):
    path, order = tmp_path / "sums.safetensors", []
    first = made(NoisySums(order.append, path), order, IN_ORDER[:4])
    order.clear()
    again = NoisySums(order.append, path)
    assert again.kept == 4
    found = made(again, order)
    assert order == [ONE, "read"]
    assert all(torch.equal(a, b) for a, b in zip(first, found[:4], strict=True))
    assert NoisySums(order.append, path).kept == 5


def test_a_sum_is_on_disk_before_the_next_is_asked_for(tmp_path):
    path, kept = tmp_path / "sums.safetensors", []

    def count(_: Charge) -> None:
        kept.append(NoisySums(count, path).kept)

    made(NoisySums(count, path), [])
    assert kept == [0, 1, 4]


def test_what_cannot_be_charged_is_not_read(tmp_path):
    def refuse(_: Charge) -> None:
        raise PermissionError

    order: list[object] = []
    sums = NoisySums(refuse, tmp_path / "sums.safetensors")
    with pytest.raises(PermissionError):
        made(sums, order)
    assert order == [] and sums.kept == 0
    assert list(tmp_path.iterdir()) == []


def test_without_a_path_nothing_is_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(NoisySums(lambda _: None), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:-5], lambda b: b"{}" + b[2:]]
)
def test_what_cannot_be_read_is_not_kept(tmp_path, damage):
    path = tmp_path / "sums.safetensors"
    made(NoisySums(lambda _: None, path), [])
    path.write_bytes(damage(path.read_bytes()))
    assert NoisySums(lambda _: None, path).kept == 0


def test_sums_of_another_run_or_of_something_else_are_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "sums.safetensors"
    made(NoisySums(lambda _: None, path, run="one"), [])
    assert NoisySums(lambda _: None, path, run="one").kept == 5
    assert NoisySums(lambda _: None, path, run="two").kept == 0
    monkeypatch.setattr(room, "FORMAT", "another")
    assert NoisySums(lambda _: None, path, run="one").kept == 0


def test_what_was_read_is_no_longer_the_file(tmp_path):
    """Where a file is mapped to memory, some systems refuse to replace it."""
    path = tmp_path / "sums.safetensors"
    first = made(NoisySums(lambda _: None, path), [])
    again = NoisySums(lambda _: None, path)
    with open(path, "r+b") as file:
        file.seek(-100, 2)
        file.write(bytes(100))
    found = made(again, [])
    assert all(torch.equal(a, b) for a, b in zip(first, found, strict=True))


def test_without_room_on_the_disk_nothing_is_charged(tmp_path, monkeypatch):
    order: list[object] = []
    full = SimpleNamespace(free=room.ROOM - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    sums = NoisySums(order.append, tmp_path / "sums.safetensors")
    with pytest.raises(UserError, match="free some space first"):
        made(sums, order)
    assert order == []
