"""What no text of a report may hold."""

from __future__ import annotations

import pytest

from core.errors import UserError
from core.release.dataset import export_release
from core.release.facts import check_facts
from core.release.texts import objections
from core.release.verify import verify
from tests.core.release.conftest import make_facts

HIDDEN = [
    "two\nlines", "a\ttab", "zero\u200bwidth", "soft\u00adhyphen", "\u202ebackwards",
    "\x1b[2Jescape", "\u2028line", "filler\u3164", "\ud800",
]  # fmt: skip
TOO_MUCH = [
    "is safe", "is\u00a0safe", "fully Anonymous", "ｓａｆｅ", "𝐬𝐚𝐟𝐞", "sáfe",
    "verified\u2003private", "s\u034fafe",
]  # fmt: skip
BOUNDS = [
    "ε = 0.1", "(Ε, Δ)", "ε0.1", "𝜀 = 1", "ϵ-DP", "ɛ=1", "δ=1e-9", "Epsilon 1",
    "delta_1", "with EPSILON",
]  # fmt: skip


@pytest.mark.parametrize("text", HIDDEN)
def test_what_cannot_be_seen_is_found_wherever_it_stands(text):
    for document in (
        {"licence": text}, {"product": {"class_names": [text]}},
        {"versions": {text: "1"}}, {"events": [{"what": [text]}]},
    ):  # fmt: skip
        assert [wrong for _, wrong in objections(document)] == [
            "holds line breaks or characters that cannot be seen"
        ]


@pytest.mark.parametrize("text", TOO_MUCH)
def test_a_word_that_promises_too_much_is_found_as_it_is_read(text):
    (found,) = objections({"public_model": {"overlap_reason": f"this {text}"}})
    assert found[0] == "public_model.overlap_reason" and "no bound" in found[1]
    assert not list(objections({"product": {"class_names": [f"this {text}"]}}))
    assert list(objections({"public_model": {"class_names": [f"this {text}"]}}))


@pytest.mark.parametrize("text", BOUNDS)
def test_a_title_states_no_bound(text):
    (found,) = objections({"title": f"Patches {text}"})
    assert "only the report itself" in found[1]
    assert not list(objections({"note": f"Patches {text}"}))


@pytest.mark.parametrize(
    "text", ["δέρμα", "Größe in µm", "Deltamuskel", "a : b", "eps8", "unsafe", "日本語"]
)
def test_other_titles_are_left_alone(text):
    assert not list(objections({"title": text}))


@pytest.mark.parametrize("text", [*HIDDEN[:-1], *TOO_MUCH])
def test_the_custodian_is_told_before_anything_is_written(text):
    model = {"name": "starter", "licence": "CC0", "overlap_reason": text}
    with pytest.raises(UserError, match=r"checkpoint\.overlap reason"):
        check_facts(make_facts(checkpoint=model))


def test_a_release_with_words_in_other_scripts_holds(tmp_path, sources):
    model = {"name": "starter", "licence": "CC0", "overlap_reason": "non\u202f: été"}
    facts = make_facts(title="Größe δέρμα", checkpoint=model)
    assert verify(export_release(facts, sources, tmp_path / "release").folder).holds
