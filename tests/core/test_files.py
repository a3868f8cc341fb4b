"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from core.errors import UserError
from core.files import private_folder, read_json, write_atomically, write_json


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
