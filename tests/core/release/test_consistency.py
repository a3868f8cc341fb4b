"""Every figure of a report that follows from its events is recomputed."""

from __future__ import annotations

import math

import pytest

from core.release import consistency
from core.release.dataset import export_release
from core.release.verify import verify
from core.release.wording import stated_claim
from tests.core.release.conftest import MOMENTS, make_facts
from tests.core.release.test_verify import forge

PROFILE, SAMPLING = "privacy_profile", "sampling"
OTHERS = "neighbouring_relation.epsilon_under_other_relations"
TOLD = "interpretation"

LIES = [
    (f"{TOLD}.max_tpr_at_fpr_0_1_percent", 0.001),
    (f"{TOLD}.max_tpr_at_fpr_1_percent", 0.01),
    (f"{TOLD}.posterior_from_50_percent_at_fpr_1_percent", 0.5),
    (f"{TOLD}.best_accuracy_from_50_percent", 0.5),
    (f"{TOLD}.text.0", "at most 1.01 % ... accusing 1 % ... reach 1 %"),
    (f"{TOLD}.text.1", "at most 50.00 %; without this release, 50 %"),
    (f"{TOLD}.text.2", "than 50.01 % correctly; a coin reaches 50 %"),
    (f"{TOLD}.scale", "NIST SP 800-226 calls every ε strong."),
    *((f"{PROFILE}.{point}.epsilon", 0.1) for point in range(5)),
    *((f"{PROFILE}.{point}.delta", 1e-9) for point in range(5)),
    (f"{OTHERS}.replace_one", 0.3),
    (f"{OTHERS}.replace_special", 0.3),
    ("epsilon_spent", 0.2),
    ("epsilon_spent", 0.9),
    ("lifetime_budget.epsilon", 0.2),
    ("lifetime_budget.epsilon", 0.9),
    ("lifetime_budget.runs", 0),
    ("normaliser", 50.0),
    (f"{SAMPLING}.0.sampling_probability", 0.01),
    (f"{SAMPLING}.0.sampling_probability_exact", "1/100"),
    (f"{SAMPLING}.0.expected_batch", 50.0),
    (f"{SAMPLING}.0.batch_cap", 1000),
    ("composition.events.1.batch_cap", 1000),
    ("original_parameters.1.clip_norm", 0.1),
    ("original_parameters.0.clip_norm", 0.1),
    ("steps_started", 10),
    ("steps_started", -1),
    ("steps_completed", 21),
    ("steps_completed", -1),
    ("product.images", 9),
    ("product.images_per_class", 3),
    ("content_hashes.files", 8),
    ("delta_vs_n.holds", False),
    ("unprotected_quantities.0", "number of images, N = 9,000: declared"),
    ("n_public.unit", "patient"),
    ("epsilon_other_units.a person with 2 images", "ε = 0.5000 at δ = 2.4e-5"),
    ("epsilon_other_units.a person with 5 images", "ε = 2.009 at δ = 1e-9"),
    ("epsilon_other_units.a person with 10 images", "no bound: δ reaches 1"),
    ("max_contributions_per_unit.images", 50),
    ("max_contributions_per_unit.images", 0),
]
WITHOUT_STEPS = [
    ("clip_norm", 0.1),
    ("noise_multiplier", 99.0),
    ("noise_std_abs", 99.0),
    ("normaliser", 50.0),
    ("augmentation_multiplicity", 9),
    ("steps_started", -3),
    ("steps_completed", 7),
]


def put(audit, key, value):
    *parents, last = (int(k) if k.isdigit() else k for k in key.split("."))
    place = audit
    for parent in parents:
        place = place[parent]
    assert not isinstance(place, dict) or last in place or last == "steps_completed"
    place[last] = value
    audit["claim"] = stated_claim(audit)


@pytest.mark.parametrize(("key", "value"), LIES)
def test_a_lie_in_one_number_is_found(release, resummed, key, value):
    forge(release, lambda audit: put(audit, key, value), resummed)
    outcome = verify(release)
    assert not outcome.holds
    assert all("malformed" not in finding.message for finding in outcome.findings)


def test_no_row_is_invented(release, resummed):
    def invent(audit):
        others = audit["epsilon_other_units"]
        others["a family"] = "ε = 0.001 at δ = 1e-9"
        audit["epsilon_other_units"] = dict(sorted(others.items()))

    forge(release, invent, resummed)
    assert {f.subject for f in verify(release).findings} == {"epsilon_other_units"}


def test_a_group_whose_bound_is_no_number_for_a_machine():
    others = {"a person with 10 images": "no bound: the group's δ reaches 1"}
    audit = {"delta": 1e-5, "epsilon_other_units": others}
    assert [holds for holds, _, _ in consistency._groups(audit, 80.0)] == [True]


@pytest.mark.parametrize("runs", [1, 2])
def test_the_lifetime_budget_at_another_delta_is_no_way_out(release, resummed, runs):
    lifetime = {"delta": 1e-4, "epsilon": 0.05, "runs": runs}
    forge(release, lambda audit: audit["lifetime_budget"].update(lifetime), resummed)
    assert "lifetime_budget" in {f.subject for f in verify(release).findings}


