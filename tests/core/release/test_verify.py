from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from core.release.audit import build_audit, canonical, digest
from core.release.dataset import csv_cell, export_release, folder_names
from core.release.pdf import pdf
from core.release.report import card, html
from core.release.verify import verify
from core.release.wording import stated_claim
from tests.core.release.conftest import make_facts

MODULE = import_module("core.release.verify")
IMAGE = "images/tumour/000001.png"


def said(folder: Path) -> str:
    """What verify says; a release that holds says nothing."""
    outcome = verify(folder)
    assert outcome.holds == (not outcome.findings)
    return "\n".join(finding.message for finding in outcome.findings)


def edit(folder: Path, change) -> dict:
    audit = json.loads((folder / "audit.json").read_text())
    change(audit)
    (folder / "audit.json").write_bytes(canonical(audit))
    return audit


def forge(folder: Path, change, resummed) -> None:
    """Change audit.json, make every report anew from it, and sum again."""
    audit = edit(folder, change)
    names = tuple(audit["product"]["class_names"])
    (folder / "audit_report.html").write_text(html(audit))
    (folder / "audit_report.pdf").write_bytes(pdf(audit))
    (folder / "README.md").write_text(card(audit, folder_names(names)))
    resummed(folder)


def test_an_untouched_release_holds(exported):
    outcome = verify(exported)
    assert outcome.findings == () and outcome.notes == ()
    assert outcome.holds
    assert outcome.epsilon_recomputed == pytest.approx(0.4018, abs=1e-3)
    assert "ε = 1.000" in outcome.claim


def test_a_release_of_a_hostile_class_name_holds(tmp_path, sources):
    facts = make_facts(class_names=("=1+1", 'safe, or "not"'))
    assert said(export_release(facts, sources, tmp_path / "release").folder) == ""


def test_one_changed_byte_of_an_image(release):
    file = release / IMAGE
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    text = said(release)
    assert f"{IMAGE} was changed after the export." in text
    assert f"{IMAGE} is damaged." in text


def test_an_exchanged_image_with_sums_made_anew(release, resummed):
    other = release / "images/normal/000000.png"
    (release / IMAGE).write_bytes(other.read_bytes())
    resummed(release)
    assert "not those that audit.json lists" in said(release)


def test_a_missing_and_an_extra_file(release):
    (release / IMAGE).unlink()
    (release / "annex.json").write_text("{}")
    text = said(release)
    assert f"{IMAGE} is missing." in text
    assert "annex.json is not listed in SHA256SUMS." in text


def test_an_extra_file_with_sums_made_anew(release, resummed):
    (release / "images" / "tumour" / "extra.png").write_bytes(
        (release / IMAGE).read_bytes()
    )
    resummed(release)
    assert "image files are not those" in said(release)


def test_text_hidden_in_an_image(release, resummed):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Comment", "ward 7")
    with Image.open(release / IMAGE) as image:
        image.load()
        image.save(release / IMAGE, pnginfo=text)
    resummed(release)
    assert f"{IMAGE} holds a 'tEXt' chunk" in said(release)


def test_bytes_hidden_behind_an_image(release, resummed):
    with open(release / IMAGE, "ab") as file:
        file.write(b"ward 7")
    resummed(release)
    assert "holds bytes after the end of the image" in said(release)


def test_a_lowered_epsilon(release, resummed):
    def lower(audit):
        audit["epsilon_claimed"] = audit["epsilon_spent"] = 0.3
        audit["claim"] = stated_claim(audit)

    forge(release, lower, resummed)
    assert "above the claimed 0.3000" in said(release)
    found = {finding.subject for finding in verify(release).findings}
    assert found == {"epsilon_claimed", "epsilon_spent", "lifetime_budget"}


def test_a_lowered_epsilon_in_the_sentence_only(release, resummed):
    def lower(audit):
        audit["claim"] = audit["claim"].replace("1.000", "0.100")

    forge(release, lower, resummed)
    assert "claim sentence does not say" in said(release)


