from __future__ import annotations

import hashlib
import os
import stat
import struct
from dataclasses import fields

import numpy as np
import pytest

from core.data import cache as cache_module
from core.data import cache_is_whole, delete_cache, draft, load, reading
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


def stop_after(questions):
    """A watcher that asks to stop at the given question."""
    asked = iter([False] * questions + [True] * 100)
    return Watcher(stop_requested=lambda: next(asked))


@pytest.fixture
def decoded(monkeypatch):
    """How many images went to the decoders."""
    seen = []
    original = reading.Decoders.ask

    def counted(self, task, contents, most):
        seen.extend(contents)
        return original(self, task, contents, most)

    monkeypatch.setattr(reading.Decoders, "ask", counted)
    return seen


def test_a_stopped_reading_is_gone_on_from(tmp_path, decoded):
    root = class_folders(tmp_path / "d", {"a": 400, "b": 400})
    (root / "a" / "bad.png").write_bytes(b"bad")
    whole = load(root, tmp_path / "other")
    decoded.clear()
    with pytest.raises(Stopped):
        load(root, tmp_path / "cache", watcher=stop_after(8))
    (draft,) = (tmp_path / "cache").iterdir()
    assert draft.name.startswith(".preparing-")
    decoded.clear()
    again = load(root, tmp_path / "cache")
    assert len(decoded) == 801 - 8 * 64
    same(whole, again)
    assert [f.name[:9] for f in (tmp_path / "cache").iterdir()] == ["prepared-"]


def test_array_files_are_gone_on_from_too(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 12_000)
    idx_pair(root, "t10k", 6_000)
    whole = load(root, tmp_path / "other")
    with pytest.raises(Stopped):
        load(root, tmp_path / "cache", watcher=stop_after(16))
    seen = []
    again = load(root, tmp_path / "cache", watcher=Watcher(report=seen.append))
    assert seen[0].done >= 12_000
    same(whole, again)


def test_what_lies_beyond_the_last_note_is_read_again(tmp_path):
    """As a power cut leaves it: more bytes in the files than were noted."""
    root = class_folders(tmp_path / "d", {"a": 150, "b": 150})
    whole = load(root, tmp_path / "other")
    with pytest.raises(Stopped):
        load(root, tmp_path / "cache", watcher=stop_after(2))
    (draft,) = (tmp_path / "cache").iterdir()
    for name in ("images.npy", "rows.i64", "digests.sha256", "problems.jsonl"):
        with (draft / name).open("ab") as file:
            file.write(b"half written")
    same(whole, load(root, tmp_path / "cache"))


@pytest.mark.parametrize(
    "name", ["images.npy", "rows.i64", "digests.sha256", "progress.json"]
)
def test_a_damaged_draft_is_begun_anew(tmp_path, name):
    root = class_folders(tmp_path / "d", {"a": 150, "b": 150})
    whole = load(root, tmp_path / "other")
    with pytest.raises(Stopped):
        load(root, tmp_path / "cache", watcher=stop_after(2))
    (draft,) = (tmp_path / "cache").iterdir()
    (draft / name).write_bytes(b"")
    same(whole, load(root, tmp_path / "cache"))


def test_a_draft_of_changed_files_is_deleted(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 150, "b": 150})
    with pytest.raises(Stopped):
        load(root, tmp_path / "cache", watcher=stop_after(2))
    image(999).save(root / "a" / "new.png")
    assert len(load(root, tmp_path / "cache")) == 301
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_refused_dataset_leaves_no_draft(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 5, "b": 5})
    for file in (root / "b").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(UserError):
        load(root, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_drafts_of_a_killed_run_are_cleared(tmp_path):
    left = tmp_path / "cache" / ".preparing-abc"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"private")
    load(class_folders(tmp_path / "d"), tmp_path / "cache")
    assert not left.exists()


def test_a_copied_project_is_checked_by_content_and_opens(tmp_path, readings):
    root = class_folders(tmp_path / "d")
    first = load(root, tmp_path / "cache")
    file = next((tmp_path / "cache").rglob("images.npy"))
    os.utime(file, ns=(1, 1))
    same(first, load(root, tmp_path / "cache"))
    assert len(readings) == 1


def test_a_changed_byte_is_found_on_demand(tmp_path):
    load(class_folders(tmp_path / "d"), tmp_path / "cache")
    assert cache_is_whole(tmp_path / "cache")
    file = next((tmp_path / "cache").rglob("images.npy"))
    times = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times, times))
    assert not cache_is_whole(tmp_path / "cache")
    assert not cache_is_whole(tmp_path / "nothing")


def test_the_cache_is_deleted_on_request(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 150, "b": 150})
    load(root, tmp_path / "cache")
    (tmp_path / "cache" / ".preparing-x").mkdir()
    (tmp_path / "cache" / "mine.txt").write_text("not ours")
    delete_cache(tmp_path / "cache")
    assert [f.name for f in (tmp_path / "cache").iterdir()] == ["mine.txt"]
    delete_cache(tmp_path / "nothing")


def test_images_may_stay_in_memory(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "d", {"a": 20, "b": 20})
    on_disk = load(root, tmp_path / "cache")
    before = set(tmp_path.rglob("*"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    in_memory = load(root, None)
    assert set(tmp_path.rglob("*")) == before
    same(on_disk, in_memory)
    assert not isinstance(in_memory.images, np.memmap)
    assert not in_memory.images.flags.writeable


def test_the_fingerprint_is_what_it_has_always_been(tmp_path):
    """The ledger knows datasets by it: sorted pairs of (SHA-256 of a file, label)."""
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9})
    pairs = [
        hashlib.sha256(file.read_bytes()).digest()
        + ("ab".index(file.parent.name)).to_bytes(8, "big")
        for file in root.rglob("*.png")
    ]
    expected = hashlib.sha256(b"".join(sorted(pairs))).hexdigest()
    assert load(root, tmp_path / "cache").fingerprint == expected
    images, labels = idx_pair(tmp_path / "i", "train", 20)
    pairs = [
        hashlib.sha256(struct.pack(">2I", 28, 28) + image.tobytes()).digest()
        + int(label).to_bytes(8, "big")
        for image, label in zip(images, labels, strict=True)
    ]
    expected = hashlib.sha256(b"".join(sorted(pairs))).hexdigest()
    assert load(tmp_path / "i", tmp_path / "cache").fingerprint == expected


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

    monkeypatch.setattr(draft, "sync", full)
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
    def refused(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache_module, "Draft", refused)
    with pytest.raises(UserError, match="choose a folder that is yours"):
        load(class_folders(tmp_path / "d"), tmp_path / "cache")


def test_the_cache_may_not_lie_in_the_dataset(tmp_path):
    root = class_folders(tmp_path / "d")
    with pytest.raises(UserError, match="inside the folder of images"):
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
