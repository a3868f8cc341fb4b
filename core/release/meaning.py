"""What a bound means for one person, in plain words, and what it does not promise."""

from __future__ import annotations

from typing import Any

from core.release.bounds import GROUP_SIZES, Bounds, group_privacy
from core.release.facts import AuditFacts
from core.release.wording import (
    epsilon_scale,
    format_delta,
    format_epsilon,
    format_percent,
    round_up,
)


def interpretation(facts: AuditFacts, found: Bounds) -> dict[str, Any]:
    """Field 21: an attacker's chances, and what is not promised."""
    # Rounded before they are used: the sentences follow from the figures beside them.
    low = round_up(found.true_positive_rates[0.001])
    high = round_up(found.true_positive_rates[0.01])
    posterior = round_up(high / (high + 0.01))
    accuracy = round_up(found.best_accuracy)
    unit = facts.unit
    return {
        "max_tpr_at_fpr_0_1_percent": low,
        "max_tpr_at_fpr_1_percent": high,
        "posterior_from_50_percent_at_fpr_1_percent": posterior,
        "best_accuracy_from_50_percent": accuracy,
        "text": [
            f"An attacker who knows every other record, and asks whether one {unit} "
            "was used, can be right for at most "
            f"{format_percent(high)} of those that were used while wrongly accusing "
            "1 % of those that were not. Blind guessing would reach 1 %.",
            f"If such an attacker thought it a coin toss beforehand and then accuses "
            f"the {unit}, the accusation is right with probability at most "
            f"{format_percent(posterior)}; without this release, 50 %.",
            "Over an even mix of used and unused records, no attack answers more "
            f"than {format_percent(accuracy)} correctly; a coin reaches "
            "50 %.",
        ],
        "scale": epsilon_scale(facts.epsilon_committed),
        "does_not_promise": [
            "It does not hide what is true of the whole group: images of a class look "
            "like that class, and anyone may learn so from this release.",
            "It does not hide the declared facts: the classes, the number of records "
            "declared, the image size and colour.",
            *_unit_caveats(facts),
            "It does not cover other publications about the same people, nor the "
            "private images themselves if they are taken from the custodian.",
            "It says nothing about how useful or medically correct the images are; "
            "rare classes degrade first.",
        ],
    }


def other_units(facts: AuditFacts, found: Bounds) -> dict[str, Any]:
    """Field 26: ε of a person with several images, or of one image of a patient."""
    if facts.unit == "patient":
        exchanged = found.by_relation["replace_one"]
        return {
            "one image of a patient": "an image more or less changes one patient: "
            f"ε = {format_epsilon(exchanged)} at δ = {format_delta(facts.delta)} under "
            "the replace one relation bounds it"
        }
    rows: dict[str, Any] = {}
    for size in GROUP_SIZES:
        epsilon, delta = group_privacy(found.epsilon, facts.delta, size)
        rows[f"a person with {size} images"] = (
            "no bound: the group's δ reaches 1"
            if delta >= 1
            else f"ε = {format_epsilon(epsilon)} at δ = {format_delta(round_up(delta))}"
        )
    rows["note"] = (
        "by group privacy from the claim's δ; a δ far above 1/N bounds next to nothing"
    )
    return rows


def _unit_caveats(facts: AuditFacts) -> list[str]:
    if facts.unit == "patient":
        return [
            "It protects a patient only as far as every image of that patient carries "
            "the same patient number."
        ]
    return [
        "It protects single images. A person with several images in the data is "
        "protected less, as field 26 shows."
    ]
