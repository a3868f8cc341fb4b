from __future__ import annotations

import os
import stat
from dataclasses import fields

import numpy as np
import pytest

from core.data import cache as cache_module
from core.data import load
from core.errors import Stopped, UserError
from core.events import Watcher
from tests.core.data.fakes import camelyon17, class_folders, idx_pair, image


@pytest.fixture
def readings(monkeypatch):
    """How many times the images were read."""
    seen = []
    original = cache_module.read_records

    def counted(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(cache_module, "read_records", counted)
    return seen


def same(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            assert np.array_equal(a, b), field.name
        else:
            assert a == b, field.name


def test_reopening_reads_no_image_and_gives_the_same(tmp_path, readings):
    root = class_folders(tmp_path / "d", {"a": 20, "b": 20})
    (root / "a" / "bad.png").write_bytes(b"bad")
    first = load(root, tmp_path / "cache")
    second = load(root, tmp_path / "cache")
    assert len(readings) == 1
    same(first, second)
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert second.images.dtype == np.uint8
    assert second.labels.dtype == second.units.dtype == np.int64
    assert second.splits.dtype == second.official_splits.dtype == np.uint8


def test_a_changed_file_is_read_again(tmp_path, readings):
    root = class_folders(tmp_path / "d")
    before = load(root, tmp_path / "cache").fingerprint
    image(99).save(root / "benign" / "0.png")
    os.utime(root / "benign" / "0.png", ns=(1, 1))
    assert load(root, tmp_path / "cache").fingerprint != before
    assert len(readings) == 2


def test_an_outdated_cache_is_deleted(tmp_path):
    root = class_folders(tmp_path / "d")
    load(root, tmp_path / "cache")
    image(99).save(root / "benign" / "new.png")
    load(root, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_changed_table_is_read_again(tmp_path, readings):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9})
    load(root, tmp_path / "cache")
    files = [p.relative_to(root).as_posix() for p in root.rglob("*.png")]
    rows = [f"{file},p{i // 2}" for i, file in enumerate(files)]
    (root / "units.csv").write_text("\n".join(["file,unit", *rows]))
    assert load(root, tmp_path / "cache").has_groups
    assert len(readings) == 2


def test_another_resolution_is_another_cache(tmp_path):
    root = class_folders(tmp_path / "d")
    one = load(root, tmp_path / "cache", resolution=32)
    other = load(root, tmp_path / "cache", resolution=16)
    assert other.images.shape == (12, 16, 16, 3)
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("name", ["images.npy", "records.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_cache_is_made_again(tmp_path, readings, name, damage):
    root = class_folders(tmp_path / "d")
    first = load(root, tmp_path / "cache")
    pixels = np.array(first.images)
    file = next((tmp_path / "cache").rglob(name))
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-40])
    else:
        content[len(content) // 2] ^= 255
        file.write_bytes(content)
    second = load(root, tmp_path / "cache")
    assert np.array_equal(second.images, pixels)
    assert len(readings) == 2


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_only_the_owner_may_read_the_cache(tmp_path):
    previous = os.umask(0)
    try:
        load(class_folders(tmp_path / "d"), tmp_path / "cache")
    finally:
        os.umask(previous)
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_stopping_leaves_nothing_half_done(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 200, "b": 200})
    asked = iter([False, True, True])
    with pytest.raises(Stopped):
        load(
            root,
            tmp_path / "cache",
            watcher=Watcher(stop_requested=lambda: next(asked)),
        )
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(load(root, tmp_path / "cache")) == 400


def test_drafts_of_a_killed_run_are_cleared(tmp_path):
    left = tmp_path / "cache" / ".preparing-abc"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"private")
    load(class_folders(tmp_path / "d"), tmp_path / "cache")
    assert not left.exists()


def test_a_bad_dataset_leaves_the_cache_of_the_good_one(tmp_path, readings):
    root = class_folders(tmp_path / "d")
    load(root, tmp_path / "cache")
    bad = class_folders(tmp_path / "bad", {"only": 5})
    with pytest.raises(UserError):
        load(bad, tmp_path / "cache")
    before = len(readings)
    load(root, tmp_path / "cache")
    assert len(readings) == before


def test_progress_reaches_the_end(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 200, "b": 100})
    seen = []
    load(root, tmp_path / "cache", watcher=Watcher(report=seen.append))
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total) == (300, 300)
    assert len(seen) > 2


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_sync", full)
    with pytest.raises(UserError, match="the disk is full"):
        load(class_folders(tmp_path / "d"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Cannot use"):
        load(class_folders(tmp_path / "d"), tmp_path / "file" / "cache")


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_cache_is_one_sentence(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o500)
    with pytest.raises(UserError, match="choose a folder that is yours"):
        load(class_folders(tmp_path / "d"), cache)


def test_a_read_only_file_system_is_one_sentence(tmp_path, monkeypatch):
    def refused(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache_module.tempfile, "mkdtemp", refused)
    with pytest.raises(UserError, match="choose a folder that is yours"):
        load(class_folders(tmp_path / "d"), tmp_path / "cache")


def test_the_cache_may_not_lie_in_the_dataset(tmp_path):
    root = class_folders(tmp_path / "d")
    with pytest.raises(UserError, match="inside the dataset's folder"):
        load(root, root / "cache")
    assert not (root / "cache").exists()


def test_fingerprint_ignores_names_and_order(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 30, "b": 30})
    before = load(root, tmp_path / "cache")
    for number, file in enumerate(sorted((root / "a").iterdir())):
        file.rename(root / "a" / f"{(number * 17 + 5) % 30:03d}-renamed.png")
    (root / "b").rename(root / "c")
    after = load(root, tmp_path / "other")
    assert not np.array_equal(before.images, after.images)
    assert after.fingerprint == before.fingerprint


def test_fingerprint_sees_labels_and_copies(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9})
    seen = {load(root, tmp_path / "cache").fingerprint}
    (root / "a" / "0.png").rename(root / "b" / "moved.png")
    seen.add(load(root, tmp_path / "cache").fingerprint)
    (root / "a" / "copy.png").write_bytes((root / "a" / "1.png").read_bytes())
    seen.add(load(root, tmp_path / "cache").fingerprint)
    assert len(seen) == 3


@pytest.mark.parametrize("make", ["idx", "camelyon17"])
def test_other_formats_reopen_too(tmp_path, readings, make):
    root = tmp_path / "d"
    if make == "idx":
        idx_pair(root, "train", 50)
    else:
        camelyon17(root)
    same(load(root, tmp_path / "cache"), load(root, tmp_path / "cache"))
    assert len(readings) == 1
