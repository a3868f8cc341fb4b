"""Release: the export tree, its audit document and reports, and their verification."""

from core.release.audit import build_audit
from core.release.dataset import Release, export_release
from core.release.facts import AuditFacts, PrivateFigureError, check_texts
from core.release.verify import Finding, Verification, verify

__all__ = [
    "AuditFacts",
    "Finding",
    "PrivateFigureError",
    "Release",
    "Verification",
    "build_audit",
    "check_texts",
    "export_release",
    "verify",
]