def test_a_raised_noise_in_one_place(release, resummed):
    def raise_noise(audit):
        audit["noise_multiplier"] = 8.0

    forge(release, raise_noise, resummed)
    assert "noise σ contradicts" in said(release)


def test_a_raised_noise_everywhere_with_a_lowered_claim(release, resummed):
    """The forger forgets nothing but what the noise does to ε of the events."""

    def raise_noise(audit):
        step = audit["composition"]["events"][1]
        step["noise_multiplier"] = audit["noise_multiplier"] = 8.0
        audit["original_parameters"][1]["noise_multiplier"] = 8.0
        audit["noise_std_abs"] = 4.0
        audit["epsilon_claimed"] = audit["epsilon_spent"] = 0.9
        audit["claim"] = stated_claim(audit)

    forge(release, raise_noise, resummed)
    text = said(release)
    assert "as audit.json says" in text and "above the claimed" not in text


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("steps_committed", 10, "The T contradicts"),
        ("steps_started", 21, "More steps were started"),
        ("epsilon_spent", 1.1, "More ε was spent"),
        ("n_public", {"count": 50_000, "unit": "image"}, "number N contradicts"),
        (
            "schema_version",
            "9.0.0",
            "version 9.0.0, which this version of Sfumato cannot check",
        ),
        ("annex_warning", "fully anonymous", "says “anonymous”"),
        ("stamp", "NO PRIVACY", "stamped NO PRIVACY"),
    ],
)
def test_edited_figures(release, resummed, key, value, sentence):
    forge(release, lambda audit: audit.update({key: value}), resummed)
    assert sentence in said(release)


@pytest.mark.parametrize("name", ["audit_report.html", "README.md"])
def test_a_report_with_a_lower_epsilon(release, resummed, name):
    file = release / name
    file.write_text(file.read_text().replace("ε = 1.000", "ε = 0.100"))
    resummed(release)
    assert f"{name} is not what" in said(release)


def test_a_pdf_of_another_document(release, resummed):
    audit = build_audit(make_facts(title="Another"), {"hash_list_sha256": "00"})
    (release / "audit_report.pdf").write_bytes(pdf(audit))
    resummed(release)
    assert "audit_report.pdf was made of another audit.json." in said(release)


def pdf_of_a_lower_epsilon(audit: dict) -> bytes:
    """It says that it was made of this document, and was made of another."""
    lower = audit | {"epsilon_claimed": 0.1}
    lower["claim"] = stated_claim(lower)
    return pdf(lower).replace(digest(lower).encode(), digest(audit).encode())


@pytest.mark.parametrize(
    "made",
    [
        pdf_of_a_lower_epsilon,
        lambda audit: f"%PDF-1.4 audit-sha256:{digest(audit)}".encode(),
        lambda audit: pdf(audit) + b"\n",
    ],
)
def test_a_pdf_that_was_not_checked_never_holds(release, resummed, made):
    audit = json.loads((release / "audit.json").read_text())
    (release / "audit_report.pdf").write_bytes(made(audit))
    resummed(release)
    assert "audit_report.pdf is not what this program makes" in said(release)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace("{", '{\n  "epsilon_claimed": 0.1,', 1),
        lambda text: json.dumps(json.loads(text), ensure_ascii=False),
        lambda text: text.replace("1.0,", "1.00,"),
        lambda text: text + "\n",
    ],
)
def test_a_document_written_otherwise(release, resummed, rewrite):
    """Of a key that comes twice, readers differ in which value they take."""
    file = release / "audit.json"
    changed = rewrite(file.read_text(encoding="utf-8"))
    assert changed != file.read_text(encoding="utf-8")
    file.write_text(changed, encoding="utf-8")
    resummed(release)
    assert "audit.json is not written as this program" in said(release)


def test_a_file_listed_twice(release):
    sums = release / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join([f"{'0' * 64}{lines[0][64:]}", *lines]))
    assert "SHA256SUMS holds more than one line" in said(release)


