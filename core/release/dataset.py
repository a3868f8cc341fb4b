"""Export: synthetic images and audit facts → a release folder, whole or not at all.

Layout:
    images/<class>/NNNNNN.png   opens with torchvision's `ImageFolder(release/"images")`
    metadata.csv                file_name, label, class_name
    audit.json                  the audit document
    audit_report.html, .pdf     made from audit.json alone
    README.md                   the dataset card
    SHA256SUMS                  every file but itself
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.events import Watcher
from core.files import explained, sync_folder
from core.release import png
from core.release.audit import build_audit, canonical
from core.release.facts import AuditFacts, check_facts
from core.release.pdf import pdf
from core.release.report import card, html

FIXED_TIME = 315_532_800
"""1980-01-01 UTC, of every exported file: file times tell how long a run took."""

SUMS = "SHA256SUMS"
TABLE = "metadata.csv"
_MODES = {"grey": "L", "RGB": "RGB"}
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A finished export.

    Attributes:
        folder: Where it is.
        audit: The content of its audit.json.
    """

    folder: Path
    audit: dict[str, Any]


def export_release(
    facts: AuditFacts,
    class_folders: tuple[Path, ...],
    destination: Path,
    watcher: Watcher | None = None,
) -> Release:
    """Write a release into `destination`.

    It is written into a hidden folder beside it and renamed at the end, so that a
    release that is there is whole.

    Args:
        facts: For the audit document.
        class_folders: One folder of PNG files for each of `facts.class_names`.
        destination: A folder that is empty or not there; the folder above it must be.
        watcher: Hears of progress; may stop the export, which then leaves nothing.

    Raises:
        UserError: If the destination cannot be used, images are missing or unreadable,
            or the facts do not allow the claim. Nothing is left behind.
        PrivateFigureError: If a fact may not be released.
        Stopped: If the watcher asked to stop.
    """
    watcher = watcher or Watcher()
    destination = Path(destination).absolute()
    check_facts(facts)
    sources = _sources(facts, class_folders)
    check_destination(destination)
    name = f".{destination.name}.partial-{secrets.token_hex(4)}"
    partial = destination.with_name(name)
    try:
        partial.mkdir()
        digests = _write_images(facts, sources, partial, watcher)
        audit = build_audit(facts, content_hashes(digests))
        watcher.progress("Writing the report", 0, 1)
        _write_documents(facts, audit, partial, digests)
        _settle(partial)
        if destination.exists():
            destination.rmdir()
        partial.rename(destination)
        sync_folder(destination.parent)
        watcher.progress("Writing the report", 1, 1)
    except OSError as error:
        raise explained(error, destination) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Release(folder=destination, audit=audit)


def folder_names(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """A folder name for each class: `[A-Za-z0-9 _.-]`, distinct on every system."""
    names: list[str] = []
    taken: set[str] = set()
    following: dict[str, int] = {}
    for label, class_name in enumerate(class_names):
        plain = unicodedata.normalize("NFKD", class_name)
        plain = plain.encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9 _.-]+", "_", plain)[:56].strip(" _.-")
        if not plain or _RESERVED.fullmatch(plain):
            plain = f"class {label}"
        name, number = plain, following.get(plain.lower(), 2)
        while name.lower() in taken:
            name, number = f"{plain}-{number}", number + 1
        following[plain.lower()] = number
        taken.add(name.lower())
        names.append(name)
    return tuple(names)


def csv_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula (OWASP ASVS 1.2.10)."""
    return f"'{text}" if text[:1] in set("=+-@\t\r\0") else text


def image_files(
    class_names: tuple[str, ...], images_per_class: int
) -> list[tuple[str, int]]:
    """(path, label) of every image of a release, class by class."""
    return [
        (f"images/{folder}/{number:06d}.png", label)
        for label, folder in enumerate(folder_names(class_names))
        for number in range(images_per_class)
    ]


def metadata(class_names: tuple[str, ...], images_per_class: int) -> str:
    """The text of metadata.csv."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file_name", "label", "class_name"))
    writer.writerows(
        (path, label, csv_cell(class_names[label]))
        for path, label in image_files(class_names, images_per_class)
    )
    return table.getvalue()


