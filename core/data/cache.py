"""Keeps the images at the working resolution in a memory-mapped file beside the run.

A cache is a folder that appears whole, by one rename, or not at all; it is read again
only when the files that it was made from have not changed. Until then it is a draft,
from which a later reading goes on. It holds private images: only its owner may read it,
and one that is out of date is deleted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.data.dataset import ImageDataset, Problem
from core.data.draft import IMAGES, Draft, created, sync
from core.data.formats import Index
from core.data.reading import Picture
from core.data.records import Intake, Records, read_records
from core.data.vault import SealedImages, Vault, destroy_key, open_vault
from core.errors import UserError
from core.events import Watcher
from core.files import explained, private_folder, sha256, sync_folder

_VERSION: Final = 8
_READY: Final = "prepared-"
_UNFINISHED: Final = ".preparing-"
_COLUMNS: Final = "records.npz"
_MANIFEST: Final = "manifest.json"


def open_or_prepare(
    index: Index,
    cache: Path,
    resolution: int,
    channels: int,
    watcher: Watcher,
    *,
    encrypt: bool = False,
) -> ImageDataset:
    """The dataset from the cache, or read from its files and put there.

    Args:
        index: The records to read.
        cache: A folder for this dataset only; made when it is not there.
        resolution: Side of the working images.
        channels: 1 for grey, 3 for colour; declared, not found out.
        watcher: Told of progress, asked whether to stop.
        encrypt: Whether the images are sealed with a key from the system's keyring.
            Labels and the names of files with problems are not.

    Raises:
        UserError: If the cache cannot be written, the dataset cannot be used, or there
            is no keyring.
        Stopped: If the watcher asked to stop; what was read is gone on from next time.
    """
    private_folder(cache)
    vault = open_vault(cache) if encrypt else None
    key = _key(index, resolution, channels, encrypt)
    target = cache / f"{_READY}{key[:32]}"
    shape = (resolution, resolution, channels)
    try:
        if (found := _reopened(target, key, shape, vault)) is None:
            _delete_others(cache, _UNFINISHED, but=_draft_folder(cache, key))
            _prepare(index, cache, target, key, shape, vault, watcher)
            _delete_others(cache, _READY, but=target)
            found = _reopened(target, key, shape, vault)
        if found is None:
            raise OSError(errno.EIO, "it does not give back what was written", target)
        return found
    except OSError as error:
        raise explained(error, cache) from error


def read_into_memory(
    index: Index, resolution: int, channels: int, watcher: Watcher
) -> ImageDataset:
    """The dataset read from its files, with nothing written to any disk.

    Raises:
        UserError: If the dataset cannot be used.
        Stopped: If the watcher asked to stop.
    """
    memory = _Memory()
    records = read_records(index, resolution, channels, memory, watcher)
    shape = (len(records.labels), resolution, resolution, channels)
    images = np.frombuffer(memory.pixels, np.uint8).reshape(shape)
    images.flags.writeable = False
    return dataset_of(images, records, index)


def dataset_of(images: np.ndarray, records: Records, index: Index) -> ImageDataset:
    """What was read, as a dataset with these images."""
    return _dataset(images, _columns(records), _facts(records, index))


def delete_cache(cache: Path) -> None:
    """Remove all private images that lie in a cache, finished or not, and their key.

    The files are unlinked and not overwritten, which on a solid-state disk erases
    nothing: only an encrypted disk, or an encrypted cache, whose key is destroyed here,
    keeps them from whoever takes it apart.

    Raises:
        UserError: If something cannot be removed.
    """
    try:
        for folder in list(cache.iterdir()) if cache.is_dir() else []:
            if folder.name.startswith((_READY, _UNFINISHED)):
                shutil.rmtree(folder)
    except OSError as error:
        raise explained(error, cache) from error
    destroy_key(cache)


def cache_is_whole(cache: Path) -> bool:
    """Whether every byte of the cache is what was written, by its SHA-256.

    Opening a cache compares sizes and times only; this reads all of it.
    """
    folders = list(cache.glob(f"{_READY}*"))
    try:
        return bool(folders) and all(
            sha256(folder / name) == facts["sha256"]
            for folder in folders
            for name, facts in _read_manifest(folder)["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


class _Memory(Intake):
    """An intake that keeps the pixels in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = bytearray()

    def keep(self, pictures: list[Picture]) -> None:
        for picture in pictures:
            self.pixels += picture.pixels.tobytes()


