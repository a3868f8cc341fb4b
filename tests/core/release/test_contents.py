"""A document says what this program writes of its facts, and nothing else."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields

import pytest

from core.audience import Audience, Figure
from core.release.audit import build_audit
from core.release.contents import departures
from core.release.exact import MalformedError, bound, fraction, real, whole
from core.release.facts import AuditFacts
from core.release.fields import CUSTODIAN_ONLY
from core.release.verify import verify
from core.release.wording import stated_claim
from tests.core.release.conftest import MOMENTS, STEPS, make_facts
from tests.core.release.test_verify import forge, said

HASHES = {"hash_list_sha256": "00" * 32, "files": 9}
EVERY_FACT = {
    "ledger": {"sealed_head": "cd" * 32}, "units_without_key_policy": "left out",
    "contribution_rule": "one at a time", "views": "mirrored", "public_data": "none",
    "selection": "none", "frozen_parts": "none", "adapters": "none",
    "storage": "owner only", "steps_completed": 20,
    "figures": (
        Figure(name="accuracy", value=0.5, audience=Audience.RELEASABLE, note="public"),
        Figure(name="size", value=3, audience=Audience.RELEASABLE),
    ),
}  # fmt: skip
WITHOUT_STEPS = {
    "events": (MOMENTS,), "steps_committed": 0, "steps_charged": 0, "clip_norm": None,
    "divisor": None, "expected_batch": None,
}  # fmt: skip

STATED = {
    "accountant", "adapters", "build_hash", "budget_ledger", "created_utc",
    "frozen_parts", "preprocessing", "public_data", "public_model", "rng", "storage",
    "units_without_key_policy", "versions", "views", "title", "version", "utility",
}  # fmt: skip
"""Facts in words that the run states and the program has no sentence of its own for."""
OPTIONAL = {
    "adapters", "augmentation_multiplicity", "frozen_parts", "public_data", "utility",
    "views",
}  # fmt: skip
STATED_WITHIN = {
    "definition", "rule", "name", "guidance", "post_filtering_rule",
    "weight_average", "learning_rate", "class_names",
}  # fmt: skip


@pytest.fixture(scope="module")
def document():
    audit = build_audit(make_facts(**EVERY_FACT), HASHES)
    assert departures(audit) == []
    return audit


def leaves(value, path=()):
    """Every (path, text or number) of a document."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def changed(audit, path, value):
    other = deepcopy(audit)
    place = other
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return other


def refused(audit) -> bool:
    try:
        return bool(departures(audit))
    except (KeyError, TypeError, ValueError):
        return True


def test_no_fact_is_forgotten_here():
    known = {field.name for field in fields(AuditFacts)} - {"fixed_seed"}
    stated = vars(make_facts(**EVERY_FACT))
    assert not {name for name in known if stated[name] in (None, ())}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unit": "patient", "max_images_per_unit": 3},
        {"relation": "replace_one", "epsilon_committed": 3},
        {"steps_charged": 10, "steps_completed": 9},
        {"augmentation_multiplicity": None, "divisor": 100},
        {"events": (STEPS | {"noise_multiplier": 6.0}, MOMENTS, STEPS)},
        WITHOUT_STEPS,
        EVERY_FACT | WITHOUT_STEPS | {"steps_completed": 0},
    ],
)
def test_what_is_exported_departs_in_nothing(changes):
    assert departures(build_audit(make_facts(**changes), HASHES)) == []


def test_nothing_but_a_fact_that_need_not_be_known_can_be_taken_away(document):
    quiet = {
        key
        for key in document
        if not refused({name: item for name, item in document.items() if name != key})
    }
    assert quiet == OPTIONAL


def test_what_is_missing_is_said_to_be(document):
    assert document["not_yet_reported"]
    assert refused(changed(document, ("not_yet_reported",), []))


@pytest.mark.parametrize(
    "path",
    [
        *((key,) for key in sorted(CUSTODIAN_ONLY)),
        ("patients",), ("stamp",), ("event_log",), ("product", "patients"),
        ("interpretation", "note"), ("tool", "maker"), ("utility", 0, "patients"),
        ("composition", "events", 0, "sampling_probability"), ("audit",), ("licence",),
        ("deviations",), ("dataset_description",), ("parent_report_ids",),
    ],
)  # fmt: skip
def test_there_is_no_place_for_anything_else(document, path):
    assert refused(changed(document, path, "Jane Doe"))