def hash_list(digests: Mapping[str, str]) -> str:
    """The lines of SHA256SUMS for path → digest, sorted by path."""
    return "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))


def _sources(facts: AuditFacts, folders: tuple[Path, ...]) -> list[list[Path]]:
    if len(folders) != len(facts.class_names):
        raise ValueError(f"{len(folders)} folders for {len(facts.class_names)} classes")
    sources = []
    for class_name, folder in zip(facts.class_names, folders, strict=True):
        files = sorted(Path(folder).glob("*.png"))
        if len(files) != facts.images_per_class:
            raise UserError(
                f"The class “{class_name}” has {len(files)} of "
                f"{facts.images_per_class} synthetic images: finish sampling, then "
                "export again."
            )
        sources.append(files)
    return sources


def check_destination(destination: Path) -> None:
    """Refuse a place where no release can be written.

    Raises:
        UserError: when something is there already, or the folder above is not.
    """
    try:
        if destination.is_symlink() or (
            destination.exists()
            and (not destination.is_dir() or any(destination.iterdir()))
        ):
            raise UserError(
                f"The folder {destination} is not empty: choose a new folder for the "
                "release, nothing is ever overwritten."
            )
        if not destination.parent.is_dir():
            raise UserError(
                f"The folder {destination.parent} is not there: make it, or choose "
                "another place for the release."
            )
    except OSError as error:
        raise explained(error, destination) from error


def _write_images(
    facts: AuditFacts, sources: list[list[Path]], partial: Path, watcher: Watcher
) -> dict[str, str]:
    """Write images/ and metadata.csv; give back path → SHA-256."""
    digests: dict[str, str] = {}
    total = sum(map(len, sources))
    folders = folder_names(facts.class_names)
    for folder, files in zip(folders, sources, strict=True):
        (partial / "images" / folder).mkdir(parents=True)
        for number, file in enumerate(files):
            path = f"images/{folder}/{number:06d}.png"
            _write(partial, path, png.encode(_pixels(file, facts)), digests)
            if len(digests) % 100 == 0:
                watcher.stop_if_requested()
                watcher.progress("Exporting images", len(digests), total)
    watcher.progress("Exporting images", total, total)
    table = metadata(facts.class_names, facts.images_per_class)
    _write(partial, TABLE, table.encode(), digests)
    return digests


def _pixels(file: Path, facts: AuditFacts) -> Any:
    import numpy
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as image:
            pixels = numpy.array(image.convert(_MODES[facts.colour]))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError(
            f"The synthetic image {file} cannot be read: delete it, sample again, then "
            "export again."
        ) from None
    if pixels.shape[:2] != tuple(facts.image_size):
        raise UserError(
            f"The synthetic image {file} has another size than the others: delete it, "
            "sample again, then export again."
        )
    return pixels


def content_hashes(digests: Mapping[str, str]) -> dict[str, Any]:
    """Field 6, of path → digest of the images and the table."""
    listed = hash_list(digests)
    return {
        "algorithm": "SHA-256",
        "covers": "images/ and metadata.csv",
        "files": len(digests),
        "hash_list_sha256": hashlib.sha256(listed.encode()).hexdigest(),
    }


def _write_documents(
    facts: AuditFacts, audit: dict[str, Any], partial: Path, digests: dict[str, str]
) -> None:
    readme = card(audit, folder_names(facts.class_names))
    _write(partial, "audit.json", canonical(audit), digests)
    _write(partial, "audit_report.html", html(audit).encode(), digests)
    _write(partial, "audit_report.pdf", pdf(audit), digests)
    _write(partial, "README.md", readme.encode(), digests)
    (partial / SUMS).write_bytes(hash_list(digests).encode())


def _write(partial: Path, path: str, data: bytes, digests: dict[str, str]) -> None:
    (partial / path).write_bytes(data)
    digests[path] = hashlib.sha256(data).hexdigest()


def _settle(partial: Path) -> None:
    """Give everything the same time, and bring it to the disk before the rename."""
    for path in (*partial.rglob("*"), partial):
        os.utime(path, (FIXED_TIME, FIXED_TIME))
    if hasattr(os, "sync"):
        os.sync()
