"""The figures of an audit document, checked against one another and recomputed.

Independent on purpose: nothing here uses the accounting that made the claim.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.release.exact import MalformedError, bound, real, whole
from core.release.wording import NO_PRIVACY, format_epsilon, stated_claim

TOLERANCE = 1e-3
"""Relative; above the rounding to 4 significant digits and library differences."""

_GAUSSIAN = frozenset({"kind", "what", "noise_multiplier", "count"})
_KINDS = {
    "gaussian": _GAUSSIAN,
    "truncated_poisson_gaussian": _GAUSSIAN
    | {"dataset_size", "sampling_probability", "batch_cap"},
}
"""What an event of each kind states, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that does not hold: the file or field, and one sentence."""

    subject: str
    message: str


def contradictions(audit: Mapping[str, Any]) -> list[Finding]:
    """Figures that contradict each other.

    Raises:
        KeyError, TypeError, ValueError: If the document is malformed.
    """
    if audit.get("stamp") == NO_PRIVACY:
        message = "The release is stamped NO PRIVACY: no bound is claimed."
        return [Finding(subject="stamp", message=message)]
    events = audit["composition"]["events"]
    steps = [e for e in events if e["kind"] == "truncated_poisson_gaussian"]
    # Releases of a warm-up that sample, too, come before the steps.
    total = steps[-1]["count"] if steps else 0
    clip_norm, count = audit["clip_norm"], audit["n_public"]["count"]
    stated = [
        (e["noise_multiplier"], e.get("sampling_probability", 1.0), e["count"])
        for e in events
    ]
    original = [
        (p["noise_multiplier"], p["sampling_probability"], p["steps"])
        for p in audit["original_parameters"]
    ]
    wrong = "contradicts the events that audit.json lists."
    rows = [
        (audit["steps_committed"] == total, "steps_committed", f"The T {wrong}"),
        (stated == original, "original_parameters", f"One of σ, q and T {wrong}"),
        (
            all(step["dataset_size"] == count for step in steps),
            "n_public",
            f"The number N {wrong}",
        ),
        (
            not steps
            or (
                audit["noise_multiplier"] == steps[-1]["noise_multiplier"]
                and math.isclose(
                    audit["noise_std_abs"], steps[-1]["noise_multiplier"] * clip_norm
                )
            ),
            "noise_multiplier",
            f"The noise σ {wrong}",
        ),
        (
            audit["steps_started"] <= audit["steps_committed"],
            "steps_started",
            "More steps were started than the claim covers.",
        ),
        (
            audit["epsilon_spent"] <= audit["epsilon_claimed"],
            "epsilon_spent",
            "More ε was spent than is claimed.",
        ),
        (
            audit["claim"] == stated_claim(audit),
            "claim",
            "The claim sentence does not say what the figures of audit.json say.",
        ),
    ]
    return [
        Finding(subject=subject, message=message)
        for holds, subject, message in rows
        if not holds
    ]


def check_event(event: Mapping[str, Any]) -> None:
    """Refuse an event whose figures are not what they are composed as.

    Raises:
        MalformedError: If its kind or a figure of it is none that a mechanism has.
        KeyError, TypeError: If it is no event at all.
    """
    if set(event) != _KINDS.get(event["kind"]):
        raise MalformedError("An event does not state just the figures of its kind.")
    # PRIVACY: ε is composed of these; a figure is never changed into a fitting one.
    if not 0.1 <= real(event["noise_multiplier"], "noise_multiplier") <= 1e6:
        raise MalformedError("The noise of an event is out of bounds.")
    if whole(event["count"], "count", 1) > 1_000_000:
        raise MalformedError("The count of an event is out of bounds.")
    if "batch_cap" in event:
        if whole(event["dataset_size"], "dataset_size", 1) > 10**9:
            raise MalformedError("The number N of an event is out of bounds.")
        whole(event["batch_cap"], "batch_cap", 1)
        if not 0 < real(event["sampling_probability"], "sampling_probability") <= 1:
            raise MalformedError("The sampling probability of an event is none.")


def recheck_epsilon(audit: Mapping[str, Any]) -> tuple[float, list[Finding]]:
    """ε recomputed from σ, q, T, and what it contradicts.

    Raises:
        KeyError, TypeError, ValueError: If the document is malformed.
    """
    composition = audit["composition"]
    claimed = real(audit["epsilon_claimed"], "epsilon_claimed")
    epsilon = recomputed_epsilon(
        composition["events"],
        real(audit["delta"], "delta"),
        audit["neighbouring_relation"]["relation"],
    )
    own = f"ε recomputed from σ, q and T is {format_epsilon(epsilon)}"
    findings = []
    if not epsilon <= claimed:
        message = f"{own}, above the claimed {format_epsilon(claimed)}."
        findings.append(Finding(subject="epsilon_claimed", message=message))
    noted = bound(composition["epsilon_of_events"], "epsilon_of_events")
    if not math.isclose(noted, epsilon, rel_tol=TOLERANCE):
        message = f"{own}, not {format_epsilon(noted)} as audit.json says."
        findings.append(Finding(subject="epsilon_of_events", message=message))
    return epsilon, findings


def recomputed_epsilon(events: list[Any], delta: float, relation: str) -> float:
    """ε of the events at δ, by dp-accounting's PLD alone.

    Raises:
        ValueError: If a figure is not one that a mechanism can have.
    """
    if not 0 < delta < 1:
        raise ValueError("delta out of bounds")
    return float(composed(events, relation).get_epsilon(delta))


def composed(events: list[Any], relation: str, interval: float = 1e-4) -> Any:
    """The events in dp-accounting's PLD accountant, on a grid of losses.

    Remembered, since several figures are asked of it; nobody may compose more onto it.

    Raises:
        ValueError: If a figure is not one that a mechanism can have.
    """
    return _composed(json.dumps(events), relation, interval)


@lru_cache(maxsize=8)
def _composed(listed: str, relation: str, interval: float) -> Any:
    events = json.loads(listed)
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp.NeighboringRelation[relation.upper()], interval)
    if len(events) >= 100:
        raise MalformedError("audit.json lists more events than any run has.")
    for event in events:
        check_event(event)
        mechanism: Any = dp.GaussianDpEvent(event["noise_multiplier"])
        if "batch_cap" in event:
            mechanism = dp.TruncatedSubsampledGaussianDpEvent(
                dataset_size=event["dataset_size"],
                sampling_probability=event["sampling_probability"],
                truncated_batch_size=event["batch_cap"],
                noise_multiplier=event["noise_multiplier"],
            )
        accountant.compose(mechanism, event["count"])
    return accountant
