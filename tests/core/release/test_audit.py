from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.audience import Audience, Figure
from core.errors import UserError
from core.release.audit import build_audit, canonical, lookup
from core.release.bounds import bounds, group_privacy
from core.release.exact import MalformedError
from core.release.facts import PrivateFigureError, releasable
from core.release.fields import CUSTODIAN_ONLY, FIELDS, KEYS
from core.release.report import front_page, html, missing, parts
from tests.core.release.conftest import MOMENTS, STEPS, make_facts
from tests.core.release.test_contents import WITHOUT_STEPS

HASHES = {"hash_list_sha256": "00" * 32, "files": 9}
GAUSSIAN = {"kind": "gaussian", "noise_multiplier": 1.0, "count": 1, "what": "one"}


def private(name: str = "accuracy on real held-out images") -> Figure:
    return Figure(name=name, value=0.9, audience=Audience.INTERNAL)


def test_the_table_has_all_85_fields_in_order():
    assert [field.number for field in FIELDS] == list(range(1, 86))
    assert all(set(field.required) <= set(field.keys) for field in FIELDS)
    assert CUSTODIAN_ONLY <= KEYS


def test_every_required_item_is_reported_or_listed_as_missing():
    audit = build_audit(make_facts(), HASHES)
    listed = {item["key"] for item in audit["not_yet_reported"]}
    for field in FIELDS:
        for key in field.required:
            reported = lookup(audit, key) is not None
            assert reported != (key in listed), key
    assert "self_test" in listed and "epsilon_claimed" not in listed


def test_a_fact_that_becomes_known_leaves_the_list_and_enters_the_report():
    assert 64 in {number for number, _, _ in missing(build_audit(make_facts(), HASHES))}
    known = build_audit(make_facts(storage="owner only"), HASHES)
    assert "storage" not in {item["key"] for item in known["not_yet_reported"]}
    assert "owner only" in html(known)
    assert 64 not in {number for number, _, _ in missing(known)}


def test_what_the_claim_covers_tells_nothing_of_other_runs():
    """It would tell whether the data were exactly those of an earlier run."""
    audits = [
        build_audit(make_facts(lifetime_runs=runs, lifetime_epsilon=spent), HASHES)
        for runs, spent in ((1, 0.4018), (2, 0.9))
    ]
    for audit in audits:
        del audit["lifetime_budget"], audit["report_id"]
    assert audits[0] == audits[1]
    page = front_page(build_audit(make_facts(), HASHES))
    assert "but for what the report says of other runs (field 49)" in page.promise


@pytest.mark.parametrize("steps", [0, 20])
def test_what_is_not_protected_is_said(steps):
    audit = build_audit(make_facts(**(WITHOUT_STEPS if not steps else {})), HASHES)
    said = " ".join(audit["unprotected_quantities"])
    assert "at least two images to train on and at most N" in said
    assert "that it is released: chosen by the custodian, who may have seen" in said
    assert "in advance" not in json.dumps(audit)
    assert "what such a choice of settings reveals" in audit["hyperparameter_tuning"]
    assert audit["accumulation_dtype"] == "float64"


def test_no_annex_key_is_in_the_document():
    audit = build_audit(make_facts(), HASHES)
    assert all(lookup(audit, key) is None for key in CUSTODIAN_ONLY)


def test_the_document_is_the_same_for_the_same_facts():
    first, second = (build_audit(make_facts(), HASHES) for _ in range(2))
    assert canonical(first) == canonical(second)


@pytest.mark.parametrize(
    "changes",
    [
        {"figures": (private(),)},
        {"versions": {"torch": private()}},
        {"events": (MOMENTS, STEPS | {"loss": private()})},
        {"ema": [{"deep": (private(),)}]},
    ],
)
def test_an_internal_figure_is_refused_wherever_it_hides(changes):
    with pytest.raises(PrivateFigureError):
        build_audit(make_facts(**changes), HASHES)


@pytest.mark.parametrize(
    "value", [Path("/home/ward7"), np.float64(0.5), np.zeros(3), object(), b"x"]
)
def test_only_plain_values_pass_the_gate(value):
    with pytest.raises(PrivateFigureError):
        releasable({"value": value})


def test_a_releasable_figure_is_reported_with_its_note():
    figure = Figure(
        name="accuracy on public images",
        value=0.5,
        audience=Audience.RELEASABLE,
        note="phantom",
    )
    audit = build_audit(make_facts(figures=(figure,)), HASHES)
    assert audit["utility"] == [
        {"name": "accuracy on public images", "value": 0.5, "note": "phantom"}
    ]


def test_the_private_fingerprint_is_left_out_with_its_reason():
    audit = build_audit(make_facts(), HASHES)
    assert "left out" in audit["lifetime_budget"]["dataset_fingerprint"]


