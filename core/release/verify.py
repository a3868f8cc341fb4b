"""`sfumato verify`: does a release folder keep what it says?

Recomputes every hash, ε by `core.release.recheck`, and the figures around it by
`core.release.consistency`, which says what cannot be checked; writes again what the
program writes of them, the document by `core.release.contents`. Whoever can change
every file of a folder can invent a whole new release: this proves integrity, not who
made it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import UserError
from core.files import sha256
from core.release import png
from core.release.audit import LARGEST, canonical, digest
from core.release.consistency import inconsistencies, unchecked
from core.release.contents import departures
from core.release.dataset import (
    SUMS,
    TABLE,
    content_hashes,
    folder_names,
    hash_list,
    image_files,
    metadata,
)
from core.release.exact import MalformedError, whole
from core.release.pdf import pdf
from core.release.recheck import Finding, contradictions, recheck_epsilon
from core.release.report import card, html
from core.release.sections import SCHEMA_VERSION
from core.release.texts import objections
from core.release.wording import NO_PRIVACY

DOCUMENTS = ("README.md", "audit.json", "audit_report.html", "audit_report.pdf")
_LARGEST_DOCUMENT = 64_000_000
_CHANNELS = {"grey": 1, "RGB": 3}


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
        self.findings.append(Finding(subject=subject, message=message))

    def attempt(self, subject: str, check: Callable[[], None]) -> None:
        try:
            check()
        except FileNotFoundError:
            self.found(subject, f"{subject} is missing.")
        except (MalformedError, UserError) as error:
            self.found(subject, str(error))
        except KeyError as error:
            self.found(subject, f"{subject} lacks {error}.")
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
            elif path.is_dir() and not any(path.iterdir()):
                self.found(name, f"{name} is an empty folder.")
        listed: dict[str, str] = {}
        for line in self.read(SUMS).splitlines():
            value, separator, name = line.partition("  ")
            inside = not PurePosixPath(name).is_absolute() and ".." not in name
            if not re.fullmatch(r"[0-9a-f]{64}", value) or not separator or not inside:
                self.found(SUMS, f"A line of {SUMS} is malformed.")
            else:
                listed[name] = value
        for name in sorted({*listed, *DOCUMENTS, TABLE} - {*self.digests}):
            self.found(name, f"{name} is missing.")
        for name in sorted({*self.digests} - {*listed}):
            self.found(name, f"{name} is not listed in {SUMS}.")
        for name in sorted({*self.digests} & {*listed}):
            if self.digests[name] != listed[name]:
                self.found(name, f"{name} was changed after the export.")
        if listed == self.digests and self.read(SUMS) != hash_list(listed):
            self.found(SUMS, f"{SUMS} holds more than one line for each file.")

    def data(self, name: str) -> bytes:
        path = self.folder / name
        largest = LARGEST if name == "audit.json" else _LARGEST_DOCUMENT
        if path.is_symlink() or path.stat().st_size > largest:
            raise MalformedError(f"{name} is no file, or larger than an export's.")
        return path.read_bytes()

    def read(self, name: str) -> str:
        return self.data(name).decode()

    def document(self) -> None:
        """audit.json is one of ours, and covers the images and the labels."""
        data = self.data("audit.json")
        audit = json.loads(data)
        version = audit["schema_version"]
        if version != SCHEMA_VERSION:
            message = (
                f"audit.json has the schema version {version}, which this version of "
                "Sfumato cannot check: use the one that the report names."
            )
            self.found("audit.json", message)
            return
        self.audit = audit
        content = {n: d for n, d in self.digests.items() if n not in DOCUMENTS}
        if audit["content_hashes"] != content_hashes(content):
            message = "The images and labels are not those that audit.json lists."
            self.found("content_hashes", message)
        # PRIVACY: of a key that comes twice, another reader may take the other value.
        if data != canonical(audit):
            message = "audit.json is not written as this program writes it."
            self.found("audit.json", message)

    def contents(self) -> None:
        """Nothing is missing in audit.json, nothing added, no text says too much."""
        for key, wrong in objections(self.audit):
            self.found(key, f"The text of “{key}” in audit.json {wrong}.")
        self.findings += departures(self.audit)

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
        report = "audit_report.pdf"
        data = self.data(report)
        if f"audit-sha256:{digest(self.audit)}".encode() not in data:
            self.found(report, f"{report} was made of another audit.json.")
        # PRIVACY: a PDF can hold the text of one report and show that of another, with
        # letters of its own for instance; only the bytes of a report show that report.
        elif data != pdf(self.audit):
            message = (
                f"{report} is not what this program makes of audit.json, so that what "
                "it says was not checked: read audit_report.html."
            )
            self.found(report, message)

    def images(self) -> None:
        """metadata.csv names exactly the images, and they hold pixels only."""
        product = self.audit["product"]
        names, each = tuple(product["class_names"]), product["images_per_class"]
        there = {*self.digests} - {*DOCUMENTS, TABLE}
        # Compared first: numbers of audit.json alone could ask for a list without end.
        if len(names) * whole(each, "images_per_class", 1) != len(there):
            self.found("images", "The image files are not those of audit.json.")
            return
        if self.read(TABLE) != metadata(names, each):
            message = "metadata.csv does not name the classes and images of audit.json."
            self.found(TABLE, message)
        if {path for path, _ in image_files(names, each)} != there:
            self.found("images", "The image files are not those of audit.json.")
        shape = {key: whole(product[key], key, 1) for key in ("height", "width")}
        shape["channels"] = _CHANNELS[product["colour"]]
        for name in sorted(there):
            self.attempt(name, lambda name=name: self.image(name, shape))

    def image(self, name: str, shape: dict[str, int]) -> None:
        data = self.data(name)
        try:
            png.check(data, **shape)
        except ValueError as error:
            self.found(name, f"{name} {error}.")


def _shown(text: str) -> str:
    """Text that can neither hide nor write to the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def verify(folder: Path) -> Verification:
    """Check a release folder; whatever is wrong is a finding, never an error."""
    check = _Check(Path(folder))
    if check.folder.is_dir():
        check.attempt(SUMS, check.files)
        check.attempt("audit.json", check.document)
    else:
        check.found(str(folder), f"{folder} is not a folder.")
    if check.audit:
        check.attempt("audit.json", check.contents)
        check.attempt("The claim of audit.json", check.claim)
        check.attempt("One of the reports", check.reports)
        check.attempt(TABLE, check.images)
    findings = [
        Finding(subject=_shown(finding.subject), message=_shown(finding.message))
        for finding in check.findings
    ]
    return Verification(
        holds=not findings,
        findings=tuple(dict.fromkeys(findings)),
        notes=tuple(check.notes),
        claim=_shown(str(check.audit.get("claim", ""))),
        epsilon_recomputed=check.epsilon,
    )
