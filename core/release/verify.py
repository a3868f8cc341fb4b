"""`sfumato verify`: does a release folder keep what it says?

Recomputes every hash, ε by `core.release.recheck`, and the figures around it by
`core.release.consistency`, which says what cannot be checked. Whoever can change every
file of a folder can invent a whole new release: this proves integrity, not who made it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from core.files import sha256
from core.release import png
from core.release.audit import digest
from core.release.consistency import inconsistencies, unchecked
from core.release.dataset import SUMS, csv_cell, folder_names, hash_list
from core.release.pdf import pdf
from core.release.recheck import Finding, contradictions, recheck_epsilon
from core.release.report import card, html
from core.release.sections import SCHEMA_VERSION
from core.release.wording import FORBIDDEN, NO_PRIVACY

DOCUMENTS = ("README.md", "audit.json", "audit_report.html", "audit_report.pdf")
_TABLE = "metadata.csv"
_LARGEST_DOCUMENT = 64_000_000


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome.

    Attributes:
        holds: Whether nothing was found.
        findings: What does not hold.
        notes: What could not be checked to the letter; does not change `holds`.
        claim: The claim of the release, empty if there is none to be read.
        epsilon_recomputed: ε of the stated events at the stated δ; None if unknown.
    """

    holds: bool
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    claim: str
    epsilon_recomputed: float | None


class _Check:
    """One run over one folder, collecting findings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.digests: dict[str, str] = {}
        self.audit: dict[str, Any] = {}
        self.epsilon: float | None = None

    def found(self, subject: str, message: str) -> None:
        shown = "".join(c if c.isprintable() else "?" for c in message)
        self.findings.append(Finding(subject=subject, message=shown))

    def attempt(self, subject: str, check: Callable[[], None]) -> None:
        try:
            check()
        except FileNotFoundError:
            self.found(subject, f"{subject} is missing.")
        except Exception as error:  # whatever a hostile file provokes is a finding
            self.found(subject, f"{subject} is malformed ({type(error).__name__}).")

    def files(self) -> None:
        """Every file is listed with its digest, and every listed file is there."""
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                self.found(name, f"{name} is not an ordinary file.")
            elif path.is_file() and name != SUMS:
                self.digests[name] = sha256(path)
        listed: dict[str, str] = {}
        for line in self.read(SUMS).splitlines():
            value, separator, name = line.partition("  ")
            inside = not PurePosixPath(name).is_absolute() and ".." not in name
            if not re.fullmatch(r"[0-9a-f]{64}", value) or not separator or not inside:
                self.found(SUMS, f"A line of {SUMS} is malformed.")
            else:
                listed[name] = value
        for name in sorted({*listed, *DOCUMENTS, _TABLE} - {*self.digests}):
            self.found(name, f"{name} is missing.")
        for name in sorted({*self.digests} - {*listed}):
            self.found(name, f"{name} is not listed in {SUMS}.")
        for name in sorted({*self.digests} & {*listed}):
            if self.digests[name] != listed[name]:
                self.found(name, f"{name} was changed after the export.")

    def read(self, name: str) -> str:
        path = self.folder / name
        if path.is_symlink() or path.stat().st_size > _LARGEST_DOCUMENT:
            raise ValueError(name)
        return path.read_bytes().decode()

    def document(self) -> None:
        """audit.json is one of ours, and covers the images and the labels."""
        audit = json.loads(self.read("audit.json"))
        version = audit["schema_version"]
        if version != SCHEMA_VERSION:
            message = f"audit.json has the unknown schema version {version}."
            self.found("audit.json", message)
            return
        self.audit = audit
        content = {n: d for n, d in self.digests.items() if n not in DOCUMENTS}
        own = hashlib.sha256(hash_list(content).encode()).hexdigest()
        if audit["content_hashes"]["hash_list_sha256"] != own:
            message = "The images and labels are not those that audit.json lists."
            self.found("content_hashes", message)

    def claim(self) -> None:
        """The figures of audit.json agree, and ε follows from σ, q and T."""
        self.findings += contradictions(self.audit)
        if self.audit.get("stamp") != NO_PRIVACY:
            self.epsilon, findings = recheck_epsilon(self.audit)
            self.findings += findings + inconsistencies(self.audit, self.epsilon)
            self.notes += unchecked(self.audit)

    def reports(self) -> None:
        """HTML, card and PDF are those of this audit.json, in permitted words."""
        names = tuple(self.audit["product"]["class_names"])
        made = {
            "audit_report.html": html(self.audit),
            "README.md": card(self.audit, folder_names(names)),
        }
        for name, text in made.items():
            if self.read(name) != text:
                message = f"{name} is not what this program makes of audit.json."
                self.found(name, message)
        texts = json.dumps({**self.audit, "product": None}, ensure_ascii=False)
        if word := FORBIDDEN.search(texts):
            self.found("audit.json", f"audit.json says “{word.group()}”: too much.")
        report = "audit_report.pdf"
        data = (self.folder / report).read_bytes()
        if f"audit-sha256:{digest(self.audit)}".encode() not in data:
            self.found(report, f"{report} was made of another audit.json.")
        elif data != pdf(self.audit):
            self.notes.append(f"{report} was laid out by other libraries, or edited.")

    def images(self) -> None:
        """metadata.csv names exactly the images, and they hold pixels only."""
        product = self.audit["product"]
        names = product["class_names"]
        count = min(product["images_per_class"], len(self.digests))
        expected = [["file_name", "label", "class_name"]] + [
            [f"images/{folder}/{number:06d}.png", str(label), csv_cell(names[label])]
            for label, folder in enumerate(folder_names(tuple(names)))
            for number in range(count)
        ]
        rows = list(csv.reader(self.read(_TABLE).splitlines()))
        files = {row[0] for row in expected[1:]}
        there = {*self.digests} - {*DOCUMENTS, _TABLE}
        if rows != expected:
            message = "metadata.csv does not name the classes and images of audit.json."
            self.found(_TABLE, message)
        if files != there:
            self.found("images", "The image files are not those of audit.json.")
        for name in sorted(files & there):
            self.attempt(name, lambda name=name: self.image(name, product))

    def image(self, name: str, product: Mapping[str, Any]) -> None:
        try:
            chunks, size = png.inspect((self.folder / name).read_bytes())
        except ValueError as error:
            self.found(name, f"{name} {error}.")
            return
        for chunk in sorted({*chunks} - {*png.ALLOWED_CHUNKS}):
            self.found(name, f"{name} holds a {chunk!r} chunk, which is not pixels.")
        if size != (product["height"], product["width"]):
            self.found(name, f"{name} has another size than audit.json says.")


def verify(folder: Path) -> Verification:
    """Check a release folder; whatever is wrong is a finding, never an error."""
    check = _Check(Path(folder))
    if check.folder.is_dir():
        check.attempt(SUMS, check.files)
        check.attempt("audit.json", check.document)
    else:
        check.found(str(folder), f"{folder} is not a folder.")
    if check.audit:
        check.attempt("The claim of audit.json", check.claim)
        check.attempt("One of the reports", check.reports)
        check.attempt(_TABLE, check.images)
    return Verification(
        holds=not check.findings,
        findings=tuple(dict.fromkeys(check.findings)),
        notes=tuple(check.notes),
        claim=str(check.audit.get("claim", "")),
        epsilon_recomputed=check.epsilon,
    )