def test_an_empty_folder(release):
    (release / "images" / "patient Jane Doe").mkdir()
    assert "patient Jane Doe is an empty folder." in said(release)


def test_more_images_than_there_are_are_not_listed(release, monkeypatch):
    """The list of what a document asks for could be longer than any memory."""
    for name in ("metadata", "image_files"):
        monkeypatch.setattr(MODULE, name, lambda *_: pytest.fail())
    edit(release, lambda audit: audit["product"].update(images_per_class=10**12))
    assert "The image files are not those" in said(release)


def test_a_document_whose_pages_would_take_hours_is_not_printed(release, monkeypatch):
    monkeypatch.setattr(MODULE, "pdf", lambda _: pytest.fail())
    edit(release, lambda audit: audit.update(storage="x" * 500_000))
    assert "audit.json is no file, or larger than an export's." in said(release)


def test_a_label_changed(release, resummed):
    file = release / "metadata.csv"
    file.write_text(file.read_text().replace(f"{IMAGE},0", f"{IMAGE},1"))
    resummed(release)
    assert "metadata.csv does not name" in said(release)


def test_a_link_out_of_the_folder(release):
    (release / IMAGE).unlink()
    (release / IMAGE).symlink_to("/etc/passwd")
    assert f"{IMAGE} is not an ordinary file." in said(release)


def test_a_sums_line_that_points_outside(release):
    with open(release / "SHA256SUMS", "a") as file:
        file.write(f"{'0' * 64}  ../../etc/passwd\n")
    assert "A line of SHA256SUMS is malformed." in said(release)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'{"schema_version": "1.3.0"}',
        b'{"schema_version": "1.0.0"}',
        b"[" * 100_000,
        b'{"schema_version": "1.3.0", "content_hashes": {"hash_list_sha256": 3}}',
    ],
)
def test_a_malformed_document_is_a_finding(release, content):
    (release / "audit.json").write_bytes(content)
    assert "audit.json" in said(release)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("noise_multiplier", 1e-9),
        ("noise_multiplier", float("inf")),
        ("count", 10**12),
        ("kind", "magic"),
        ("sampling_probability", 7),
        ("dataset_size", "many"),
    ],
)
def test_hostile_events_are_findings(release, key, value):
    def change(audit):
        audit["composition"]["events"][1][key] = value

    audit = json.loads((release / "audit.json").read_text())
    change(audit)
    (release / "audit.json").write_text(json.dumps(audit))
    assert said(release)


def test_every_single_key_can_be_lost_without_a_traceback(release, monkeypatch):
    monkeypatch.setattr("core.release.recheck.recomputed_epsilon", lambda *_: 0.4018)
    whole = json.loads((release / "audit.json").read_text())
    for key in whole:
        (release / "audit.json").write_text(
            json.dumps({k: v for k, v in whole.items() if k != key})
        )
        assert not verify(release).holds, key


@pytest.mark.parametrize("name", ["audit.json", "SHA256SUMS", "metadata.csv"])
def test_a_missing_document(release, name):
    (release / name).unlink()
    assert name in said(release)


def test_a_name_cannot_write_to_the_terminal(release):
    (release / "\x1b[2Jx").write_text("")
    assert "\x1b" not in said(release)
    assert "?[2Jx is not listed" in said(release)


def test_a_key_cannot_write_to_the_terminal(release):
    edit(release, lambda audit: audit.update({"\x1b[2Jx": 1}))
    outcome = verify(release)
    assert "“?[2Jx”" in said(release)
    assert "\x1b" not in repr([vars(finding) for finding in outcome.findings])
    assert all(finding.subject.isprintable() for finding in outcome.findings)


def test_no_folder_and_an_empty_folder(tmp_path):
    assert "is not a folder" in said(tmp_path / "nowhere")
    assert "SHA256SUMS" in said(tmp_path)


def test_csv_cells_of_class_names_are_compared_as_written():
    assert csv_cell("=x") == "'=x"
