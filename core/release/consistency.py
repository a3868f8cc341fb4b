"""Whether all figures of an audit document follow from its events.

`recheck` compares the claim with the events; here are the figures around it. None of
the accounting that wrote them is used.

What cannot be checked from a release alone, because nothing in it says otherwise: how
many runs share the lifetime budget, and its ε above that of this run; how many steps
that were started reached the weights; how many images of a patient enter a step; facts
that the run states in words; settings that cost no privacy (views, learning rate,
averages, sampler, number of weights); N itself, the clip norm itself, and whether the
program did what the events say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.release import recheck
from core.release.exact import bound, fraction, real
from core.release.recheck import TOLERANCE, Finding
from core.release.wording import RELATIONS, epsilon_scale, relation_words

_COARSE = 1e-3
"""Grid of losses that the figures beside the claim are computed with, as they say."""
_RATES = (0.001, 0.01)
_POINTS = 400
_PROFILE_LENGTH = 20
_CAP_DEVIATIONS = 6
_MOST_RELEASES = 8
"""Central images, moments (two), their cells (two), features (two) and teacher."""
_LARGEST_EXPONENT = 700.0
_OF_STEPS = (
    "clip_norm", "noise_multiplier", "noise_std_abs", "normaliser",
    "augmentation_multiplicity",
)  # fmt: skip
_FOLLOWS = "does not follow from the events that audit.json lists."
Row = tuple[bool, str, str]
"""Whether it holds, the field, and what is to be said if not."""


@dataclass(frozen=True, kw_only=True)
class Implied:
    """What the events imply beside ε at the claim's δ.

    Attributes:
        profile: ε at each δ that was asked for, in that order.
        by_relation: ε under every other relation.
        rates: The largest true positive rate at each of `_RATES`.
        accuracy: The largest share of right answers over an even mix.
    """

    profile: tuple[float, ...]
    by_relation: Mapping[str, float]
    rates: tuple[float, ...]
    accuracy: float


def inconsistencies(audit: Mapping[str, Any], epsilon: float) -> list[Finding]:
    """Figures that do not follow from the events and the declared numbers.

    Args:
        audit: The document; not one that is stamped NO PRIVACY.
        epsilon: Of its events at its δ, recomputed.

    Raises:
        KeyError, TypeError, ValueError: If the document is malformed.
    """
    rows = [*_samplings(audit), *_steps(audit), *_declared(audit), *_spent(audit)]
    rows += [*_explained(audit, epsilon), *_groups(audit, epsilon)]
    return [
        Finding(subject=subject, message=message)
        for holds, subject, message in rows
        if not holds
    ]


def unchecked(audit: Mapping[str, Any]) -> list[str]:
    """What this document says that nothing in it can confirm."""
    started, notes = audit["steps_started"], []
    if (completed := audit.get("steps_completed", started)) < started:
        notes.append(
            f"{started - completed} steps were charged and not completed: that cannot "
            "be checked."
        )
    if audit["lifetime_budget"]["runs"] > 1:
        notes.append("The lifetime ε is over other runs too: it cannot be checked.")
    return notes


def _samplings(audit: Mapping[str, Any]) -> Iterator[Row]:
    """How units are sampled, against the events."""
    events = audit["composition"]["events"]
    steps = [event for event in events if "batch_cap" in event]
    sampling = audit["sampling"] if steps else []
    yield (
        len(sampling) == len(steps)
        and bool(steps) == isinstance(audit["sampling"], list),
        "sampling",
        f"The number of kinds of sampled steps {_FOLLOWS}",
    )
    for step, said in zip(steps, sampling, strict=False):
        number, share = step["dataset_size"], step["sampling_probability"]
        mean = number * share
        deviation = math.sqrt(mean * (1 - share))
        cap = min(number, math.ceil(mean + _CAP_DEVIATIONS * deviation))
        exact = fraction(
            said["sampling_probability_exact"], "sampling_probability_exact"
        )
        yield (
            said["sampling_probability"] == exact == share,
            "sampling",
            f"The sampling probability q {_FOLLOWS}",
        )
        yield (
            _close(said["expected_batch"], mean, 1e-5),
            "sampling",
            f"The expected batch {_FOLLOWS}",
        )
        yield said["batch_cap"] == step["batch_cap"], "sampling", f"A cap {_FOLLOWS}"
        yield (
            step["batch_cap"] == cap,
            "composition",
            f"The cap of a batch is not mean + {_CAP_DEVIATIONS} deviations, {cap}.",
        )


def _steps(audit: Mapping[str, Any]) -> Iterator[Row]:
    """Divisor, clipping and number of steps, against the events."""
    events = audit["composition"]["events"]
    steps = [event for event in events if "batch_cap" in event]
    trained = bool(audit["steps_committed"])
    clip_norm = audit["clip_norm"]
    clipped = [entry["clip_norm"] for entry in audit["original_parameters"]]
    yield (
        clipped == [clip_norm if "batch_cap" in event else None for event in events],
        "original_parameters",
        "The clip norm contradicts field 35.",
    )
    started = audit["steps_started"]
    completed = audit.get("steps_completed", started)
    yield (
        0 <= completed <= started,
        "steps_completed",
        "More steps were completed than were started.",
    )
    if not trained:
        # Fields of steps say in words that there are none; a number there is a lie.
        for field in _OF_STEPS:
            yield (
                not isinstance(audit.get(field), int | float),
                field,
                "There are no steps for this number to be of.",
            )
        return
    mean = steps[-1]["dataset_size"] * steps[-1]["sampling_probability"]
    yield (
        _close(audit["normaliser"], mean, 1e-5),
        "normaliser",
        "The divisor is not the expected batch q N.",
    )


def _declared(audit: Mapping[str, Any]) -> Iterator[Row]:
    """Numbers that are said in more than one place."""
    product, count = audit["product"], audit["n_public"]["count"]
    unit = audit["unit_of_privacy"]["unit"]
    relation = audit["neighbouring_relation"]
    images = product["images_per_class"] * len(product["class_names"])
    yield (
        product["images"] == images == audit["content_hashes"]["files"] - 1,
        "product",
        "The number of images is not that of the classes and files.",
    )
    yield (
        audit["delta_vs_n"]["holds"] == (audit["delta"] <= 1 / (10 * count)),
        "delta_vs_n",
        "What is said of δ against N is wrong.",
    )
    said = re.findall(r"N = ([\d,]+)", " ".join(audit["unprotected_quantities"]))
    yield (
        all(int(number.replace(",", "")) == count for number in said),
        "unprotected_quantities",
        "The number N is not that of field 52.",
    )
    yield (
        audit["n_public"]["unit"] == unit
        and relation["definition"] == relation_words(relation["relation"], unit),
        "unit_of_privacy",
        "The unit of privacy is not the same everywhere.",
    )
    contributions = audit["max_contributions_per_unit"]
    most = contributions["images"]
    told = re.match(r"At most (\d+) images?", contributions["rule"])
    yield (
        (most == 1 or (unit != "image" and most > 1))
        and (told is None or int(told[1]) == most),
        "max_contributions_per_unit",
        "The images per unit contradict the unit or the rule.",
    )


def _spent(audit: Mapping[str, Any]) -> Iterator[Row]:
    """ε spent, by this run and by all."""
    spent, lifetime = audit["epsilon_spent"], audit["lifetime_budget"]
    relation = audit["neighbouring_relation"]["relation"]
    charged = next(
        (
            events
            for events in _charges(audit)
            if _close(
                spent, recheck.recomputed_epsilon(events, audit["delta"], relation)
            )
        ),
        None,
    )
    yield charged is not None, "epsilon_spent", f"The ε spent {_FOLLOWS}"
    of_all = bound(lifetime["epsilon"], "epsilon")
    yield (
        lifetime["runs"] >= 1 and of_all >= spent,
        "lifetime_budget",
        "The lifetime ε is below the ε that this run spent.",
    )
    yield (
        lifetime["runs"] > 1 or of_all == spent,
        "lifetime_budget",
        "The lifetime ε is not that of the only run.",
    )


def _charges(audit: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The events that the run may have been charged, most likely first.

    A step is charged when it is started. Each release before the steps is charged whole
    and in its turn; a crash that loses what the next ones build on ends them.
    """
    events, started = audit["composition"]["events"], audit["steps_started"]
    steps = []
    if audit["steps_committed"]:
        *events, last = events
        steps = [last | {"count": started}] if started > 0 else []
    if len(events) > _MOST_RELEASES:
        raise ValueError("too many releases before the steps")
    for kept in range(len(events), -1, -1):
        charged = [*events[:kept], *steps]
        # With no steps of a network, there is nothing to release without them.
        if charged and (audit["steps_committed"] or kept == len(events)):
            yield charged