def test_no_sentence_is_added_to_what_the_claim_means(release, resummed):
    def promise(audit):
        audit["interpretation"]["text"].append("No attack finds anyone.")

    forge(release, promise, resummed)
    assert "interpretation" in {f.subject for f in verify(release).findings}


def test_the_rule_and_the_number_of_a_patients_images_agree(
    tmp_path, sources, resummed
):
    rule = "At most 4 images of a unit enter a step."
    facts = make_facts(unit="patient", max_images_per_unit=4, contribution_rule=rule)
    folder = export_release(facts, sources, tmp_path / "release").folder
    assert verify(folder).findings == ()
    lie = lambda a: put(a, "max_contributions_per_unit.images", 3)  # noqa: E731
    forge(folder, lie, resummed)
    found = verify(folder).findings
    assert [f.subject for f in found] == ["max_contributions_per_unit"]


def test_a_release_of_patients_holds_and_its_images_are_checked(
    tmp_path, sources, resummed
):
    folder = tmp_path / "release"
    export_release(make_facts(unit="patient"), sources, folder)
    assert verify(folder).findings == ()
    key = "epsilon_other_units.one image of a patient"
    forge(folder, lambda a: put(a, key, "ε = 0.1 at δ = 1e-5"), resummed)
    assert {f.subject for f in verify(folder).findings} == {"epsilon_other_units"}


def test_a_run_that_was_stopped_holds(tmp_path, sources):
    """Ten of twenty steps were charged, and the claim stays as committed."""
    from core.release.recheck import recomputed_epsilon
    from tests.core.release.conftest import STEPS

    spent = recomputed_epsilon(
        [MOMENTS, STEPS | {"count": 10}], 1e-5, "add_or_remove_one"
    )
    facts = make_facts(
        steps_charged=10, steps_completed=9, epsilon_charged=spent,
        lifetime_epsilon=2 * spent, lifetime_runs=2,
    )  # fmt: skip
    outcome = verify(export_release(facts, sources, tmp_path / "release").folder)
    assert outcome.findings == ()
    assert "1 steps were charged and not completed" in outcome.notes[0]
    assert "other runs" in outcome.notes[1]


def test_a_release_after_runs_that_bound_nothing_for_its_unit_holds(tmp_path, sources):
    facts = make_facts(lifetime_epsilon=math.inf, lifetime_runs=2)
    folder = export_release(facts, sources, tmp_path / "release").folder
    assert verify(folder).findings == ()
    assert (
        "2 so far, together ε = infinite" in (folder / "audit_report.html").read_text()
    )


def test_moments_that_a_crash_kept_from_being_charged(tmp_path, sources):
    from core.release.recheck import recomputed_epsilon
    from tests.core.release.conftest import STEPS

    spent = recomputed_epsilon([STEPS], 1e-5, "add_or_remove_one")
    facts = make_facts(epsilon_charged=spent, lifetime_epsilon=spent)
    folder = export_release(facts, sources, tmp_path / "release").folder
    assert verify(folder).findings == ()


@pytest.mark.parametrize(
    ("charged", "holds"),
    [((0, 1, 2), True), ((0, 1), True), ((0,), True), ((1, 2), False), ((0, 2), False),
     ((2,), False)],
)  # fmt: skip
def test_a_crash_ends_the_releases_and_leaves_out_none_amid_them(
    tmp_path, sources, charged, holds
):
    from core.release.recheck import recomputed_epsilon
    from tests.core.release.conftest import STEPS

    releases = tuple(
        MOMENTS | {"noise_multiplier": noise} for noise in (10.0, 14.0, 9.0)
    )
    events, relation = (*releases, STEPS), "add_or_remove_one"
    claim = recomputed_epsilon(events, 1e-5, relation)
    spent = recomputed_epsilon([*(releases[n] for n in charged), STEPS], 1e-5, relation)
    facts = make_facts(
        events=events, epsilon_committed=1.01 * claim, epsilon_charged=spent,
        lifetime_epsilon=spent,
    )  # fmt: skip
    folder = export_release(facts, sources, tmp_path / "release").folder
    wrong = ["epsilon_spent"] * (not holds)
    assert [finding.subject for finding in verify(folder).findings] == wrong


@pytest.fixture
def without_steps(tmp_path, sources):
    from core.release.recheck import recomputed_epsilon

    spent = recomputed_epsilon([MOMENTS], 1e-5, "add_or_remove_one")
    facts = make_facts(
        events=(MOMENTS,), steps_committed=0, steps_charged=0, clip_norm=None,
        divisor=None, expected_batch=None, epsilon_charged=spent,
        lifetime_epsilon=spent,
    )  # fmt: skip
    return export_release(facts, sources, tmp_path / "release").folder


def test_a_release_without_steps_holds(without_steps):
    assert verify(without_steps).findings == ()


@pytest.mark.parametrize(("key", "value"), [("epsilon_spent", 0.1), *WITHOUT_STEPS])
def test_a_release_without_steps_has_no_numbers_of_steps(
    without_steps, resummed, key, value
):
    forge(without_steps, lambda audit: put(audit, key, value), resummed)
    outcome = verify(without_steps)
    assert not outcome.holds
    assert all("malformed" not in finding.message for finding in outcome.findings)
