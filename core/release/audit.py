"""The audit document of a release: facts in, one releasable JSON document out.

Everything printed, in HTML, in PDF or in the dataset card, is made from this document
alone. Nothing enters it that may not leave the house: see `core.release.facts`.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from core.errors import UserError
from core.release import wording
from core.release.bounds import Bounds, bounds
from core.release.facts import (
    AuditFacts,
    PrivateFigureError,
    check_facts,
    releasable,
)
from core.release.fields import CUSTODIAN_ONLY, FIELDS, KEYS
from core.release.sections import SECTIONS

LARGEST = 400_000
"""Bytes of audit.json. The pages of more take minutes, for whoever verifies it too."""


def build_audit(facts: AuditFacts, content_hashes: Mapping[str, Any]) -> dict[str, Any]:
    """The audit document, nested by the dotted keys of `core.release.fields`.

    Args:
        facts: Of the run; checked by `check_facts`.
        content_hashes: Digests of what is released beside the document itself.

    Returns:
        A document of plain JSON types with sorted keys, equal for equal arguments.

    Raises:
        UserError: If a text uses a word that no report may use, the document gets too
            long, or more budget was charged than the claim covers.
        PrivateFigureError: If a fact may not leave the house.
        ValueError: If a fact is malformed.
    """
    check_facts(facts)
    found = bounds(
        facts.events,
        delta=facts.delta,
        relation=facts.relation,
        count=facts.declared_count,
    )
    if wording.round_up(found.epsilon) > wording.round_up(facts.epsilon_committed):
        raise ValueError(
            f"the events compose to ε = {found.epsilon:.6g}, more than the claim of "
            f"{facts.epsilon_committed:.6g}"
        )
    audit = document(facts, found, content_hashes)
    if len(canonical(audit)) > LARGEST:
        raise UserError(
            "The report gets too long to be read: shorten the names of the classes, or "
            "the texts about the checkpoint."
        )
    return audit


def document(
    facts: AuditFacts, found: Bounds, content_hashes: Mapping[str, Any]
) -> dict[str, Any]:
    """The document of facts and of what their events imply, both taken as they are.

    `verify` writes it again from what a document states, to compare the two.

    Raises:
        PrivateFigureError, ValueError: As `build_audit`.
    """
    items: dict[str, Any] = {}
    for section in SECTIONS:
        items |= section(facts, found)
    items["content_hashes"] = content_hashes
    items["report_id"] = _report_id(facts, content_hashes)
    written = _nest(
        {key: releasable(value) for key, value in items.items() if value is not None}
    )
    written["title"] = facts.title
    if facts.fixed_seed:
        written["stamp"] = wording.NO_PRIVACY
        del written["epsilon_claimed"]
    written["claim"] = wording.stated_claim(written)
    written["not_yet_reported"] = [
        {"field": field.number, "key": key, "name": field.label}
        for field in FIELDS
        for key in field.required
        if key not in items or items[key] is None
    ]
    return json.loads(canonical(written))


def canonical(audit: Mapping[str, Any]) -> bytes:
    """The document as the bytes of audit.json: sorted keys, UTF-8, one last newline."""
    text = json.dumps(
        audit, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    return (text + "\n").encode()


def digest(audit: Mapping[str, Any]) -> str:
    """SHA-256 of `canonical`; the reports carry it to say which document they print."""
    return hashlib.sha256(canonical(audit)).hexdigest()


def lookup(audit: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, or None."""
    value: Any = audit
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _nest(items: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in items.items():
        # PRIVACY: what was computed on private records has no place in the document.
        if key in CUSTODIAN_ONLY:
            raise PrivateFigureError(f"{key} belongs to the custodian's annex only")
        if key not in KEYS:
            raise ValueError(f"{key} is no field of the audit document")
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return nested


def _report_id(facts: AuditFacts, content_hashes: Mapping[str, Any]) -> str:
    hashes = json.dumps(dict(content_hashes), sort_keys=True)
    seen = f"{facts.run_id} {facts.created_utc} {hashes}"
    return str(uuid.uuid5(uuid.UUID(int=0), seen))