def test_what_belongs_to_the_custodian_is_named(document):
    found = departures(document | {"copy_check": "no copies"})
    assert [f.message for f in found] == [
        "audit.json holds “copy_check”, which must stay with the custodian."
    ]


def test_no_sentence_but_a_stated_fact_can_be_changed(document):
    for path, value in leaves(document):
        stated = STATED & {*path} or STATED_WITHIN & {*path[-2:]}
        if isinstance(value, str) and not stated:
            assert refused(changed(document, path, f"{value} indeed")), path


def test_no_list_of_the_program_can_be_emptied(document):
    for path in (
        ("unprotected_quantities",), ("interpretation", "does_not_promise"),
        ("interpretation", "text"), ("limitations",), ("claim_void_if",),
        ("claims_not_made",), ("what_is_released",), ("trust", "trusted"),
    ):  # fmt: skip
        assert refused(changed(document, path, [])), path


def test_a_number_of_another_type_is_another_number(document):
    for path, value in leaves(document):
        if {*path} & (STATED | {"sampler", "ema_lr_schedule"}):
            continue
        if type(value) is int:
            assert refused(changed(document, path, float(value))), path
            assert refused(changed(document, path, value + 0.9)), path
        if type(value) in (int, float):
            assert refused(changed(document, path, True)), path
            assert refused(changed(document, path, str(value))), path


@pytest.mark.parametrize("value", [1.0, True, "1", -1, None])
def test_only_a_whole_number_is_one(value):
    with pytest.raises(MalformedError, match="count"):
        whole(value, "count")


@pytest.mark.parametrize(
    "value", [True, "1", None, float("nan"), float("inf"), 10**400]
)
def test_only_a_finite_number_is_one(value):
    for read in (real, bound):
        with pytest.raises(MalformedError, match="σ"):
            read(value, "σ")
    assert real(3, "σ") == 3 and bound("infinite", "ε") == float("inf")


@pytest.mark.parametrize(
    "value", ["5e-2", "1e-999999999", "0.05", "1/0", "1/2/3", "-1/2", "9" * 401, 0.05]
)
def test_only_a_fraction_of_whole_numbers_is_one(value):
    with pytest.raises(MalformedError, match="q"):
        fraction(value, "q")
    assert fraction("1/20", "q") == 0.05 and fraction("1", "q") == 1.0


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("composition", "events", 0, "count"), 1.9, "“count” of audit.json is not"),
        (("composition", "events", 1, "q"), 0.1, "just the figures of its kind"),
        (("sampling", 0, "sampling_probability_exact"), "1e-999999999", "a fraction"),
        (("epsilon_spent",), True, "“epsilon_spent” of audit.json is not"),
        (("patients",), ["Jane Doe"], "holds “patients”"),
        (("limitations",), [], "“limitations” is not what"),
        (("not_yet_reported",), [], "“not_yet_reported” is not what"),
        (("storage",), "as it\nis safe", "“storage” in audit.json holds line breaks"),
        (("storage",), "as it is s\u0301afe", "“storage” in audit.json says “safe”"),
        (("stopping_rule",), "until they looked right", "“stopping_rule” is not what"),
        (("licence",), "for ward 7", "“licence”, which no report of this program has"),
        (("self_test",), "Jane Doe", "“self_test”, which no report of this program"),
        (("public_model", "overlap_reason"), "no\u202e", "characters that cannot be"),
        (("created_utc",), "2026, with ε = 0.1", "is not of the form"),
        (("title",), "Patches (ε = 0.1)", "says “ε”, which only the report"),
    ],
)
def test_verify_says_so(release, resummed, path, value, sentence):
    def change(audit):
        audit.update(changed(audit, path, value))

    try:
        forge(release, change, resummed)
    except (TypeError, ValueError):
        resummed(release)  # Of such a document not even a report can be made.
    assert sentence in said(release)


def test_an_epsilon_of_true_does_not_hold(release, resummed):
    def change(audit):
        audit["epsilon_claimed"] = True
        audit["claim"] = stated_claim(audit)

    forge(release, change, resummed)
    assert "“epsilon_claimed” of audit.json is not" in said(release)


def test_a_count_that_is_none_is_composed_as_nothing(release):
    audit = json.loads((release / "audit.json").read_text())
    audit = changed(audit, ("composition", "events", 0, "count"), 1.9)
    (release / "audit.json").write_text(json.dumps(audit))
    assert verify(release).epsilon_recomputed is None