def _explained(audit: Mapping[str, Any], epsilon: float) -> Iterator[Row]:
    """The profile, other relations, and an attacker's chances."""
    profile, told = audit["privacy_profile"], audit["interpretation"]
    relation = audit["neighbouring_relation"]
    others = relation["epsilon_under_other_relations"]
    deltas = tuple(real(point["delta"], "delta") for point in profile)
    if len(deltas) > _PROFILE_LENGTH or not all(0 < delta < 1 for delta in deltas):
        raise ValueError("a profile out of bounds")
    events = audit["composition"]["events"]
    found = implied(events, relation["relation"], audit["delta"], deltas, epsilon)
    yield (
        audit["delta"] in deltas
        and _all_close([point["epsilon"] for point in profile], found.profile),
        "privacy_profile",
        f"An ε or δ of the privacy profile {_FOLLOWS}",
    )
    yield (
        set(others) == set(found.by_relation)
        and all(_close(others[name], found.by_relation[name]) for name in others),
        "neighbouring_relation",
        f"An ε under another relation {_FOLLOWS}",
    )
    low, high = found.rates
    posterior = high / (high + _RATES[1])
    yield (
        _all_close(
            [
                told["max_tpr_at_fpr_0_1_percent"],
                told["max_tpr_at_fpr_1_percent"],
                told["posterior_from_50_percent_at_fpr_1_percent"],
                told["best_accuracy_from_50_percent"],
            ],
            [low, high, posterior, found.accuracy],
        ),
        "interpretation",
        f"An attacker's chance {_FOLLOWS}",
    )
    said = re.findall(r"(\d+(?:\.\d+)?) %", " ".join(told["text"]))
    shares = [high, 0.01, 0.01, posterior, 0.5, found.accuracy, 0.5]
    yield (
        # Said with two decimals, rounded up.
        len(told["text"]) == 3
        and len(said) == len(shares)
        and all(
            math.isclose(float(percent), 100 * share, rel_tol=TOLERANCE, abs_tol=0.011)
            for percent, share in zip(said, shares, strict=True)
        ),
        "interpretation",
        f"An attacker's chance, in words, {_FOLLOWS}",
    )
    yield (
        told["scale"] == epsilon_scale(audit["epsilon_claimed"]),
        "interpretation",
        "Where ε stands on the scale is not what the claim calls for.",
    )