def test_a_claim_below_what_the_events_cost_is_refused():
    with pytest.raises(ValueError, match="more than the claim"):
        build_audit(make_facts(epsilon_committed=0.3, epsilon_charged=0.1), HASHES)


def test_more_charged_than_committed_is_the_custodians_to_settle():
    with pytest.raises(UserError, match="more than"):
        build_audit(make_facts(epsilon_charged=1.5), HASHES)


@pytest.mark.parametrize(
    "title",
    ["", "Anonymous patches", "two\nlines", "x" * 201, "Patches (ε = 0.1)", "Delta"],
)
def test_titles_that_cannot_be_printed_are_refused(title):
    with pytest.raises(UserError, match="title"):
        build_audit(make_facts(title=title), HASHES)


def test_a_report_that_is_too_long_is_the_custodians_to_shorten():
    with pytest.raises(UserError, match="too long"):
        build_audit(make_facts(class_names=("a" * 2000,) * 200), HASHES)


@pytest.mark.parametrize(
    "changes",
    [
        {"created_utc": "2026-08-14, at ε = 0.1"},
        {"tool_version": "0.1.0 (ε = 0.1)"},
        {"run_id": "../7f3a"},
        {"colour": "RGBA"},
        {"unit": "person"},
        {"delta": 1.5},
    ],
)
def test_facts_of_the_first_page_have_a_form(changes):
    with pytest.raises(MalformedError):
        build_audit(make_facts(**changes), HASHES)


def test_no_fact_may_promise_too_much_but_a_class_may_be_called_anything():
    with pytest.raises(UserError, match="public data"):
        build_audit(make_facts(public_data="taken from anonymised files"), HASHES)
    facts = make_facts(class_names=("safe", "not safe"))
    assert build_audit(facts, HASHES)["product"]["class_names"] == ["safe", "not safe"]


def test_a_fixed_seed_claims_nothing():
    audit = build_audit(make_facts(fixed_seed=True), HASHES)
    assert audit["stamp"] == "NO PRIVACY"
    assert "epsilon_claimed" not in audit
    assert audit["claim"].startswith("NO PRIVACY")
    assert "NO PRIVACY" in html(audit)
    assert "(ε, δ)-differential privacy, ε =" not in html(audit)


def test_the_gaussian_mechanism_agrees_with_its_closed_form():
    """σ = 1 is 1-GDP: Φ gives profile, power and accuracy exactly."""
    from scipy.stats import norm

    found = bounds([GAUSSIAN], delta=1e-5, relation="add_or_remove_one", count=1000)
    epsilon = found.epsilon
    delta = norm.cdf(0.5 - epsilon) - math.exp(epsilon) * norm.cdf(-0.5 - epsilon)
    assert delta == pytest.approx(1e-5, rel=1e-3)
    for rate, power in found.true_positive_rates.items():
        exact = norm.cdf(norm.ppf(rate) + 1)
        assert exact <= power <= exact * 1.02
    accuracy = norm.cdf(0.5)
    assert accuracy - 1e-9 <= found.best_accuracy <= accuracy + 1e-3


def test_other_relations_are_told_apart():
    """The reference run: 1.00 for add or remove, 2.14 for replace one."""
    run = STEPS | {"sampling_probability": 0.1, "batch_cap": 100_000}
    run |= {"dataset_size": 100_000, "noise_multiplier": 11.87, "count": 1000}
    found = bounds([run], delta=1e-5, relation="add_or_remove_one", count=100_000)
    assert found.epsilon == pytest.approx(1.0, abs=0.01)
    assert found.by_relation["replace_one"] == pytest.approx(2.14, abs=0.01)


def test_group_privacy_of_one_is_the_claim_and_grows():
    assert group_privacy(1.0, 1e-5, 1) == (1.0, pytest.approx(1e-5))
    assert group_privacy(1.0, 1e-5, 2) == (2.0, pytest.approx(1e-5 * (math.e + 1)))
    assert group_privacy(10.0, 1e-5, 10)[1] == 1.0
    assert group_privacy(80.0, 1e-5, 10) == (800.0, 1.0)


def test_a_vacuous_group_bound_is_called_no_bound():
    loud = MOMENTS | {"noise_multiplier": 0.7}
    facts = make_facts(events=(loud,), epsilon_committed=50.0)
    others = build_audit(facts, HASHES)["epsilon_other_units"]
    assert others["a person with 10 images"].startswith("no bound")


def test_each_reported_field_is_printed_once():
    numbers = [
        row[0] for part in parts(build_audit(make_facts(), HASHES)) for row in part.rows
    ]
    assert len(numbers) == len(set(numbers)) > 45


def test_importing_the_room_is_light():
    code = (
        "import sys, core.release; "
        "print([m for m in ('torch', 'scipy', 'dp_accounting', 'reportlab', "
        "'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
