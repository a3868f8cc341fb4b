"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core import files
from core.errors import UserError
from core.files import (
    overwrite_json,
    private_folder,
    read_json,
    remove_unfinished,
    write_atomically,
    write_json,
)


def failing(number: int):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("point", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, point):
    path = tmp_path / "facts.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, point, failing(errno.ENOSPC))
    with pytest.raises(UserError, match="disk is full"):
        write_json(path, {"new": 2})
    monkeypatch.undo()
    assert read_json(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"old": 1})

    def crash(file):
        file.write_text("half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, crash)
    assert read_json(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_file_and_folder_reach_the_disk_before_it_returns(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        order.append(kind)
        fsync(handle)

    def renamed(*names):
        order.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_json(tmp_path / "a.json", {})
    assert order == ["file", "rename", "folder"]


def test_only_the_owner_can_read_what_is_written(tmp_path):
    folder = private_folder(tmp_path / "project")
    write_json(folder / "a.json", {})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "a.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_json_names_the_file(tmp_path, content):
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.json"):
        read_json(path)


def test_what_is_in_the_way_is_the_users_to_move(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file"):
        private_folder(tmp_path / "file")
    with pytest.raises(UserError, match="not there"):
        read_json(tmp_path / "missing.json")


def test_a_new_folder_reaches_the_disk_before_it_returns(tmp_path, monkeypatch):
    synced, real = [], files.sync_folder
    monkeypatch.setattr(files, "sync_folder", lambda p: (synced.append(p), real(p)))
    private_folder(tmp_path / "project")
    assert synced == [tmp_path]
    private_folder(tmp_path / "project")
    assert synced == [tmp_path]


def test_a_full_disk_that_a_library_reports_in_its_own_words_is_told(tmp_path):
    """The words of the safetensors that is installed: it writes without Python."""
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from core.errors import UserError
from core.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_atomically(
        Path(sys.argv[1]), lambda file: save_file({"a": np.zeros(10_000)}, file)
    )
except UserError as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    path = tmp_path / "a.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", script, path], cwd=root, capture_output=True, text=True
    )
    assert "File too large: check the disk" in done.stdout, done.stderr
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_unfinished_is_removed_and_nothing_else(tmp_path):
    write_json(tmp_path / "facts.json", {})
    (tmp_path / ".lock").touch()

    def die(file):
        os.link(file, tmp_path / f".{'x' * 8}.part")
        os.link(file, tmp_path / ".tmpAbC123")  # As safetensors names its own.
        raise SystemExit

    with pytest.raises(SystemExit):
        write_atomically(tmp_path / "facts.json", die)
    assert len(list(tmp_path.iterdir())) == 4
    remove_unfinished(tmp_path)
    remove_unfinished(tmp_path / "nowhere")
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == [".lock", "facts.json"]


def test_unfinished_files_are_known_by_their_names(tmp_path):
    """What `write_atomically` makes is what `remove_unfinished` finds."""
    kept = []

    def look(file):
        kept.append(file.read_bytes())
        remove_unfinished(tmp_path)
        assert not file.exists()
        file.write_text("whole")

    write_atomically(tmp_path / "a.txt", look)
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_file_overwritten_in_place_stays_one_file(tmp_path):
    path = tmp_path / "folder" / "head.json"
    overwrite_json(path, {"head": "a" * 8})
    inode = path.stat().st_ino
    path.write_text("something longer that somebody wrote into it")
    overwrite_json(path, {"head": "b" * 8})
    assert read_json(path) == {"head": "b" * 8} and path.stat().st_ino == inode
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"head\.json"):
        overwrite_json(path, {})


@pytest.mark.parametrize("refused", [False, True])
def test_on_a_mac_the_drive_is_told_as_well(tmp_path, monkeypatch, refused):
    fcntl = pytest.importorskip("fcntl")
    asked, synced = [], []

    def full_sync(handle, request):
        asked.append(request)
        if refused:
            raise OSError(errno.ENOTSUP, "a network drive")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", synced.append)
    with monkeypatch.context() as mac:
        mac.setattr(sys, "platform", "darwin")
        write_json(tmp_path / "a.json", {})
    assert asked == [51, 51] and len(synced) == (2 if refused else 0)