def _groups(audit: Mapping[str, Any], epsilon: float) -> Iterator[Row]:
    """ε of a person with several images, or of one image of a patient."""
    for who, words in audit["epsilon_other_units"].items():
        found = re.search(r"ε = ([\d.,]+) at δ = ([\d.e-]+)", words)
        size = re.fullmatch(r"a person with (\d+) images", who)
        if size:
            times = int(size.group(1))
            delta = math.inf
            if times * epsilon <= _LARGEST_EXPONENT:
                delta = audit["delta"] * math.expm1(times * epsilon)
                delta /= math.expm1(epsilon)
            expected = (times * epsilon, delta)
        elif who == "one image of a patient":
            relation = audit["neighbouring_relation"]
            others = relation["epsilon_under_other_relations"]
            exchanged = bound(others.get("replace_one", epsilon), "replace_one")
            times, expected = 1, (exchanged, audit["delta"])
        else:
            yield who == "note", "epsilon_other_units", f"A row {_FOLLOWS}"
            continue
        if found is None:
            holds = expected[1] >= 1 and words.startswith("no bound")
        else:
            said = (float(found[1].replace(",", "")), float(found[2]))
            slack = TOLERANCE * (1 + times * epsilon)
            holds = _close(said[0], expected[0]) and _close(said[1], expected[1], slack)
        yield holds, "epsilon_other_units", f"The ε or δ of {who} {_FOLLOWS}"


def implied(
    events: list[Any],
    relation: str,
    delta: float,
    deltas: tuple[float, ...],
    epsilon: float,
) -> Implied:
    """The figures beside the claim, by dp-accounting's PLD alone.

    An attacker who accuses a share α of those who were not used, rightly accuses at
    most min(e^x α + δ(x), 1 - e^-x (1 - α - δ(x))) of the others, for every x ≥ 0.

    Raises:
        ValueError: If a figure is not one that a mechanism can have.
    """
    fine = recheck.composed(events, relation)
    coarse = {name: recheck.composed(events, name, _COARSE) for name in RELATIONS}
    curve = [
        (x, float(coarse[relation].get_delta(x)))
        for x in (epsilon * point / _POINTS for point in range(_POINTS + 1))
    ]
    return Implied(
        profile=tuple(float(fine.get_epsilon(each)) for each in deltas),
        by_relation={
            name: float(accountant.get_epsilon(delta))
            for name, accountant in coarse.items()
            if name != relation
        },
        rates=tuple(
            min(
                1.0,
                *(math.exp(x) * rate + delta for x, delta in curve),
                *(1 - math.exp(-x) * (1 - rate - delta) for x, delta in curve),
            )
            for rate in _RATES
        ),
        accuracy=(1 + curve[0][1]) / 2,
    )


def _close(said: Any, found: float, tolerance: float = TOLERANCE) -> bool:
    """Within the rounding to four digits; both infinite is equal."""
    number = bound(said, "a figure")
    return math.isclose(number, found, rel_tol=tolerance, abs_tol=1e-9)


def _all_close(said: Iterable[Any], found: Iterable[float]) -> bool:
    return all(_close(one, other) for one, other in zip(said, found, strict=True))
