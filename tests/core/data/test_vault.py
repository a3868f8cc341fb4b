"""The encrypted cache: nothing readable on the disk, nothing exchanged, no key left."""

from __future__ import annotations

import json

import keyring
import numpy as np
import pytest
from keyring.backend import KeyringBackend

from core import cli
from core.data import ReadOptions, delete_cache, load
from core.data.vault import OVERHEAD, SealedImages, Vault, open_vault
from core.errors import Stopped, UserError
from core.events import Watcher
from core.workspace import Project, Workspace
from tests.core.data.fakes import class_folders


class MemoryKeyring(KeyringBackend):
    """A keyring that works and forgets."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service, username):
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self.kept[service, username] = password

    def delete_password(self, service, username):
        del self.kept[service, username]


class LockedKeyring(MemoryKeyring):
    def get_password(self, service, username):
        raise RuntimeError("the user dismissed the prompt")


class PlainFileKeyring(MemoryKeyring):
    priority = 0.5


class ForgetfulKeyring(MemoryKeyring):
    def set_password(self, service, username, password):
        pass


@pytest.fixture
def ring():
    before, ring = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path / "d", {"a": 20, "b": 20})


def cached(root, tmp_path, *, encrypt=True, resolution=16, watcher=None):
    cache = tmp_path / "cache"
    return load(root, cache, resolution=resolution, encrypt=encrypt, watcher=watcher)


def on_disk(tmp_path) -> bytes:
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    return b"".join(file.read_bytes() for file in files)


def test_the_images_come_back_and_are_not_on_the_disk(ring, root, tmp_path):
    plain = load(root, None, resolution=16)
    sealed = cached(root, tmp_path)
    assert sealed.images.shape == plain.images.shape
    assert np.array_equal(sealed.images[:], plain.images)
    assert np.array_equal(sealed.images[[7, 3]], plain.images[[7, 3]])
    assert np.array_equal(sealed.images[5], plain.images[5])
    assert np.array_equal(sealed.images[-1], plain.images[-1])
    odd = np.arange(40) % 2 == 1
    assert np.array_equal(sealed.images[odd], plain.images[odd])
    assert np.array_equal(np.asarray(sealed.images), plain.images)
    assert sealed.fingerprint == plain.fingerprint
    content = on_disk(tmp_path)
    assert len(content) > plain.images.nbytes
    assert not any(image[:2].tobytes() in content for image in plain.images)


def test_a_plain_cache_would_be_found_on_the_disk(root, tmp_path):
    """The test above can fail."""
    plain = cached(root, tmp_path, encrypt=False)
    content = on_disk(tmp_path)
    assert all(image[:2].tobytes() in content for image in plain.images)


def test_it_is_opened_again_with_the_same_key(ring, root, tmp_path):
    first = cached(root, tmp_path)
    keys = dict(ring.kept)
    before = {file: file.stat().st_mtime_ns for file in images(tmp_path)}
    assert np.array_equal(cached(root, tmp_path).images[:], first.images[:])
    assert {file: file.stat().st_mtime_ns for file in images(tmp_path)} == before
    assert ring.kept == keys and len(keys) == 1
    assert next(iter(keys.values())).encode() not in on_disk(tmp_path)


def images(tmp_path):
    return list((tmp_path / "cache").glob("prepared-*/images.npy"))


def test_a_lost_key_costs_a_reading_and_nothing_else(ring, root, tmp_path):
    first = cached(root, tmp_path).images[:]
    ring.kept.clear()
    assert np.array_equal(cached(root, tmp_path).images[:], first)


def test_a_plain_cache_goes_once_the_sealed_one_is_there(ring, root, tmp_path):
    plain = cached(root, tmp_path, encrypt=False).images[:]
    cached(root, tmp_path)
    assert len(images(tmp_path)) == 1
    content = on_disk(tmp_path)
    assert not any(image[:2].tobytes() in content for image in plain)


def test_a_stopped_reading_is_gone_on_with_and_its_draft_is_sealed(
    ring, root, tmp_path, monkeypatch
):
    monkeypatch.setattr("core.data.reading._BATCH", 8)
    monkeypatch.setattr("core.data.reading.batch_size", lambda *_: 8)
    plain = load(root, None, resolution=16).images
    asked = iter([False, False, True])
    stopping = Watcher(stop_requested=lambda: next(asked, True))
    with pytest.raises(Stopped):
        cached(root, tmp_path, watcher=stopping)
    content = on_disk(tmp_path)
    assert len(content) > 8 * plain[0].nbytes
    assert not any(image[:2].tobytes() in content for image in plain)
    assert np.array_equal(cached(root, tmp_path).images[:], plain)


def test_the_same_image_is_never_sealed_the_same(ring):
    vault = Vault(bytes(32))
    assert vault.seal(b"x" * 64, 0) != vault.seal(b"x" * 64, 0)
    assert len(vault.seal(b"x" * 64, 0)) == 64 + OVERHEAD


@pytest.mark.parametrize("how", ["changed", "moved", "other key"])
def test_what_was_changed_or_moved_is_not_opened(how):
    vault = Vault(bytes(32))
    rows = [np.frombuffer(vault.seal(bytes(12), n), np.uint8) for n in range(3)]
    records = np.stack(rows)
    if how == "changed":
        records[1, 20] ^= 1
    elif how == "moved":
        records[[1, 2]] = records[[2, 1]]
    else:
        with pytest.raises(UserError, match="damaged or exchanged"):
            SealedImages(records, (2, 2, 3), Vault(b"1" * 32))
        return
    sealed = SealedImages(records, (2, 2, 3), vault)
    assert not sealed[0].any()
    with pytest.raises(UserError, match="damaged or exchanged"):
        sealed[1]


@pytest.mark.parametrize("kind", [LockedKeyring, PlainFileKeyring, ForgetfulKeyring])
def test_without_a_keyring_the_other_ways_are_named(ring, root, tmp_path, kind):
    keyring.set_keyring(kind())
    with pytest.raises(UserError, match="in memory only, or on the disk"):
        cached(root, tmp_path)
    assert images(tmp_path) == []


def test_forgetting_destroys_the_key(ring, root, tmp_path):
    cached(root, tmp_path)
    delete_cache(tmp_path / "cache")
    assert ring.kept == {} and list((tmp_path / "cache").iterdir()) == []
    delete_cache(tmp_path / "cache")


def test_a_key_is_of_one_cache(ring, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        open_vault(tmp_path / name)
    assert len(set(ring.kept.values())) == 2


@pytest.fixture
def project(ring, root, tmp_path, monkeypatch):
    """Reads the images of a project, with a cache of some kind."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    from core import pipeline

    def read(**wishes):
        with Workspace.open(tmp_path / "project") as workspace:
            wished = Project(source=str(root), resolution=8).changed(**wishes)
            workspace.save_project(wished)
            return pipeline.load_dataset(workspace, wished, Watcher())

    read.cache = tmp_path / "project" / "dataset" / "cache"
    return read


def test_a_project_says_where_its_copies_are_kept(project):
    assert isinstance(project().images, np.memmap)
    assert isinstance(project(cache="encrypted").images, SealedImages)
    assert len(list(project.cache.iterdir())) == 2
    in_memory = project(cache="memory").images
    assert not isinstance(in_memory, np.memmap)
    assert list(project.cache.iterdir()) == []
    with pytest.raises(UserError, match="disk, encrypted, memory"):
        project(cache="cloud")


def test_forget_deletes_the_copies_and_nothing_else(project, ring, tmp_path, capsys):
    project(cache="encrypted")
    folder = str(tmp_path / "project")
    assert cli.main(["forget", folder]) == cli.DONE
    assert "deleted" in capsys.readouterr().out
    assert list(project.cache.iterdir()) == [] and ring.kept == {}
    facts = json.loads((tmp_path / "project/dataset/finished.json").read_text())
    assert facts["fingerprint"]
    assert len(load(tmp_path / "d", None, options=ReadOptions())) == 40
    assert cli.main(["forget", str(tmp_path / "none")]) == cli.MISTAKE
