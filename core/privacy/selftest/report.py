"""The verdict of a self-test, in plain words and as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from core.privacy.selftest.findings import Finding


class Verdict(Enum):
    """How a self-test ends."""

    NOTHING_FOUND = "no violation detected"
    VIOLATION = "violation detected"
    BROKEN = "the self-test itself is broken"


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Whether one check saw one deliberate fault."""

    fault: str
    check: str
    seen: bool


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """Everything that a self-test found.

    Attributes:
        findings: One of each check, in their order.
        confirmations: One for each deliberate fault and check that must see it.
        seconds: How long it took.
    """

    findings: tuple[Finding, ...]
    confirmations: tuple[Confirmation, ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """A violation counts, however broken the test may be besides."""
        if any(finding.violated for finding in self.findings):
            return Verdict.VIOLATION
        if not all(confirmation.seen for confirmation in self.confirmations):
            return Verdict.BROKEN
        return Verdict.NOTHING_FOUND

    @property
    def clean(self) -> bool:
        """Whether nothing speaks against going on."""
        return self.verdict is Verdict.NOTHING_FOUND

    def headline(self) -> str:
        """The verdict in one sentence."""
        if self.verdict is Verdict.VIOLATION:
            names = ", ".join(found.check for found in self.findings if found.violated)
            return f"Violation detected: {names}."
        if self.verdict is Verdict.BROKEN:
            missed = ", ".join(
                f"“{one.fault}” by “{one.check}”"
                for one in self.confirmations
                if not one.seen
            )
            return (
                "The self-test itself is broken: it overlooked a deliberate fault "
                f"({missed})."
            )
        return (
            f"No violation detected in {len(self.findings)} checks; all "
            f"{len(self.confirmations)} trials with deliberate faults were noticed."
        )

    def advice(self) -> str:
        """What the verdict means, and what to do."""
        if self.verdict is Verdict.NOTHING_FOUND:
            return (
                "An engine that works looks like this. It is no proof: a fault smaller "
                "than the ones named, or of another kind, would not show."
            )
        meaning = (
            "The privacy engine on this computer does not do what the privacy bound "
            "assumes."
            if self.verdict is Verdict.VIOLATION
            else "What the other lines say cannot be relied on."
        )
        return (
            f"{meaning} Stop: train nothing with this installation, spend no budget, "
            "and pass on nothing that it made. This is neither chance nor your "
            "mistake: the program may be damaged or changed, or the computer faulty. "
            "Send these lines to those who look after Sfumato for you; they hold "
            "nothing of your images. This test spent nothing."
        )

    def text(self) -> str:
        """One line for each check and each trial, then the verdict."""
        lines = [
            "Self-test of the privacy engine, on made-up data: no image was read, "
            "nothing was spent.",
            "",
            *(finding.text() for finding in self.findings),
            "",
            "The same checks on engines broken on purpose:",
            *(
                f"{'noticed' if one.seen else 'OVERLOOKED':<12}  {one.fault}: "
                f"{one.check}"
                for one in self.confirmations
            ),
            "",
            f"{self.headline()} ({self.seconds:.0f} s)",
            self.advice(),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "verdict": self.verdict.value,
            "headline": self.headline(),
            "advice": self.advice(),
            "seconds": round(self.seconds, 1),
            "checks": [finding.to_json() for finding in self.findings],
            "deliberate_faults": [
                {"fault": one.fault, "check": one.check, "noticed": one.seen}
                for one in self.confirmations
            ],
        }
