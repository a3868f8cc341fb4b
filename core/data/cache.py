"""Keeps the images at the working resolution in a memory-mapped file beside the run.

A cache is a folder that appears whole, by one rename, or not at all; it is read again
only when the files that it was made from have not changed. It holds private images:
only its owner may read it, and one that is out of date is deleted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Final

import numpy as np

from core.data.dataset import ImageDataset, Problem
from core.data.formats import Index
from core.data.reading import Picture
from core.data.records import Records, read_records
from core.events import Watcher
from core.files import explained, private_folder, sha256, sync_folder

_VERSION: Final = 3
_READY: Final = "prepared-"
_UNFINISHED: Final = ".preparing-"
_IMAGES: Final = "images.npy"
_COLUMNS: Final = "records.npz"
_MANIFEST: Final = "manifest.json"
_HEADER_LENGTH: Final = 128


def open_or_prepare(
    index: Index, cache: Path, resolution: int, channels: int, watcher: Watcher
) -> ImageDataset:
    """The dataset from the cache, or read from its files and put there.

    Args:
        index: The records to read.
        cache: A folder for this dataset only; made when it is not there.
        resolution: Side of the working images.
        channels: 1 for grey, 3 for colour; declared, not found out.
        watcher: Told of progress, asked whether to stop.

    Raises:
        UserError: If the cache cannot be written or the dataset cannot be used.
        Stopped: If the watcher asked to stop; nothing half done stays behind.
    """
    private_folder(cache)
    key = _key(index, resolution, channels)
    target = cache / f"{_READY}{key[:32]}"
    try:
        if (found := reopened(target, key)) is None:
            _prepare(index, cache, target, key, resolution, channels, watcher)
            _delete_others(cache, target)
            found = reopened(target, key)
        if found is None:
            raise OSError(errno.EIO, "it does not give back what was written", target)
        return found
    except OSError as error:
        raise explained(error, cache) from error


def _key(index: Index, resolution: int, channels: int) -> str:
    """Hex digest of all that the cache depends on, without reading an image.

    Tables and labels are read anew each time and are in it as the columns they gave.
    """
    digest = hashlib.sha256()
    digest.update(f"{_VERSION} {resolution} {channels} {index.format_name}\n".encode())
    digest.update(repr(index.class_names).encode())
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
    resolution: int,
    channels: int,
    watcher: Watcher,
) -> None:
    draft = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=cache))
    try:
        with _created(draft / _IMAGES) as file:
            file.write(b"\0" * _HEADER_LENGTH)
            written = 0

            def keep(pictures: list[Picture]) -> None:
                nonlocal written
                for picture in pictures:
                    file.write(picture.pixels.tobytes())
                written += len(pictures)

            records = read_records(index, resolution, channels, keep, watcher)
            # The number of readable images is known only now.
            file.seek(0)
            file.write(_npy_header((written, resolution, resolution, channels)))
            _sync(file)
        _write_records(draft, records, index, key)
        sync_folder(draft)
        shutil.rmtree(target, ignore_errors=True)  # It did not open: it is damaged.
        os.replace(draft, target)
        sync_folder(cache)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_records(draft: Path, records: Records, index: Index, key: str) -> None:
    with _created(draft / _COLUMNS) as file:
        np.savez(
            file,
            labels=records.labels,
            units=records.units,
            splits=records.splits,
            official_splits=records.official_splits,
            sketch=records.sketch,
        )
        _sync(file)
    manifest = {
        "key": key,
        "format_name": index.format_name,
        "class_names": index.class_names,
        "has_groups": index.groups is not None,
        "official_split_names": index.official_split_names,
        "fingerprint": records.fingerprint,
        "unit_column": index.unit_column,
        "problems": [asdict(problem) for problem in records.problems],
        "sha256": {name: sha256(draft / name) for name in (_IMAGES, _COLUMNS)},
    }
    with _created(draft / _MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode())
        _sync(file)


def reopened(folder: Path, key: str | None = None) -> ImageDataset | None:
    """The cached dataset, or None when it is not there, not whole or not this one."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if key not in (None, manifest["key"]):
            return None
        for name, digest in manifest["sha256"].items():
            if sha256(folder / name) != digest:
                return None
        with np.load(folder / _COLUMNS, allow_pickle=False) as columns:
            arrays = {name: columns[name] for name in columns.files}
        return ImageDataset(
            images=np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False),
            class_names=tuple(manifest["class_names"]),
            has_groups=manifest["has_groups"],
            official_split_names=tuple(manifest["official_split_names"]),
            format_name=manifest["format_name"],
            fingerprint=manifest["fingerprint"],
            problems=tuple(Problem(**problem) for problem in manifest["problems"]),
            unit_column=manifest["unit_column"],
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _delete_others(cache: Path, target: Path) -> None:
    """Remove caches that are out of date and drafts that a kill left behind.

    Only once the new one is whole, so that a failure leaves what there was.
    """
    for folder in cache.iterdir():
        if folder != target and folder.name.startswith((_READY, _UNFINISHED)):
            shutil.rmtree(folder, ignore_errors=True)


def _created(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return open(os.open(path, flags, 0o600), "wb")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """A version 1.0 .npy header of `_HEADER_LENGTH` bytes for uint8, C order."""
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    text = repr(fields).encode("latin1")
    start = b"\x93NUMPY\x01\x00" + (_HEADER_LENGTH - 10).to_bytes(2, "little")
    return start + text.ljust(_HEADER_LENGTH - 11) + b"\n"