def _key(index: Index, resolution: int, channels: int, encrypt: bool) -> str:
    """Hex digest of all that the cache depends on, without reading an image.

    Tables and labels are read anew each time and are in it as the columns they gave.
    """
    digest = hashlib.sha256()
    digest.update(f"{_VERSION} {resolution} {channels} {index.format_name}\n".encode())
    digest.update(b"sealed\n" if encrypt else b"")
    digest.update(repr((index.class_names, index.unit_column)).encode())
    digest.update(index.labels.tobytes())
    digest.update(repr(index.groups).encode("utf-8", "surrogateescape"))
    if index.official_splits is not None:
        digest.update(index.official_splits.tobytes())
    if index.left_out is not None:
        digest.update(index.left_out.tobytes())
    digest.update(repr(index.problems).encode("utf-8", "surrogateescape"))
    digest.update(index.images.signature().encode())
    return digest.hexdigest()


def _prepare(
    index: Index,
    cache: Path,
    target: Path,
    key: str,
    shape: tuple[int, int, int],
    vault: Vault | None,
    watcher: Watcher,
) -> None:
    folder = _draft_folder(cache, key)
    draft = Draft(folder, math.prod(shape), vault)
    try:
        records = read_records(index, shape[0], shape[2], draft, watcher)
        draft.finish(shape)
    except UserError:
        # PRIVACY: private images stay only where going on from them is of use.
        draft.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        _keep_or_delete(draft, folder)
        raise
    _write_records(folder, records, index, key)
    sync_folder(folder)
    shutil.rmtree(target, ignore_errors=True)  # It did not open: it is damaged.
    os.replace(folder, target)
    sync_folder(cache)


def _keep_or_delete(draft: Draft, folder: Path) -> None:
    """After a stop or an error: note how far it got, if that is worth anything."""
    try:
        draft.note()
    except OSError:
        draft.done = 0
    draft.close()
    if draft.done == 0:
        shutil.rmtree(folder, ignore_errors=True)


def _draft_folder(cache: Path, key: str) -> Path:
    return cache / f"{_UNFINISHED}{key[:32]}"


def _columns(records: Records) -> dict[str, np.ndarray]:
    return {
        "labels": records.labels,
        "units": records.units,
        "splits": records.splits,
        "official_splits": records.official_splits,
        "sketch": records.sketch,
    }


def _facts(records: Records, index: Index) -> dict[str, Any]:
    return {
        "format_name": index.format_name,
        "class_names": index.class_names,
        "has_groups": index.groups is not None,
        "official_split_names": index.official_split_names,
        "fingerprint": records.fingerprint,
        "grouping": records.grouping,
        "membership": records.membership,
        "unit_column": index.unit_column,
        "problems": [asdict(problem) for problem in records.problems],
    }


def _write_records(folder: Path, records: Records, index: Index, key: str) -> None:
    with created(folder / _COLUMNS) as file:
        np.savez(file, **_columns(records))
        sync(file)
    files = {
        name: {
            "size": (folder / name).stat().st_size,
            "changed": (folder / name).stat().st_mtime_ns,
            "sha256": sha256(folder / name),
        }
        for name in (IMAGES, _COLUMNS)
    }
    manifest = {"key": key, "facts": _facts(records, index), "files": files}
    with created(folder / _MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode())
        sync(file)


def _read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / _MANIFEST).read_bytes())


def _reopened(
    folder: Path, key: str, shape: tuple[int, int, int], vault: Vault | None
) -> ImageDataset | None:
    """The cached dataset, or None when it is not there, not whole or not this one."""
    try:
        manifest = _read_manifest(folder)
        if manifest["key"] != key:
            return None
        if not all(_as_written(folder / n, f) for n, f in manifest["files"].items()):
            return None
        with np.load(folder / _COLUMNS, allow_pickle=False) as columns:
            arrays = {name: columns[name] for name in columns.files}
        images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
        if vault is not None:
            images = SealedImages(images, shape, vault)
        return _dataset(images, arrays, manifest["facts"])
    except (OSError, UserError, ValueError, KeyError, TypeError):
        return None


def _as_written(path: Path, facts: dict[str, Any]) -> bool:
    """By size and time; by content where only the time is another, as in a copy."""
    status = path.stat()
    if status.st_size != facts["size"]:
        return False
    return status.st_mtime_ns == facts["changed"] or sha256(path) == facts["sha256"]


def _dataset(
    images: Any, columns: dict[str, np.ndarray], facts: dict[str, Any]
) -> ImageDataset:
    return ImageDataset(
        images=images,
        class_names=tuple(facts["class_names"]),
        has_groups=facts["has_groups"],
        official_split_names=tuple(facts["official_split_names"]),
        format_name=facts["format_name"],
        fingerprint=facts["fingerprint"],
        grouping=facts["grouping"],
        membership=facts["membership"],
        unit_column=facts["unit_column"],
        problems=tuple(Problem(**problem) for problem in facts["problems"]),
        **columns,
    )


def _delete_others(cache: Path, start: str, but: Path) -> None:
    """Remove what is out of date.

    Finished caches only once a new one is whole, so that a failure leaves what there
    was.
    """
    for folder in cache.iterdir():
        if folder != but and folder.name.startswith(start):
            shutil.rmtree(folder, ignore_errors=True)
