"""The training state: whole or not at all, with its hash, the last two kept."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from core.errors import UserError
from core.training import state as room
from core.training.state import TrainingState, load_newest, save_state


def state(updates: int, value: float | None = None) -> TrainingState:
    made = TrainingState.start([torch.full((2, 3), float(updates))])
    if value is not None:
        made.weights[0].fill_(value)
    made.updates = updates
    return made


def loaded(folder) -> int | None:
    """Number of updates of what is loaded; its weights are equal to it."""
    found = state(-1)
    if not load_newest(found, folder):
        return None
    for group in (found.weights, found.average):
        assert torch.equal(group[0], torch.full((2, 3), float(found.updates)))
    return found.updates


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files(*numbers: int) -> list[str]:
    return sorted(
        f"state-{n:06d}.{kind}" for n in numbers for kind in ("json", "safetensors")
    )


def test_the_last_two_are_kept(folder):
    for updates in (0, 1, 5, 12):
        save_state(state(updates), folder)
        assert loaded(folder) == updates
    assert names(folder) == files(5, 12)


def test_all_parts_come_back(folder):
    kept = state(3)
    for number, group in enumerate((kept.average, kept.first, kept.second)):
        group[0].fill_(10.0 + number)
    save_state(kept, folder)
    found = state(0)
    assert load_newest(found, folder) and found.updates == 3
    values = [
        g[0][0, 0].item()
        for g in (found.weights, found.average, found.first, found.second)
    ]
    assert values == [3.0, 10.0, 11.0, 12.0]


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "no hash", "other hash"])
def test_a_damaged_one_is_passed_over(folder, damage):
    for updates in (1, 2):
        save_state(state(updates), folder)
    newest = folder / "state-000002.safetensors"
    content = bytearray(newest.read_bytes())
    match damage:
        case "bit":
            content[-1] ^= 1
            newest.write_bytes(content)
        case "cut":
            newest.write_bytes(content[:20])
        case "empty":
            newest.write_bytes(b"")
        case "no hash":
            newest.with_suffix(".json").unlink()
        case "other hash":
            newest.with_suffix(".json").write_text('{"sha256": "00"}')
    assert loaded(folder) == 1


def test_damaged_ones_never_push_out_the_good_ones(folder):
    """They may count more updates than the state that is saved after them."""
    for updates in (7, 8, 9):
        save_state(state(updates), folder)
    for updates in (8, 9):
        (folder / f"state-{updates:06d}.safetensors").write_bytes(b"damaged")
    save_state(state(6), folder)
    assert loaded(folder) == 6
    save_state(state(7), folder)
    assert names(folder) == files(6, 7) and loaded(folder) == 7


def test_the_hash_is_on_disk_before_the_state(folder, monkeypatch):
    """At no moment is the newest state one that cannot be checked."""
    save_state(state(1), folder)
    real, seen = os.replace, []

    def watched(source, target):
        real(source, target)
        seen.append((os.path.basename(target), loaded(folder)))

    monkeypatch.setattr(os, "replace", watched)
    save_state(state(2), folder)
    assert seen == [("state-000002.json", 1), ("state-000002.safetensors", 2)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("where", ["tensors", "fsync", "replace", "unlink"])
def test_a_disk_error_is_told_and_the_older_states_stay(
    folder, monkeypatch, number, where
):
    for updates in (1, 2):
        save_state(state(updates), folder)
    strerror = os.strerror(number)

    def fail(*_, **__):
        raise OSError(number, strerror)

    def fail_in_rust(*_, **__):
        from safetensors import SafetensorError

        text = f"Error while serializing: I/O error: {strerror} (os error {number})"
        raise SafetensorError(text)

    with monkeypatch.context() as patch:
        if where == "tensors":
            patch.setattr(room, "save_file", fail_in_rust)
        elif where == "unlink":
            real = os.unlink

            def fail_on_states(path):
                # Not on the temporary file, which is gone by then.
                (fail if os.path.lexists(path) else real)(path)

            patch.setattr(os, where, fail_on_states)
        else:
            patch.setattr(os, where, fail)
        with pytest.raises(UserError, match="disk"):
            save_state(state(3), folder)
    assert loaded(folder) in ((2, 3) if where == "unlink" else (2,))
    save_state(state(3), folder)
    assert loaded(folder) == 3


def test_an_error_that_is_no_disks_is_not_hidden(folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(room, "save_file", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        save_state(state(1), folder)
    assert names(folder) == []
